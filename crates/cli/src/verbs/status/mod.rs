//! `quorate status`: one screen that says how the cluster is. Asks every master directly, in
//! parallel and briefly, so that it works when the leader or the majority is dead.

mod report;
mod screen;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_client::{Client, ClientOptions, ClusterFile, Object};
use tokio::time::timeout;

use crate::context::Context;
use crate::error::Result;
use crate::local::process;
use crate::output::print;
use crate::resource;
use report::{Asked, Report};

/// How long a master may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how the cluster is. Ends with 1 when it has no majority.
#[derive(Args, Debug)]
pub struct Status {
    /// Format
    #[arg(long, short)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

impl Status {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let file = context.cluster()?;
        let report = gather(&file).await?;
        let value = || serde_json::to_value(&report);
        match self.output {
            Some(Format::Json) => print::text(&print::to_json(&value()?)?)?,
            Some(Format::Yaml) => print::text(&print::to_yaml(&value()?)?)?,
            None => print::text(&screen::render(&report))?,
        }
        Ok(if report.quorum { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Prints the screen to standard error, beside an error of another verb.
pub async fn show(file: &ClusterFile) -> Result<()> {
    eprint!("{}", screen::render(&gather(file).await?));
    Ok(())
}

async fn gather(file: &ClusterFile) -> Result<Report> {
    let options =
        ClientOptions { timeout: PATIENCE, attempt_timeout: PATIENCE, ..ClientOptions::default() };
    let client = Client::from_cluster_file(file, options)?;
    // Twice the patience: a limit on everything, whatever a connection does.
    let masters = timeout(2 * PATIENCE, client.statuses()).await.unwrap_or_default();
    let mut asked = Vec::new();
    for (i, entry) in file.masters.iter().enumerate() {
        let answer = match masters.get(i) {
            Some((_, Ok(status))) => Ok(status.clone()),
            Some((_, Err(error))) => Err(error.message.clone()),
            None => Err("no answer in time".into()),
        };
        let pid = process::find(entry.pid.unwrap_or_default(), &entry.data_dir);
        asked.push(Asked { entry: entry.clone(), pid, answer });
    }
    // Any master that answers has nodes and pods in its caches; old is better than nothing.
    let answering = asked.iter().find(|master| master.answer.is_ok());
    let mut nodes = Vec::new();
    let mut pods = Vec::new();
    if let Some(master) = answering {
        let options = ClientOptions {
            timeout: PATIENCE,
            attempt_timeout: PATIENCE,
            tls: file.tls().ok().flatten(),
        };
        let one = Client::new(vec![master.entry.url.clone()], options)?;
        let (n, p) = futures::future::join(list(&one, "nodes"), list(&one, "pods")).await;
        nodes = n;
        pods = p;
    }
    let agents = file.nodes.iter().map(|node| {
        let pid = process::find(node.pid.unwrap_or_default(), &node.data_dir);
        (node.clone(), pid)
    });
    let agents = agents.collect::<Vec<_>>();
    Ok(report::build(&file.folder, asked, &agents, &nodes, &pods))
}

/// What the master has; nothing when it does not say in time.
async fn list(client: &Client, resource: &str) -> Vec<Object> {
    let Ok(kind) = resource::by_name(resource) else { return Vec::new() };
    let options = quorate_client::ListOptions { stale: true, ..Default::default() };
    match timeout(2 * PATIENCE, client.list(kind, &options)).await {
        Ok(Ok(list)) => list.items,
        _ => Vec::new(),
    }
}
