//! `quorate agent`: a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Taint;
use quorate_agent::{AgentOptions, DEFAULT_DOCKER, parse_taint};
use quorate_objects::quantity::Quantity;
use quorate_proto::Tls;

use crate::{endpoint, shutdown};

/// Runs a node's agent in the foreground. When it ends, its containers run on.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Name of the node, unique in the cluster
    #[arg(long)]
    name: String,
    /// URLs of the masters; those that they name themselves are added
    #[arg(long, value_delimiter = ',', required = true)]
    masters: Vec<String>,
    /// Where the agent keeps its assignments and the pods' volumes
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Address at which others reach this node
    #[arg(long)]
    address: Option<IpAddr>,
    /// What runs the pods
    #[arg(long, default_value = "docker")]
    runtime: RuntimeName,
    /// Hollow nodes of this process, named NAME-0, NAME-1, …; nothing really runs on them
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000), default_value_t = 1)]
    count: u32,
    /// Identity of the cluster [default: what the data directory or the first master says]
    #[arg(long)]
    cluster_id: Option<String>,
    /// Docker Engine: unix:///PATH or tcp://HOST:PORT
    #[arg(long, env = "DOCKER_HOST", default_value = DEFAULT_DOCKER)]
    docker: String,
    /// Label of the node; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Taint of the node, KEY[=VALUE]:EFFECT; may be given several times
    #[arg(long = "taint", value_name = "TAINT", value_parser = parse_taint)]
    taints: Vec<Taint>,
    /// Processors that pods may request, for instance 2 or 1500m [default: all]
    #[arg(long)]
    cpu: Option<String>,
    /// Memory that pods may request, for instance 4Gi [default: all]
    #[arg(long)]
    memory: Option<String>,
    /// Pods that may run at the same time [default: 110]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pods: Option<i64>,
    /// Address, on loopback usually, that passes connections to a master that lives, for kubectl
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<SocketAddr>,
    /// Folder with ca.crt, and node-NAME.crt and node-NAME.key (or node.crt and node.key). The
    /// certificate's common name is system:node:NAME, its organisation system:nodes
    #[arg(long, required_unless_present = "insecure", conflicts_with = "insecure")]
    tls_dir: Option<PathBuf>,
    /// Speak plain HTTP to masters on loopback addresses
    #[arg(long)]
    insecure: bool,
}

/// What runs the pods of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuntimeName {
    /// Docker Engine
    Docker,
    /// Nothing: pods only pretend to run, for tests of large clusters
    Hollow,
}

/// What a hollow node offers unless told otherwise: like a small server.
const HOLLOW_CPU_MILLIS: i64 = 8_000;
const HOLLOW_MEMORY_BYTES: i64 = 32 << 30;

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The certificate of this very node; where only one node is set up it may be called `node`.
fn load_tls(folder: &Path, name: &str) -> std::io::Result<Tls> {
    let own = format!("node-{name}");
    let file = if folder.join(format!("{own}.crt")).exists() { own.as_str() } else { "node" };
    Tls::load(folder, file)
}

/// Runs until a signal.
///
/// # Errors
/// What keeps the agent from starting or going on, in words for an operator.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let cancel = shutdown::on_signal()?;
    if let Some(data_dir) = &args.data_dir {
        quorate_clock::obey(data_dir);
    }
    let tls = args.tls_dir.as_deref().map(|folder| load_tls(folder, &args.name)).transpose()?;
    if let Some(listen) = args.endpoint {
        let serve = endpoint::prepare(listen, "--endpoint", args.masters.clone(), tls.clone())?;
        // Task "endpoint": it ends with the process, and has nothing that can fail.
        tokio::spawn(serve);
    }
    let quantity = |text: Option<String>| text.map(|text| Quantity::parse(&text)).transpose();
    let cpu_millis = quantity(args.cpu).context("--cpu")?.map(Quantity::millis);
    let memory_bytes = quantity(args.memory).context("--memory")?.map(Quantity::units);
    let hollow = args.runtime == RuntimeName::Hollow;
    let address = args.address.or(hollow.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let address = address.context("--address: say at which address others reach this node")?;
    let data_dir = args.data_dir.clone().unwrap_or_default();
    let options = AgentOptions {
        docker: args.docker,
        labels: BTreeMap::from_iter(args.labels),
        taints: args.taints,
        cpu_millis,
        memory_bytes,
        pods: args.pods,
        cluster_id: args.cluster_id,
        tls,
        ..AgentOptions::new(&args.name, args.masters, data_dir, address)
    };
    if hollow {
        let options = AgentOptions {
            cpu_millis: cpu_millis.or(Some(HOLLOW_CPU_MILLIS)),
            memory_bytes: memory_bytes.or(Some(HOLLOW_MEMORY_BYTES)),
            ..options
        };
        let count = usize::try_from(args.count).context("--count")?;
        return Ok(quorate_agent::run_hollow(options, args.data_dir, count, cancel).await?);
    }
    if args.data_dir.is_none() {
        bail!("--data-dir: say where the agent keeps its assignments and the pods' volumes");
    }
    if args.count != 1 {
        bail!("--count is for --runtime hollow: an agent with Docker is one node");
    }
    Ok(quorate_agent::run(options, cancel).await?)
}
