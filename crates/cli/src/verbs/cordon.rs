//! `quorate cordon` and `quorate uncordon`

use std::process::ExitCode;

use clap::Args;
use quorate_client::{PatchOptions, PatchType};
use serde_json::json;

use crate::context::Context;
use crate::error::Result;
use crate::output::print;
use crate::resource;

/// Keeps new pods away.
#[derive(Args, Debug)]
pub struct Cordon {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Lets new pods on again.
#[derive(Args, Debug)]
pub struct Uncordon {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Cordon {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        set(context, &self.nodes, true).await
    }
}

impl Uncordon {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        set(context, &self.nodes, false).await
    }
}

pub async fn set(context: &Context, nodes: &[String], unschedulable: bool) -> Result<ExitCode> {
    let client = context.client()?;
    let kind = resource::by_name("nodes")?;
    let done = if unschedulable { "cordoned" } else { "uncordoned" };
    for name in nodes {
        let name = name.strip_prefix("node/").unwrap_or(name);
        let node = client.get(kind, "", name).await?;
        let already = node.value["spec"]["unschedulable"].as_bool().unwrap_or(false);
        if already == unschedulable {
            print::line(&format!("node/{name} already {done}"))?;
            continue;
        }
        let patch = json!({"spec": {"unschedulable": unschedulable.then_some(true)}});
        client.patch(kind, "", name, PatchType::Merge, &patch, &PatchOptions::default()).await?;
        print::line(&format!("node/{name} {done}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
