//! Waiting on conditions: every wait has a deadline and says what it waited for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks. Short beside every deadline, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest time that one look may take: a hanging look must not eat the whole deadline unseen.
const LOOK: Duration = Duration::from_secs(20);

/// Looks until `look` returns `Ok`, and returns its value and the time that it took. `Err`
/// means "not yet, because …"; the last reason is part of the error after `deadline`.
///
/// # Errors
/// When `deadline` passed.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let reason = match tokio::time::timeout(LOOK, look()).await {
            Ok(Ok(value)) => return Ok((value, start.elapsed())),
            Ok(Err(reason)) => format!("{reason:#}"),
            Err(_) => format!("no answer within {LOOK:?}"),
        };
        if start.elapsed() >= deadline {
            bail!("{what}: not within {deadline:?}; at last: {reason}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
#[path = "wait_test.rs"]
mod tests;
