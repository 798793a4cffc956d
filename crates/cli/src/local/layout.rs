//! Where a local cluster's parts live: names, ports, addresses, folders. Derived from the port
//! base, so that clusters with different bases do not collide; the range for pods, too, unless a
//! network of Docker's is in it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use quorate_objects::net::Ipv4Net;

use crate::error::{CliError, Result};
use crate::local::file::{ClusterSpec, EndpointSpec, MasterSpec, NodeSpec};

/// A daemon has its data directory for itself; log and process id lie beside it.
const DATA: &str = "data";
/// Beginning of the names of hollow nodes.
const HOLLOW: &str = "hollow";

/// How many ranges for pods there are to choose from, in 10.128.0.0/10.
const POD_RANGES: u16 = 64;

/// What `up` was asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Number of masters.
    pub masters: u16,
    /// Number of nodes.
    pub nodes: u16,
    /// Number of hollow nodes.
    pub hollow: u32,
    /// See [`ClusterSpec::port_base`].
    pub port_base: u16,
    /// Others reach the masters at this + 1, 2, … and + 101, 102, …, where a proxy stands.
    pub advertise_base: Option<u16>,
    /// Plain HTTP?
    pub insecure: bool,
    /// Address of the Docker daemon.
    pub docker: String,
    /// Instead of the derived one.
    pub pod_cidr: Option<String>,
    /// Instead of the derived one.
    pub service_cidr: Option<String>,
    /// See [`ClusterSpec::rebalance_max_moves`].
    pub rebalance_max_moves: u16,
}

/// Plans a new cluster.
#[must_use]
pub fn plan(dir: &Path, wanted: &Wanted) -> ClusterSpec {
    let base = wanted.port_base;
    let public = wanted.advertise_base.unwrap_or(base);
    let listen = |port| wanted.advertise_base.map(|_| SocketAddr::from(([127, 0, 0, 1], port)));
    let scheme = if wanted.insecure { "http" } else { "https" };
    let master = |i: u16| MasterSpec {
        name: format!("m{i}"),
        pid: 0,
        url: format!("{scheme}://127.0.0.1:{}", public + i),
        peer_url: format!("{scheme}://127.0.0.1:{}", public + 100 + i),
        listen: listen(base + i),
        peer_listen: listen(base + 100 + i),
        data_dir: dir.join(format!("m{i}")).join(DATA),
    };
    let node = |i: u16| NodeSpec {
        name: format!("n{i}"),
        pid: 0,
        data_dir: dir.join(format!("n{i}")).join(DATA),
        address: format!("127.{}.0.{i}", 1 + (base / 200) % 120),
        hollow: 0,
    };
    let hollow = (wanted.hollow > 0).then(|| NodeSpec {
        name: HOLLOW.to_owned(),
        pid: 0,
        data_dir: dir.join(HOLLOW).join(DATA),
        address: "127.0.0.1".to_owned(),
        hollow: wanted.hollow,
    });
    let pods = || pod_range(base, 0).to_string();
    let services = || format!("10.{}.0.0/16", 192 + (base / 200) % 48);
    ClusterSpec {
        cluster_id: uuid::Uuid::new_v4().to_string(),
        port_base: base,
        insecure: wanted.insecure,
        docker: wanted.docker.clone(),
        pod_cidr: wanted.pod_cidr.clone().unwrap_or_else(pods),
        service_cidr: wanted.service_cidr.clone().unwrap_or_else(services),
        rebalance_max_moves: wanted.rebalance_max_moves,
        masters: (1..=wanted.masters).map(master).collect(),
        nodes: (1..=wanted.nodes).map(node).chain(hollow).collect(),
        endpoint: Some(EndpointSpec {
            pid: 0,
            url: format!("{scheme}://127.0.0.1:{base}"),
            data_dir: dir.join("endpoint").join(DATA),
        }),
    }
}

/// The `turn`-th choice of a range for pods: clusters with other ports begin with another one.
fn pod_range(base: u16, turn: u16) -> Ipv4Net {
    let turn = (base / 200 + turn) % POD_RANGES;
    Ipv4Net::new(Ipv4Addr::from_bits((10 << 24) + ((128 + u32::from(turn)) << 16)), 16)
}

/// The first choice that shares no address with what is `taken`, by name.
///
/// # Errors
/// When none is left; the message names the flag.
pub fn free_pod_range(base: u16, taken: &[(String, Ipv4Net)]) -> Result<String> {
    let free = |range: &Ipv4Net| taken.iter().all(|(_, other)| !range.overlaps(other));
    let range = (0..POD_RANGES).map(|turn| pod_range(base, turn)).find(free);
    range.map(|range| range.to_string()).ok_or_else(|| {
        CliError::local(
            "10.128.0.0/10 has no room for pods, Docker's networks are in all of it: choose \
             another range with --pod-cidr",
        )
    })
}

