//! What Docker itself says about a cluster's containers, seen through the `docker` command:
//! independent of what Quorate believes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

/// Longest time that one call may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How often containers are listed anew because one of them was removed before it was inspected.
const LOOKS: usize = 5;

/// One container, as `docker inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name, without the leading slash.
    pub name: String,
    /// When it started last, as Docker writes it.
    pub started_at: String,
    /// Is it running?
    pub running: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: State,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    started_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<BTreeMap<String, String>>,
}

/// A Docker daemon: the machine's, or that of a host of its own.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    /// Its address; `None`: the machine's.
    address: Option<String>,
}

impl Daemon {
    /// The one that listens on this socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { address: Some(format!("unix://{}", socket.display())) }
    }

    /// All containers, stopped ones too, that carry every one of the labels (`key` or
    /// `key=value`).
    ///
    /// # Errors
    /// When Docker does not answer.
    pub async fn containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        let mut args = vec!["ps".to_owned(), "-aq".to_owned(), "--no-trunc".to_owned()];
        let filters = labels.iter().flat_map(|label| ["--filter".into(), format!("label={label}")]);
        args.extend(filters);
        let mut looks = 1;
        loop {
            let ids: Vec<String> = self.run(&args).await?.lines().map(str::to_owned).collect();
            match self.inspect(&ids).await {
                Err(error) if looks < LOOKS && is_gone(&error) => looks += 1,
                inspected => return inspected,
            }
        }
    }

    async fn inspect(&self, ids: &[String]) -> Result<Vec<Container>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut args = vec!["inspect".to_owned(), "--type=container".to_owned()];
        args.extend_from_slice(ids);
        let text = self.run(&args).await?;
        let inspected: Vec<Inspected> = serde_json::from_str(&text).context("docker inspect")?;
        let mut containers: Vec<Container> = inspected.into_iter().map(container).collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    /// Kills containers (SIGKILL) and leaves them there, as a power cut of their machine would.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub async fn kill(&self, containers: &[Container]) -> Result<()> {
        let running = containers.iter().filter(|c| c.running).map(|c| c.id.clone());
        let mut args = vec!["kill".to_owned()];
        args.extend(running);
        if args.len() > 1 {
            self.run(&args).await?;
        }
        Ok(())
    }

    /// Runs `docker` and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&self, args: &[String]) -> Result<String> {
        let mut command = Command::new("docker");
        if let Some(address) = &self.address {
            command.args(["--host", address]);
        }
        let child = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(LIMIT, child)
            .await
            .with_context(|| format!("docker {} did not end", args[0]))?
            .context("running docker")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {}: {}", args.join(" "), stderr.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Does Docker say that there is no such container (or object)?
fn is_gone(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    text.contains("no such container") || text.contains("no such object")
}

fn container(inspected: Inspected) -> Container {
    Container {
        id: inspected.id,
        name: inspected.name.trim_start_matches('/').to_owned(),
        started_at: inspected.state.started_at,
        running: inspected.state.running,
        labels: inspected.config.labels.unwrap_or_default(),
    }
}

/// Runs `docker` with the machine's daemon, and returns what it printed.
///
/// # Errors
/// When it fails.
pub async fn docker(args: &[String]) -> Result<String> {
    Daemon::default().run(args).await
}
