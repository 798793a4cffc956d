//! `quorate logs`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use quorate_client::v1::LogOptions;
use quorate_client::{Client, Object};
use quorate_objects::Kind;

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::{duration, json, resource};

/// Prints a container's log.
#[derive(Args, Debug)]
pub struct Logs {
    /// POD · pod/NAME · deploy/NAME; nothing with -l
    #[arg(value_name = "POD|TYPE/NAME", required_unless_present = "selector")]
    what: Option<String>,
    /// Name of the container
    container_argument: Option<String>,
    /// Name of the container
    #[arg(long, short, conflicts_with = "container_argument")]
    container: Option<String>,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Of the container before its last restart
    #[arg(long, short)]
    previous: bool,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
    /// The last so many lines; -1: all
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    tail: i64,
    /// Only what is younger than this
    #[arg(long, value_parser = duration::parse)]
    since: Option<Duration>,
    /// Stop after so many bytes
    #[arg(long, default_value_t = 0)]
    limit_bytes: u64,
    /// All containers of the pods
    #[arg(long)]
    all_containers: bool,
    /// Each line with pod and container in front
    #[arg(long)]
    prefix: bool,
    #[command(flatten)]
    selectors: Selectors,
}

impl Logs {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let client = context.client()?;
        let pods = self.pods(context, &client).await?;
        let mut sources = Vec::new();
        for pod in &pods {
            for container in self.containers(pod)? {
                sources.push((pod, container));
            }
        }
        // One after the other, unless they are followed: then all at once, line by line.
        if !self.follow || sources.len() == 1 {
            for (pod, container) in &sources {
                self.copy(&client, pod, container).await?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let copies = sources.iter().map(|(pod, container)| self.copy(&client, pod, container));
        for result in join_all(copies).await {
            result?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn pods(&self, context: &Context, client: &Client) -> Result<Vec<Object>> {
        let pods = resource::by_name("pods")?;
        let namespace = context.namespace();
        let Some(what) = &self.what else {
            let found = list_all(client, pods, self.selectors.options(namespace)).await?.1;
            if found.is_empty() {
                eprintln!("No resources found in {namespace} namespace.");
            }
            return Ok(found);
        };
        let (kind, name) = match what.split_once('/') {
            Some((kind, name)) => (resource::by_name(kind)?, name),
            None => (pods, what.as_str()),
        };
        let object = client.get(kind, namespace, name).await?;
        if kind == pods {
            return Ok(vec![object]);
        }
        self.one_of(client, kind, &object).await.map(|pod| vec![pod])
    }

    /// A pod of a deployment, replica set or service: the one that is most likely to say much.
    async fn one_of(&self, client: &Client, kind: &Kind, owner: &Object) -> Result<Object> {
        let pointer =
            if kind.kind == "Service" { "/spec/selector" } else { "/spec/selector/matchLabels" };
        let labels = json::pairs(&owner.value, pointer, "=").join(",");
        if labels.is_empty() {
            return Err(CliError::local(format!("cannot find pods of a {}", kind.singular)));
        }
        let selectors = Selectors { selector: Some(labels), field_selector: None };
        let pods = resource::by_name("pods")?;
        let mut found = list_all(client, pods, selectors.options(&owner.namespace)).await?.1;
        found.sort_by_key(|pod| {
            let running = json::text(&pod.value, "/status/phase") == "Running";
            (!running, !json::condition(&pod.value, "Ready"))
        });
        let total = found.len();
        let pod = found.into_iter().next().ok_or_else(|| {
            CliError::local(format!("no pods of {} yet", resource::reference(kind, &owner.name)))
        })?;
        if total > 1 {
            eprintln!("Found {total} pods, using pod/{}", pod.name);
        }
        Ok(pod)
    }

    fn containers(&self, pod: &Object) -> Result<Vec<String>> {
        let all: Vec<String> = ["/spec/initContainers", "/spec/containers"]
            .iter()
            .flat_map(|pointer| json::list(&pod.value, pointer))
            .map(|container| json::text(container, "/name").to_owned())
            .collect();
        if self.all_containers {
            return Ok(all);
        }
        if let Some(name) = self.container.as_ref().or(self.container_argument.as_ref()) {
            if all.contains(name) {
                return Ok(vec![name.clone()]);
            }
            return Err(CliError::local(format!(
                "container {name} is not valid for pod {}: it has {}",
                pod.name,
                all.join(", ")
            )));
        }
        let first = json::list(&pod.value, "/spec/containers");
        let name = first.first().map(|c| json::text(c, "/name").to_owned()).unwrap_or_default();
        if first.len() > 1 {
            eprintln!("Defaulted container {name:?} out of: {}", all.join(", "));
        }
        Ok(vec![name])
    }

    async fn copy(&self, client: &Client, pod: &Object, container: &str) -> Result<()> {
        let options = LogOptions {
            container: container.to_owned(),
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail_lines: self.tail,
            since_seconds: self.since.map_or(0, |since| since.as_secs().max(1)),
            limit_bytes: self.limit_bytes,
        };
        let mut stream = client.logs(&pod.namespace, &pod.name, options).await?;
        if !self.prefix {
            while let Some(chunk) = stream.next().await? {
                print::bytes(&chunk)?;
            }
            return Ok(());
        }
        let prefix = format!("[pod/{}/{container}] ", pod.name);
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.next().await? {
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                print::bytes(&[prefix.as_bytes(), &line].concat())?;
            }
        }
        if !rest.is_empty() {
            print::bytes(&[prefix.as_bytes(), &rest, b"\n"].concat())?;
        }
        Ok(())
    }
}
