//! Is a Docker daemon there? Asked before anything is started, so that the message is clear.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::{CliError, Result};

const DEFAULT: &str = "unix:///var/run/docker.sock";
const LIMIT: Duration = Duration::from_secs(5);

/// The daemon's address: the flag, DOCKER_HOST, or the usual socket.
#[must_use]
pub fn address(flag: Option<&str>) -> String {
    let given = flag.map(str::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok());
    match given.filter(|text| !text.is_empty()) {
        Some(text) if text.starts_with('/') => format!("unix://{text}"),
        Some(text) => text,
        None => DEFAULT.to_owned(),
    }
}

/// Asks the daemon for a sign of life. Only sockets of this host are asked; for others the
/// agents find out.
///
/// # Errors
/// When it does not answer; the message says what to do.
pub async fn ping(address: &str) -> Result<()> {
    let Some(path) = address.strip_prefix("unix://") else { return Ok(()) };
    match timeout(LIMIT, ask(path)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(problem(address, "it does not answer like Docker")),
        Ok(Err(e)) => Err(problem(address, &e.to_string())),
        Err(_) => Err(problem(address, "no answer within 5 s")),
    }
}

async fn ask(path: &str) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n").await?;
    let mut head = [0_u8; 64];
    let length = stream.read(&mut head).await?;
    let head = String::from_utf8_lossy(&head[..length]);
    Ok(head.starts_with("HTTP/1.") && head.contains(" 200"))
}

fn problem(address: &str, why: &str) -> CliError {
    CliError::local(format!(
        "cannot reach Docker at {address}: {why}\n  \
         start Docker, name another socket with --docker, or start masters only with --nodes 0"
    ))
}
