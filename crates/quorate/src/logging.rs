//! Logs of the daemons: structured lines on standard error, filtered by `QUORATE_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged unless `QUORATE_LOG` says otherwise. openraft reports every ordinary
/// election step at `info`, and every failed heartbeat at `warn`: more than an operator wants
/// to read.
const DEFAULT_FILTER: &str = "info,openraft=error,h2=warn,hyper=warn,tower=warn";

/// Sets up logging for this process.
///
/// # Errors
/// When `QUORATE_LOG` is not a valid filter.
pub fn init() -> anyhow::Result<()> {
    let filter = match std::env::var("QUORATE_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|e| {
            anyhow::anyhow!("QUORATE_LOG={text}: {e}; an example: info,openraft=debug")
        })?,
        Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
