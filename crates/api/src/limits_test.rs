use super::*;
use tonic_types::StatusExt as _;

fn metadata(timeout: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-timeout", timeout.parse().unwrap());
    metadata
}

#[test]
fn the_clients_deadline_is_read() {
    assert_eq!(client_timeout(&metadata("250m")), Some(Duration::from_millis(250)));
    assert_eq!(client_timeout(&metadata("2S")), Some(Duration::from_secs(2)));
    assert_eq!(client_timeout(&metadata("S")), None);
    assert_eq!(client_timeout(&metadata("7x")), None);
    assert_eq!(client_timeout(&MetadataMap::new()), None);
}

#[tokio::test]
async fn a_write_out_of_time_is_unknown_a_read_is_not() {
    let forever = || std::future::pending::<Result<(), Status>>();
    let reason = |status: Status| status.get_error_details().error_info().unwrap().reason.clone();
    let read = within(&metadata("5m"), Effect::Read, forever()).await.unwrap_err();
    assert_eq!(reason(read), "Timeout");
    let write = within(&metadata("5m"), Effect::Write, forever()).await.unwrap_err();
    assert_eq!(reason(write), "OutcomeUnknown");
}
