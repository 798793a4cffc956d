use super::*;

#[test]
fn leader_hint_and_reason_travel() {
    let error = RegistryError::Unavailable {
        reason: "no quorum".into(),
        leader: Some("http://127.0.0.1:7002".into()),
    };
    let status = registry_status(error);
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("ServiceUnavailable", DOMAIN));
    assert_eq!(info.metadata["leader"], "http://127.0.0.1:7002");
}

#[test]
fn a_gone_revision_is_out_of_range_and_expired() {
    let status = registry_status(RegistryError::Gone { requested: 3, oldest: 9 });
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "Expired");
}