/// The address part of a URL of ours.
///
/// # Errors
/// When it is not `http(s)://IP:PORT`.
pub fn socket(url: &str) -> Result<SocketAddr> {
    url.split_once("://")
        .and_then(|(_, address)| address.trim_end_matches('/').parse().ok())
        .ok_or_else(|| CliError::local(format!("{url:?} is not http(s)://IP:PORT")))
}

/// Where a master listens for clients.
fn listen(master: &MasterSpec) -> Result<SocketAddr> {
    master.listen.map_or_else(|| socket(&master.url), Ok)
}

/// Where it listens for the other masters.
fn peer_listen(master: &MasterSpec) -> Result<SocketAddr> {
    master.peer_listen.map_or_else(|| socket(&master.peer_url), Ok)
}

/// Can the ports of a master be listened on?
///
/// # Errors
/// Names the first port that is taken, and says what to do.
pub fn check_ports(master: &MasterSpec) -> Result<()> {
    check_free(&master.name, &[listen(master)?, peer_listen(master)?])
}

/// Can the endpoint's port be listened on?
///
/// # Errors
/// As [`check_ports`].
pub fn check_endpoint(endpoint: &EndpointSpec) -> Result<()> {
    check_free("the endpoint", &[socket(&endpoint.url)?])
}

fn check_free(name: &str, addresses: &[SocketAddr]) -> Result<()> {
    for address in addresses {
        if let Err(e) = TcpListener::bind(*address) {
            let message = match e.kind() {
                std::io::ErrorKind::AddrInUse => format!(
                    "port {} is taken by another process ({name} needs it): \
                     choose other ports with --port-base",
                    address.port(),
                ),
                _ => format!("cannot listen on {address} for {name}: {e}"),
            };
            return Err(CliError::local(message));
        }
    }
    Ok(())
}

/// Command line of a master.
///
/// # Errors
/// When a URL of the file is wrong.
pub fn master_args(dir: &Path, spec: &ClusterSpec, master: &MasterSpec) -> Result<Vec<String>> {
    let initial: Vec<String> =
        spec.masters.iter().map(|m| format!("{}={},{}", m.name, m.url, m.peer_url)).collect();
    let mut args: Vec<String> = vec!["master".into()];
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("name", master.name.clone());
    flag("data-dir", master.data_dir.display().to_string());
    flag("listen", listen(master)?.to_string());
    flag("peer-listen", peer_listen(master)?.to_string());
    flag("cluster-id", spec.cluster_id.clone());
    flag("initial-masters", initial.join(";"));
    flag("pod-cidr", spec.pod_cidr.clone());
    flag("service-cidr", spec.service_cidr.clone());
    if spec.rebalance_max_moves > 0 {
        flag("rebalance-max-moves", spec.rebalance_max_moves.to_string());
    }
    args.extend(security(dir, spec));
    Ok(args)
}

/// Command line of an agent.
#[must_use]
pub fn agent_args(dir: &Path, spec: &ClusterSpec, node: &NodeSpec) -> Vec<String> {
    let urls: Vec<&str> = spec.masters.iter().map(|m| m.url.as_str()).collect();
    let mut args: Vec<String> = vec!["agent".into()];
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("name", node.name.clone());
    flag("masters", urls.join(","));
    flag("data-dir", node.data_dir.display().to_string());
    flag("address", node.address.clone());
    flag("cluster-id", spec.cluster_id.clone());
    if node.hollow == 0 {
        flag("docker", spec.docker.clone());
    } else {
        flag("runtime", "hollow".to_owned());
        flag("count", node.hollow.to_string());
    }
    args.extend(security(dir, spec));
    args
}

/// Command line of the endpoint.
///
/// # Errors
/// When its URL is wrong.
pub fn endpoint_args(
    dir: &Path,
    spec: &ClusterSpec,
    endpoint: &EndpointSpec,
) -> Result<Vec<String>> {
    let urls: Vec<&str> = spec.masters.iter().map(|m| m.url.as_str()).collect();
    let mut args: Vec<String> = vec!["endpoint".into()];
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("listen", socket(&endpoint.url)?.to_string());
    flag("masters", urls.join(","));
    flag("data-dir", endpoint.data_dir.display().to_string());
    args.extend(security(dir, spec));
    Ok(args)
}

fn security(dir: &Path, spec: &ClusterSpec) -> Vec<String> {
    if spec.insecure {
        vec!["--insecure".into()]
    } else {
        vec!["--tls-dir".into(), dir.join("pki").display().to_string()]
    }
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod tests;
