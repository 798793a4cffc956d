//! SIGINT and SIGTERM end a run early, and its report is written all the same.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal: the shell's for SIGINT.
const AT_ONCE: i32 = 130;

/// Cancelled by the first signal; the second ends the process at once.
///
/// # Errors
/// When no handler can be set.
pub(super) fn token() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    // Task "interrupt": it ends with the process.
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("\ninterrupted: mending and judging what there is; once more ends it at once");
        cancel.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(AT_ONCE);
    });
    Ok(token)
}
