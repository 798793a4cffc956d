//! Limits of requests.

use std::time::Duration;

use tonic::{Code, Status, metadata::MetadataMap};

use crate::error::status;

/// Largest request taken. The store takes 1.5 MiB; the rest is room to say so politely.
pub const MAX_REQUEST_BYTES: usize = 2 << 20;
/// Every request but watches, sessions and logs is over after this long, or after the
/// client's own deadline when that is shorter.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests carried out at once, of those that have a deadline.
pub(crate) const MAX_IN_FLIGHT: usize = 1024;
/// Watches, sessions and logs open at once.
pub(crate) const MAX_STREAMS: usize = 16 * 1024;

/// Sessions of exec, attach and port-forward over HTTP at once.
pub(crate) const MAX_SESSIONS: usize = 1024;
/// Connections open at once.
pub(crate) const MAX_CONNECTIONS: usize = 16 * 1024;

/// What a request that ran out of time may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Read,
    /// Its write may or may not take effect.
    Write,
}

/// Carries out `work` within the request's deadline; `Err` with the deadline when it passes.
pub(crate) async fn deadline<T>(
    metadata: &MetadataMap,
    work: impl Future<Output = T>,
) -> Result<T, Duration> {
    let limit = client_timeout(metadata).map_or(REQUEST_TIMEOUT, |t| t.min(REQUEST_TIMEOUT));
    tokio::time::timeout(limit, work).await.map_err(|_| limit)
}

/// The same with a status of ours.
pub(crate) async fn within<T>(
    metadata: &MetadataMap,
    effect: Effect,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    deadline(metadata, work).await.unwrap_or_else(|limit| {
        Err(match effect {
            Effect::Read => {
                status(Code::DeadlineExceeded, "Timeout", format!("no answer within {limit:?}"))
            }
            Effect::Write => status(
                Code::Unknown,
                "OutcomeUnknown",
                format!("not done within {limit:?}; the write may or may not take effect"),
            ),
        })
    })
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn client_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value.checked_mul(3600)?),
        "M" => Duration::from_secs(value.checked_mul(60)?),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
#[path = "limits_test.rs"]
mod tests;
