#![doc = include_str!("../OVERVIEW.md")]

mod agent;
mod assignments;
mod background;
mod error;
mod identity;
mod logs;
mod network;
mod node;
mod pods;
mod proxy;
pub mod runtime;
mod session;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Taint;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use error::AgentError;
pub use node::parse_taint;
pub use runtime::docker::{Purged, purge};

use agent::Agent;
use identity::DataDir;
use runtime::Runtime;
use runtime::docker::Docker;
use session::{Event, Introduction, Sessions};

/// Where Docker listens unless said otherwise.
pub const DEFAULT_DOCKER: &str = "unix:///var/run/docker.sock";

/// How an agent runs.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Name of the node, unique in the cluster.
    pub node_name: String,
    /// URLs of masters; those that a master names in its welcome are added.
    pub masters: Vec<String>,
    /// Identity, assignments, volumes.
    pub data_dir: PathBuf,
    /// "unix:///path" or "tcp://host:port".
    pub docker: String,
    /// Address at which others reach the node: host ports and node ports listen there.
    pub node_address: IpAddr,
    /// Labels of the node, beside those that the agent knows itself.
    pub labels: BTreeMap<String, String>,
    /// Taints of the node.
    pub taints: Vec<Taint>,
    /// Thousandths of a core; none: what the machine has.
    pub cpu_millis: Option<i64>,
    /// Bytes; none: what the machine has.
    pub memory_bytes: Option<i64>,
    /// Pods at the same time; none: 110.
    pub pods: Option<i64>,
    /// Id of the cluster; none: what the data directory or the first master says.
    pub cluster_id: Option<String>,
    /// Certificates; none: plain http, to masters on loopback only.
    pub tls: Option<quorate_proto::Tls>,
}

impl AgentOptions {
    /// Options with every default.
    #[must_use]
    pub fn new(node_name: &str, masters: Vec<String>, data_dir: PathBuf, address: IpAddr) -> Self {
        Self {
            node_name: node_name.to_owned(),
            masters,
            data_dir,
            docker: DEFAULT_DOCKER.to_owned(),
            node_address: address,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cpu_millis: None,
            memory_bytes: None,
            pods: None,
            cluster_id: None,
            tls: None,
        }
    }

    fn check(&self) -> Result<(), AgentError> {
        if self.node_name.is_empty() {
            return Err(AgentError::Options("the node needs a name".into()));
        }
        if self.masters.is_empty() {
            return Err(AgentError::Options("name at least one master's URL".into()));
        }
        let loopback = |url: &String| {
            let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start))
        };
        match self.masters.iter().find(|url| self.tls.is_none() && !loopback(url)) {
            Some(url) => Err(AgentError::Options(format!(
                "{url} is not on this machine: without certificates (--tls-dir) only masters on \
                 loopback are spoken to"
            ))),
            None => Ok(()),
        }
    }
}

/// Runs a node until `cancel`. Its containers go on running afterwards.
///
/// # Errors
/// What keeps the agent from starting, or that another agent of the node took over.
pub async fn run(options: AgentOptions, cancel: CancellationToken) -> Result<(), AgentError> {
    let docker = options.docker.clone();
    let node = options.node_name.clone();
    // Told at once, not only when the first pod comes.
    Docker::connect(&docker, "", &node).await?;
    run_with(options, cancel, async move |cluster: String| {
        let runtime = Docker::connect(&docker, &cluster, &node).await?;
        Ok(Arc::new(runtime) as Arc<dyn Runtime>)
    })
    .await
}

/// The same with any runtime; `connect` is called with the id of the cluster.
///
/// # Errors
/// As `run`.
pub async fn run_with(
    options: AgentOptions,
    cancel: CancellationToken,
    connect: impl AsyncFnOnce(String) -> Result<Arc<dyn Runtime>, runtime::RuntimeError>,
) -> Result<(), AgentError> {
    options.check()?;
    let data_dir = DataDir::open(&options.data_dir)?;
    let known = data_dir.cluster(&options.node_name, options.cluster_id.as_deref())?;
    let known = known.or_else(|| options.cluster_id.clone());
    // Only to describe the node; bound to no cluster.
    let described = match &known {
        Some(cluster) => Some(connect(cluster.clone()).await?),
        None => None,
    };
    let info = match &described {
        Some(runtime) => runtime.info().await?,
        None => Docker::connect(&options.docker, "", &options.node_name).await?.info().await?,
    };
    let node = node::object(&options, &info);
    let introduction = Arc::new(Introduction {
        node_name: options.node_name.clone(),
        cluster_id: OnceLock::new(),
        node_json: serde_json::to_vec(&node).unwrap_or_default().into(),
        incarnation: incarnation(),
        tls: options.tls.clone(),
    });
    if let Some(cluster) = &known {
        let _ = introduction.cluster_id.set(cluster.clone());
    }
    let (sender, mut events) = mpsc::channel(256);
    let mut sessions = Sessions::new(introduction.clone(), sender, cancel.clone());
    for url in &options.masters {
        sessions.add(url);
    }
    let mut early = Vec::new();
    let cluster = match known {
        Some(cluster) => cluster,
        None => match learn_cluster(&mut events, &mut early, &cancel).await? {
            Some(cluster) => cluster,
            None => return Ok(()),
        },
    };
    let _ = introduction.cluster_id.set(cluster.clone());
    data_dir.claim(&options.node_name, &cluster)?;
    let runtime = match described {
        Some(runtime) => runtime,
        None => Arc::new(Docker::connect(&options.docker, &cluster, &options.node_name).await?),
    };
    info!(node = options.node_name, cluster, "the agent runs");
    let stop = cancel.child_token();
    let path = data_dir.path().to_owned();
    let (agent, proxy) = Agent::start(&options, path, &cluster, runtime, sessions, stop.clone())?;
    let result = agent.run(early, events).await;
    stop.cancel();
    let _ = proxy.await;
    result
}

/// Waits for the first master to say which cluster this is.
async fn learn_cluster(
    events: &mut mpsc::Receiver<Event>,
    early: &mut Vec<Event>,
    cancel: &CancellationToken,
) -> Result<Option<String>, AgentError> {
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return Ok(None),
            event = events.recv() => event,
        };
        let Some(event) = event else { return Ok(None) };
        let found = match &event {
            Event::Up { welcome, .. } => Some(welcome.cluster_id.clone()),
            _ => None,
        };
        early.push(event);
        if found.as_ref().is_some_and(|cluster| !cluster.is_empty()) {
            return Ok(found);
        }
    }
}

/// Grows with every start, as long as the clock does.
fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
