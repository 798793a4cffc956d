#![doc = include_str!("../OVERVIEW.md")]

mod agent;
mod assignments;
mod background;
mod connections;
mod dns;
mod error;
mod identity;
mod network;
mod node;
mod pods;
mod proxy;
pub mod runtime;
mod session;
mod streams;
mod tls;
mod usage;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use k8s_openapi::api::core::v1::Taint;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use error::AgentError;
pub use node::parse_taint;
pub use runtime::docker::{Purged, Subnet, purge, subnets};

use agent::{Agent, Machine};
use connections::Connections;
use identity::DataDir;
use runtime::docker::Docker;
use runtime::hollow::Hollow;
use runtime::{Runtime, RuntimeInfo};
use session::{Event, Introduction, Sessions};

/// Where Docker listens unless said otherwise.
pub const DEFAULT_DOCKER: &str = "unix:///var/run/docker.sock";

/// Marks nodes on which nothing really runs.
pub const HOLLOW_LABEL: &str = "quorate.dev/hollow";

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
    options.check()?;
    let (docker, name) = (options.docker.clone(), options.node_name.clone());
    // Bound to no cluster: to describe the node, and to be told at once when there is none.
    let info = Docker::connect(&docker, "", &name).await?.info().await?;
    let data_dir = DataDir::open(&options.data_dir)?;
    let known = data_dir.cluster(&name, options.cluster_id.as_deref())?;
    let introduction = Introduction {
        node_name: name.clone(),
        cluster_id: OnceLock::new(),
        node_json: node_json(&options, &info),
        incarnation: data_dir.incarnation(incarnation())?,
        number: 0,
        process: String::new(),
        without_services: false,
        connections: Arc::new(Connections::new(1, options.tls.clone())),
    };
    let machine = Machine { data_dir: Some(data_dir.path().to_owned()), network: true };
    let connect = async |cluster: String| {
        data_dir.claim(&name, &cluster)?;
        Ok(Arc::new(Docker::connect(&docker, &cluster, &name).await?) as Arc<dyn Runtime>)
    };
    let known = known.or_else(|| options.cluster_id.clone());
    run_node(&options, known, introduction, machine, connect, cancel).await
}

/// Runs `count` hollow nodes until `cancel`: `node_name` of the options is the beginning of
/// their names. They keep nothing; the data directory, if any, only belongs to this process.
///
/// # Errors
/// What keeps them from starting, or that another process took over.
pub async fn run_hollow(
    options: AgentOptions,
    data_dir: Option<PathBuf>,
    count: usize,
    cancel: CancellationToken,
) -> Result<(), AgentError> {
    options.check()?;
    let data_dir = data_dir.map(|path| DataDir::open(&path)).transpose()?;
    if let Some(data_dir) = &data_dir {
        let known = data_dir.cluster(&options.node_name, options.cluster_id.as_deref())?;
        if let Some(cluster) = known.as_ref().or(options.cluster_id.as_ref()) {
            data_dir.claim(&options.node_name, cluster)?;
        }
    }
    let incarnation = incarnation();
    let connections = Arc::new(Connections::new(count, options.tls.clone()));
    let addresses = Arc::default();
    let info = Hollow::new(Arc::clone(&addresses)).info().await?;
    let stop = cancel.child_token();
    let mut nodes = tokio::task::JoinSet::new();
    for number in 0..count {
        let mut options = options.clone();
        options.labels.insert(HOLLOW_LABEL.to_owned(), "true".to_owned());
        let process = format!("{}-{incarnation}", options.node_name);
        options.node_name = format!("{}-{number}", options.node_name);
        let introduction = Introduction {
            node_name: options.node_name.clone(),
            cluster_id: OnceLock::new(),
            node_json: node_json(&options, &info),
            incarnation,
            number,
            process,
            without_services: true,
            connections: Arc::clone(&connections),
        };
        let machine = Machine { data_dir: None, network: false };
        let (runtime, known) = (Hollow::new(Arc::clone(&addresses)), options.cluster_id.clone());
        let connect = async |_| Ok(Arc::new(runtime) as Arc<dyn Runtime>);
        let (options, stop) = (options, stop.clone());
        // Task of one hollow node: when one cannot go on, the process ends.
        nodes.spawn(async move {
            run_node(&options, known, introduction, machine, connect, stop).await
        });
    }
    info!(count, prefix = options.node_name, "hollow nodes run");
    let mut result = Ok(());
    while let Some(ended) = nodes.join_next().await {
        stop.cancel();
        let ended = ended.unwrap_or_else(|e| Err(AgentError::Options(format!("a node: {e}"))));
        if result.is_ok() {
            result = ended;
        }
    }
    result
}

fn node_json(options: &AgentOptions, info: &RuntimeInfo) -> Bytes {
    serde_json::to_vec(&node::object(options, info)).unwrap_or_default().into()
}

/// One node; `connect` is called with the id of the cluster.
async fn run_node(
    options: &AgentOptions,
    known: Option<String>,
    introduction: Introduction,
    machine: Machine,
    connect: impl AsyncFnOnce(String) -> Result<Arc<dyn Runtime>, AgentError>,
    cancel: CancellationToken,
) -> Result<(), AgentError> {
    if let Some(cluster) = &known {
        let _ = introduction.cluster_id.set(cluster.clone());
    }
    let introduction = Arc::new(introduction);
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
    let runtime = connect(cluster.clone()).await?;
    debug!(node = options.node_name, cluster, "the agent runs");
    let stop = cancel.child_token();
    let (agent, proxy) = Agent::start(options, machine, &cluster, runtime, sessions, stop.clone())?;
    let result = Box::pin(agent.run(early, events)).await;
    stop.cancel();
    if let Some(proxy) = proxy {
        let _ = proxy.await;
    }
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

/// Grows with every start as long as the clock does; see [`DataDir::incarnation`].
fn incarnation() -> u64 {
    u64::try_from(quorate_objects::time::timestamp().as_nanosecond()).unwrap_or_default()
}
