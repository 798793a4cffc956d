//! `quorate scale`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, PatchOptions, PatchType};
use serde_json::json;

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::resource::{self, reference};
use crate::{duration, json};

const POLL: Duration = Duration::from_millis(200);

/// Changes the number of replicas.
#[derive(Args, Debug)]
pub struct Scale {
    /// deploy/web · rs NAME …
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME…]")]
    what: Vec<String>,
    /// How many
    #[arg(long)]
    replicas: u32,
    /// Only when there are so many now
    #[arg(long)]
    current_replicas: Option<u32>,
    /// Wait until it is done, this long at most; 0: do not wait
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of the kinds
    #[arg(long)]
    all: bool,
}

impl Scale {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let client = context.client()?;
        for target in resource::parse(&self.what)? {
            let kind = target.kind;
            if !["Deployment", "ReplicaSet", "StatefulSet"].contains(&kind.kind) {
                return Err(CliError::local(format!("cannot scale a {}", kind.singular)));
            }
            let namespace = context.namespace_for(kind);
            let names = match target.name {
                Some(name) => vec![name.to_owned()],
                None if self.all || self.selectors.any() => {
                    let options = self.selectors.options(namespace);
                    list_all(&client, kind, options).await?.1.into_iter().map(|o| o.name).collect()
                }
                None => return Err(CliError::local("give names, a selector (-l) or --all")),
            };
            for name in names {
                self.scale(&client, kind, namespace, &name).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn scale(
        &self,
        client: &Client,
        kind: &'static quorate_objects::Kind,
        namespace: &str,
        name: &str,
    ) -> Result<()> {
        let mut options = PatchOptions::default();
        if let Some(expected) = self.current_replicas {
            let current = client.get(kind, namespace, name).await?;
            let actual = json::int(&current.value, "/spec/replicas");
            if actual != i64::from(expected) {
                return Err(CliError::local(format!(
                    "Expected replicas to be {expected}, was {actual}"
                )));
            }
            options.revision = current.revision;
        }
        let patch = json!({"spec": {"replicas": self.replicas}});
        client.patch(kind, namespace, name, PatchType::Merge, &patch, &options).await?;
        print::line(&format!("{} scaled", reference(kind, name)))?;
        if self.timeout.is_zero() {
            return Ok(());
        }
        let done = async {
            loop {
                let now = client.get(kind, namespace, name).await?.value;
                let ready = json::int(&now, "/status/readyReplicas");
                let all = json::int(&now, "/status/replicas");
                if ready == i64::from(self.replicas) && all == ready {
                    return Ok::<_, CliError>(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(self.timeout, done)
            .await
            .map_err(|_| CliError::local(format!("timed out waiting for {name:?} to be scaled")))?
    }
}
