//! `cluster.json`: what a local cluster consists of, for scripts and for ourselves.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};

/// Name of the file in the cluster's folder.
pub const FILE: &str = "cluster.json";

/// A local cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Identity of the cluster; data of another one is refused by the daemons.
    #[serde(default)]
    pub cluster_id: String,
    /// Masters listen on this port + 1, 2, …; their peers on + 101, 102, …
    #[serde(default)]
    pub port_base: u16,
    /// Plain HTTP?
    #[serde(default)]
    pub insecure: bool,
    /// Address of the Docker daemon; empty: the default.
    #[serde(default)]
    pub docker: String,
    /// Addresses of pods.
    #[serde(default)]
    pub pod_cidr: String,
    /// Addresses of services.
    #[serde(default)]
    pub service_cidr: String,
    /// Pods that may be moving at the same time to even out nodes; 0: none is ever moved.
    #[serde(default)]
    pub rebalance_max_moves: u16,
    /// The masters.
    pub masters: Vec<MasterSpec>,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// For clients that know one server only; clusters of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointSpec>,
}

/// The process that passes connections to a master that lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Process id; 0 before the first start.
    pub pid: u32,
    /// For clients.
    pub url: String,
    /// Only its name counts: it tells the process from others.
    pub data_dir: PathBuf,
}

/// One master process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterSpec {
    /// `m1`, …
    pub name: String,
    /// Process id; 0 before the first start.
    pub pid: u32,
    /// For clients.
    pub url: String,
    /// For the other masters.
    pub peer_url: String,
    /// Where it listens for clients, when others reach it by way of a proxy at `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The same for `peer_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<SocketAddr>,
    /// Its log and state.
    pub data_dir: PathBuf,
}

/// One agent process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// `n1`, …
    pub name: String,
    /// Process id; 0 before the first start.
    pub pid: u32,
    /// Its assignments and volumes.
    pub data_dir: PathBuf,
    /// Where node ports listen.
    #[serde(default)]
    pub address: String,
    /// 0: one node, with Docker. Else a process of so many hollow nodes, `NAME-0`, `NAME-1`, …
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hollow: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl ClusterSpec {
    /// Reads the file of a cluster's folder.
    ///
    /// # Errors
    /// When it is missing or not a cluster file.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|e| CliError::local(format!("cannot read {}: {e}", path.display())))?;
        serde_json::from_str(&text)
            .map_err(|e| CliError::local(format!("{} is not a cluster file: {e}", path.display())))
    }

    /// Replaces the file atomically: readers see the old or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_atomically(&dir.join(FILE), text.as_bytes(), 0o644)
    }
}

/// Writes beside the file, syncs, renames.
///
/// # Errors
/// When a step fails; the message names the file.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| CliError::local(format!("cannot write {}: {e}", path.display())))
}

/// Where things are remembered between commands.
#[must_use]
pub fn state_home() -> PathBuf {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("quorate")
}
