//! `quorate apply -f FILE`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use quorate_client::{Client, PatchOptions, PatchType};

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::manifests::Item;
use crate::verbs::create::{Write, report};
use crate::{json, manifests, merge};

/// How often a change of others between reading and writing is tolerated.
const ATTEMPTS: usize = 5;

/// Creates objects, or brings them to what the files say.
#[derive(Args, Debug)]
pub struct Apply {
    /// Files or folders with manifests, or - for standard input
    #[arg(long, short, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Look into folders inside folders too
    #[arg(long, short = 'R')]
    recursive: bool,
    #[command(flatten)]
    write: Write,
}

impl Apply {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let namespace = context.globals.namespace.as_deref();
        let found = manifests::read(&self.filename, self.recursive, namespace)?;
        let client = context.client()?;
        let mut failed = !found.problems.is_empty();
        for problem in &found.problems {
            eprintln!("{problem}");
        }
        for item in &found.items {
            if let Err(error) = apply(&client, item, &self.write).await {
                failed = true;
                report(&item.origin, error)?;
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

async fn apply(client: &Client, item: &Item, write: &Write) -> Result<()> {
    let (kind, value) = (item.kind, &item.value);
    let (namespace, name) = (json::namespace(value), json::name(value));
    if name.is_empty() {
        return Err(CliError::local("metadata.name: Required value: apply needs a name"));
    }
    for _ in 0..ATTEMPTS {
        let current = match client.get(kind, namespace, name).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => {
                match write.create(client, merge::annotated(value)).await {
                    // Somebody was faster: then it is there to be patched.
                    Err(error) if error.is("AlreadyExists") => continue,
                    result => return result,
                }
            }
            Err(error) => return Err(error.into()),
        };
        let Some(patch) = merge::three_way(&current.value, value) else {
            return write.say(&current.value, "unchanged");
        };
        if write.client_only() {
            let mut value = current.value;
            merge::apply(&mut value, &patch);
            return write.say(&value, "configured");
        }
        // The lists in the patch were made from what was read, so it must still be that.
        let options = PatchOptions {
            dry_run: write.dry_run == "server",
            revision: current.revision,
            ..PatchOptions::default()
        };
        match client.patch(kind, namespace, name, PatchType::Merge, &patch, &options).await {
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
            Ok(object) if object.revision == current.revision && !options.dry_run => {
                return write.say(&object.value, "unchanged");
            }
            Ok(object) => return write.say(&object.value, "configured"),
        }
    }
    Err(CliError::local(format!(
        "{} {name:?} changes too quickly: tried {ATTEMPTS} times",
        kind.resource()
    )))
}
