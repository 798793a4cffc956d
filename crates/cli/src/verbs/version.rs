//! `quorate version`

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::context::Context;
use crate::error::Result;
use crate::output::print;

/// Prints the versions.
#[derive(Args, Debug)]
pub struct Version {
    /// Do not ask the masters
    #[arg(long)]
    client: bool,
    /// Format
    #[arg(long, short)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

impl Version {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let own = context.host.version;
        let server =
            if self.client { None } else { Some(context.client()?.status().await?.version) };
        let value = match &server {
            Some(server) => json!({"clientVersion": own, "serverVersion": server}),
            None => json!({"clientVersion": own}),
        };
        match self.output {
            Some(Format::Json) => print::text(&print::to_json(&value)?)?,
            Some(Format::Yaml) => print::text(&print::to_yaml(&value)?)?,
            None => {
                print::line(&format!("Client Version: {own}"))?;
                if let Some(server) = server {
                    print::line(&format!("Server Version: {server}"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
