//! `quorate logs`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use quorate_client::Object;
use quorate_client::v1::LogOptions;

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::{duration, pods, resource};

/// Lines of each pod that a selector finds, unless --tail says otherwise.
const TAIL_OF_MANY: i64 = 10;

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
    /// The last so many lines; -1: all [default: -1, with a selector 10]
    #[arg(long, allow_hyphen_values = true)]
    tail: Option<i64>,
    /// Only what is younger than this
    #[arg(long, value_parser = duration::parse, conflicts_with = "since_time")]
    since: Option<Duration>,
    /// Only what was written after this time, as 2026-01-31T12:00:00Z
    #[arg(long)]
    since_time: Option<jiff::Timestamp>,
    /// Stop after so many bytes
    #[arg(long, default_value_t = 0)]
    limit_bytes: u64,
    /// All containers of the pods
    #[arg(long)]
    all_containers: bool,
    /// All pods of a deployment, replica set or service, not only one
    #[arg(long)]
    all_pods: bool,
    /// Each line with pod and container in front
    #[arg(long)]
    prefix: bool,
    /// Go on with the other logs when one cannot be read
    #[arg(long)]
    ignore_errors: bool,
    /// Logs read at the same time with --follow
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// Wait so long for the container to run
    #[arg(long, value_parser = duration::parse, default_value = "20s")]
    pod_running_timeout: Duration,
    #[command(flatten)]
    selectors: Selectors,
}

/// One log.
struct Source {
    namespace: String,
    pod: String,
    container: String,
}

impl Logs {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let mut sources = Vec::new();
        for pod in self.pods(context).await? {
            for container in self.containers(&pod)? {
                let (namespace, pod) = (pod.namespace.clone(), pod.name.clone());
                sources.push(Source { namespace, pod, container });
            }
        }
        if self.follow && sources.len() > self.max_log_requests {
            return Err(CliError::local(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is \
                 {}, use --max-log-requests to increase the limit",
                sources.len(),
                self.max_log_requests
            )));
        }
        // One after the other, unless they are followed: then all at once, line by line.
        let at_once = if self.follow { sources.len().max(1) } else { 1 };
        let copies = sources.iter().map(|source| self.copy(context, source));
        let mut copies = futures::stream::iter(copies).buffered(at_once);
        while let Some(copied) = copies.next().await {
            match copied {
                Err(error) if self.ignore_errors => eprintln!("{error}"),
                other => other?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn pods(&self, context: &Context) -> Result<Vec<Object>> {
        let client = context.client()?;
        let Some(what) = &self.what else {
            let namespace = context.namespace();
            let kind = resource::by_name("pods")?;
            let found = list_all(&client, kind, self.selectors.options(namespace)).await?.1;
            if found.is_empty() {
                eprintln!("No resources found in {namespace} namespace.");
            }
            return Ok(found);
        };
        if self.all_pods {
            return pods::all_of(context, &client, what).await;
        }
        Ok(vec![pods::one(context, &client, what).await?])
    }

    fn containers(&self, pod: &Object) -> Result<Vec<String>> {
        if self.all_containers {
            return Ok(pods::containers(pod));
        }
        let wanted = self.container.as_ref().or(self.container_argument.as_ref());
        pods::container(pod, wanted.map(String::as_str)).map(|name| vec![name])
    }

    async fn copy(&self, context: &Context, source: &Source) -> Result<()> {
        let client = context.client()?;
        let Source { namespace, pod, container } = source;
        let many = self.what.is_none();
        let options = LogOptions {
            container: container.clone(),
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail_lines: self.tail.unwrap_or(if many { TAIL_OF_MANY } else { -1 }),
            since_seconds: self.since.map_or(0, |since| since.as_secs().max(1)),
            limit_bytes: self.limit_bytes,
            since_time: self.since_time.map(|time| time.to_string()).unwrap_or_default(),
            stream: String::new(),
        };
        if self.follow {
            pods::wait_begun(&client, namespace, pod, container, self.pod_running_timeout).await?;
        }
        let mut stream = client.logs(namespace, pod, options).await?;
        if !self.prefix {
            while let Some(chunk) = stream.next().await? {
                print::bytes(&chunk)?;
            }
            return Ok(());
        }
        let prefix = format!("[pod/{pod}/{container}] ");
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
