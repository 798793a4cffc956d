use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Load;
use crate::closed::closed_address;
use crate::wait_for;

/// Answers each connection with `body`.
async fn server(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 256]).await;
            let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await;
        }
    });
    address
}

async fn run(addresses: Vec<SocketAddr>) -> super::Counts {
    let load = Load::start(addresses, "/", "hello", 2, Duration::from_millis(1));
    wait_for("20 requests", Duration::from_secs(20), async || {
        anyhow::ensure!(load.counts().sent >= 20, "{:?}", load.counts());
        Ok(())
    })
    .await
    .unwrap();
    load.stop().await
}

#[tokio::test]
async fn a_closed_address_is_a_retry_and_a_wrong_answer_a_failure() {
    let good = server("hello you").await;
    let counts = run(vec![good, closed_address().unwrap()]).await;
    assert!(counts.failed == 0 && counts.retried > 0 && counts.retried < counts.sent, "{counts:?}");

    let wrong = server("go away").await;
    let counts = run(vec![wrong]).await;
    assert_eq!(counts.failed, counts.sent);
}
