//! `make demo`: three masters, two nodes, a web application under load. Kills the leading
//! master, then a node, and ends with a table of what that cost.

mod report;
mod story;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Names the signal that ends the demo early.
async fn interruption() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map(|()| "SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // Whichever way the story ends, dropping it stops the cluster and removes its containers.
    let result = tokio::select! {
        result = story::run() => result,
        signal = interruption() => Err(match signal {
            Ok(name) => anyhow::anyhow!("interrupted by {name}; everything was cleaned up"),
            Err(error) => anyhow::anyhow!("listening for signals: {error}"),
        }),
    };
    match result {
        Ok(report) => {
            println!("\n{report}");
            if report.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
