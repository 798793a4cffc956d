//! `quorate completion bash|zsh|fish`

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::context::Context;
use crate::error::Result;
use crate::output::print;

/// Prints a script for `source <(quorate completion bash)`.
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub fn run(self, context: &Context) -> Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut context.root.clone(), "quorate", &mut script);
        print::bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
