#![doc = include_str!("../OVERVIEW.md")]

mod context;
mod duration;
mod error;
mod json;
pub mod local;
mod manifests;
mod merge;
mod output;
mod pods;
mod resource;
mod terminal;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use context::{Globals, Host, Purge, Purged, RestoreRequest, RestoreSnapshot, VerifySnapshot};
pub use error::CliError;
pub use verbs::Command;

use context::Context;

/// Parses the command line. Mistakes end with 1, as `kubectl`'s do, help and version with 0;
/// in both cases everything has been printed.
///
/// # Errors
/// The exit code, when there is nothing to run.
pub fn parse<T: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, ExitCode> {
    T::try_parse_from(args).map_err(|error| {
        // When even that cannot be printed, the exit code has to say it.
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

/// Runs one command. `T` is the binary's whole command line, for shell completion.
pub async fn run<T: CommandFactory>(command: Command, globals: Globals, host: Host) -> ExitCode {
    let context = Context::new(globals, host, T::command());
    match command.run(&context).await {
        Ok(code) => code,
        Err(CliError::BrokenPipe) => ExitCode::SUCCESS,
        Err(CliError::Reported) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
