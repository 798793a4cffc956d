use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{HttpError, body, get};
use crate::closed::closed_address;

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn reads_the_body_of_an_answer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 256];
        let read = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello\n").await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    assert_eq!(get(address, "/x", LIMIT).await.unwrap(), "hello\n");
    assert!(server.await.unwrap().starts_with("GET /x HTTP/1.0\r\n"));
}

#[tokio::test]
async fn a_refused_connection_is_told_apart() {
    let address = closed_address().unwrap();
    assert!(matches!(get(address, "/", LIMIT).await, Err(HttpError::Connect(_))));
}

#[test]
fn only_a_whole_200_counts() {
    assert!(matches!(body("HTTP/1.0 200 OK\r\n"), Err(HttpError::Answer(_))));
    assert!(matches!(body("HTTP/1.0 502 Bad\r\n\r\nx"), Err(HttpError::Answer(_))));
}
