//! `quorate agent`: a node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::api::core::v1::Taint;
use quorate_agent::{AgentOptions, DEFAULT_DOCKER, parse_taint};
use quorate_objects::quantity::Quantity;
use quorate_proto::Tls;

use crate::shutdown;

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
    data_dir: PathBuf,
    /// Address at which others reach this node
    #[arg(long)]
    address: IpAddr,
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
    /// Folder with ca.crt, node.crt and node.key
    #[arg(long, required_unless_present = "insecure", conflicts_with = "insecure")]
    tls_dir: Option<PathBuf>,
    /// Speak plain HTTP to masters on loopback addresses
    #[arg(long)]
    insecure: bool,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs until a signal.
///
/// # Errors
/// What keeps the agent from starting or going on, in words for an operator.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let cancel = shutdown::on_signal()?;
    let tls = args.tls_dir.as_deref().map(|folder| Tls::load(folder, "node")).transpose()?;
    let quantity = |text: Option<String>| text.map(|text| Quantity::parse(&text)).transpose();
    let options = AgentOptions {
        docker: args.docker,
        labels: BTreeMap::from_iter(args.labels),
        taints: args.taints,
        cpu_millis: quantity(args.cpu).context("--cpu")?.map(Quantity::millis),
        memory_bytes: quantity(args.memory).context("--memory")?.map(Quantity::units),
        cluster_id: args.cluster_id,
        tls,
        ..AgentOptions::new(&args.name, args.masters, args.data_dir, args.address)
    };
    Ok(quorate_agent::run(options, cancel).await?)
}
