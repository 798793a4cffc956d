//! `quorate kubeconfig`

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;
use crate::error::Result;
use crate::local::kubeconfig;
use crate::output::print;

/// Prints a kubeconfig: the CA, the client certificate, a context for the endpoint that fails
/// over between the masters, and one for each master.
#[derive(Args, Debug)]
pub struct Kubeconfig {
    /// Server of the default context, instead of the cluster's endpoint
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Kubeconfig {
    pub fn run(self, context: &Context) -> Result<ExitCode> {
        let config = kubeconfig::of(&context.cluster()?, self.server.as_deref())?;
        print::text(&print::to_yaml(&config)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
