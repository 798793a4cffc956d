//! `quorate snapshot`

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::Client;

use crate::context::{Context, RestoreRequest};
use crate::error::{CliError, Result};
use crate::output::print;

/// Saves the cluster's state, and makes a new cluster from it.
#[derive(Args, Debug)]
pub struct Snapshot {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Write what a master has applied into a file
    Save {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Check that a file is complete and undamaged
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Make the data directory of a master of a new cluster from a file; once for each master,
    /// with the same list of masters
    Restore(RestoreRequest),
}

impl Snapshot {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let text = match self.action {
            Action::Save { file } => save(&context.client()?, &file).await?,
            Action::Verify { file } => {
                (context.host.verify_snapshot)(file).await.map_err(CliError::local)?
            }
            Action::Restore(request) => {
                (context.host.restore_snapshot)(request).await.map_err(CliError::local)?
            }
        };
        print::line(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Under another name first, so that there is never half a snapshot under this one.
async fn save(client: &Client, file: &Path) -> Result<String> {
    if file.exists() {
        return Err(CliError::local(format!("{} exists already", file.display())));
    }
    let part = file.with_extension("part");
    let failed = |error| CliError::local(format!("cannot write {}: {error}", part.display()));
    let mut chunks = client.snapshot().await?;
    let mut out = File::create(&part).map_err(failed)?;
    let (mut revision, mut bytes) = (0, 0);
    loop {
        let chunk = chunks.message().await.map_err(|status| {
            CliError::local(format!("the snapshot is incomplete: {}", status.message()))
        })?;
        let Some(chunk) = chunk else { break };
        revision = revision.max(chunk.revision);
        bytes += chunk.data.len();
        out.write_all(&chunk.data).map_err(failed)?;
    }
    out.sync_all().map_err(failed)?;
    std::fs::rename(&part, file).map_err(failed)?;
    Ok(format!("saved revision {revision}, {bytes} bytes, in {}", file.display()))
}
