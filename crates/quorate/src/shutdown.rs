//! Turns SIGTERM and SIGINT into a cancellation.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second signal ends the process
/// at once, so that a hanging shutdown can always be cut short.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    // Task "signals": lives as long as the process; it has nothing that can fail.
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        tracing::info!("{}: shutting down", next().await);
        cancel.cancel();
        tracing::warn!("{} again: leaving at once", next().await);
        std::process::exit(130);
    });
    Ok(token)
}
