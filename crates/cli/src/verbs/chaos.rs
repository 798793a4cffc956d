//! `quorate chaos`

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::error::{CliError, Result};

/// The harness is a program of its own, so that this binary does not carry it.
const PROGRAM: &str = "quorate-chaos";

/// Runs the chaos harness. `quorate chaos --help` shows its commands.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub struct Chaos {
    /// What the harness is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    args: Vec<OsString>,
}

impl Chaos {
    pub fn run(self) -> Result<ExitCode> {
        let own = std::env::current_exe()
            .map_err(|error| CliError::local(format!("cannot find my own binary: {error}")))?;
        let beside = own.with_file_name(PROGRAM);
        let program = if beside.is_file() { beside.as_os_str() } else { PROGRAM.as_ref() };
        // Returns only when it fails.
        let error = Command::new(program).args(self.args).env("QUORATE_BIN", &own).exec();
        Err(CliError::local(format!(
            "cannot run {PROGRAM}, neither beside {} nor from PATH: {error}; `make build` builds it",
            own.display()
        )))
    }
}
