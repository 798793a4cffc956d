#![allow(clippy::unwrap_used, clippy::expect_used)]

use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt as _;
use tonic::Status;

use super::never_sent;

fn request() -> Request<Empty<bytes::Bytes>> {
    Request::post("http://master/call").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_request_that_the_connection_has_not_taken_was_never_sent() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
    // The connection ends while the request waits for it.
    let waiting = sender.send_request(request());
    drop(connection);
    drop(theirs);
    let error = waiting.await.unwrap_err();
    assert!(never_sent(&Status::from_error(error.into())).is_some());
}

#[tokio::test]
async fn a_request_that_was_sent_may_have_been_carried_out() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
    let connection = tokio::spawn(connection);
    let waiting = tokio::spawn(sender.send_request(request()));
    let mut seen = Vec::new();
    // The header of the request begins with its frame: length, then type 1.
    let headers = |seen: &[u8]| {
        let mut rest = seen.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or_default();
        while let [a, b, c, kind, ..] = rest {
            if *kind == 1 {
                return true;
            }
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        false
    };
    while !headers(&seen) {
        assert_ne!(theirs.read_buf(&mut seen).await.unwrap(), 0);
    }
    drop(theirs);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(never_sent(&Status::from_error(error.into())).is_none());
    let _ = connection.await;
}
