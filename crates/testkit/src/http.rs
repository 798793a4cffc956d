//! The smallest HTTP client that does: one GET per connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a request failed. The difference matters: a client may try another address after
/// `Connect`, as nothing was sent yet.
#[derive(Debug)]
pub enum HttpError {
    /// No connection came about.
    Connect(String),
    /// The connection broke, or the answer was wrong or late.
    Answer(String),
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(reason) => write!(f, "connecting: {reason}"),
            Self::Answer(reason) => write!(f, "waiting for the answer: {reason}"),
        }
    }
}

impl std::error::Error for HttpError {}

/// Requests `path` over a new connection and returns the body of a 200 answer.
///
/// # Errors
/// Says whether the connection or the answer failed.
pub async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<String, HttpError> {
    let mut stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(HttpError::Connect(error.to_string())),
        Err(_) => return Err(HttpError::Connect(format!("no connection within {limit:?}"))),
    };
    match tokio::time::timeout(limit, exchange(&mut stream, address, path)).await {
        Ok(Ok(answer)) => body(&answer),
        Ok(Err(error)) => Err(HttpError::Answer(error.to_string())),
        Err(_) => Err(HttpError::Answer(format!("no answer within {limit:?}"))),
    }
}

async fn exchange(
    stream: &mut TcpStream,
    address: SocketAddr,
    path: &str,
) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn body(answer: &str) -> Result<String, HttpError> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err(HttpError::Answer(format!("cut short after {} bytes", answer.len())));
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(HttpError::Answer(status.to_owned()));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
#[path = "http_test.rs"]
mod tests;
