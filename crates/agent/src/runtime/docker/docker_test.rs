#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::spec::tests::container_spec;
use super::*;

/// No answer takes longer, if one comes.
const LIMIT: Duration = Duration::from_secs(20);

/// Takes one request and answers it, but for that of a pull, whose registry is dead.
async fn answer(mut stream: TcpStream, pulls: mpsc::UnboundedSender<()>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let request = head.lines().next().unwrap();
    if request.contains("/images/create") {
        pulls.send(()).unwrap();
        return std::future::pending().await;
    }
    let (status, body) = if request.contains("/version") {
        ("200 OK", r#"{"Version": "1", "ApiVersion": "1.44"}"#)
    } else if request.contains("/containers/create") {
        ("201 Created", r#"{"Id": "made", "Warnings": []}"#)
    } else {
        ("204 No Content", "")
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    // What the asker still sends is read, or it might lose the answer.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// An engine whose pulls do not end. Its address, and each pull that has begun.
async fn engine() -> (String, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, sender.clone()));
        }
    });
    (host, receiver)
}

#[tokio::test]
async fn pulls_that_do_not_end_keep_no_container_from_its_start() {
    let (host, mut pulls) = engine().await;
    let connecting = tokio::time::timeout(LIMIT, Docker::connect(&host, "c", "n"));
    let docker = Arc::new(connecting.await.unwrap().unwrap());
    for number in 0..CONCURRENT_PULLS {
        let docker = Arc::clone(&docker);
        tokio::spawn(async move { docker.pull_image(&format!("dead/{number}:1")).await });
        tokio::time::timeout(LIMIT, pulls.recv()).await.unwrap().unwrap();
    }
    assert_eq!(docker.pulls.available_permits(), 0);
    let spec = container_spec();
    let starting = tokio::time::timeout(LIMIT, docker.start_container(&spec));
    starting.await.expect("the start waits for the pulls").unwrap();
}
