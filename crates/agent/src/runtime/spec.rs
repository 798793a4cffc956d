//! What sandboxes, volumes and containers are made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{PodRef, Role};

/// One way in from outside: a container port with a host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address to listen on.
    pub host_ip: String,
    /// Port to listen on.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// "tcp", "udp" or "sctp".
    pub protocol: String,
}

/// What a sandbox is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxSpec {
    /// Whose.
    pub pod: PodRef,
    /// 0, 1, …
    pub attempt: u32,
    /// Host name in the pod.
    pub hostname: String,
    /// Share the node's network instead of an own address.
    pub host_network: bool,
    /// Ways in from outside.
    pub ports: Vec<HostPort>,
    /// "name:address" lines for /etc/hosts.
    pub extra_hosts: Vec<String>,
    /// Name servers, search domains and options; empty: the node's.
    pub dns: Dns,
    /// Kernel parameters of the pod's network.
    pub sysctls: BTreeMap<String, String>,
    /// Of the pod.
    pub annotations: BTreeMap<String, String>,
}

/// A pod's resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A volume of the engine, to be made when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name.
    pub name: String,
    /// The claim that has it, as `namespace/name`.
    pub claim: String,
}

/// Where a volume is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or directory.
    Path(PathBuf),
    /// A volume of the engine. The engine is to know who uses it, so it is mounted by its name.
    Volume {
        /// Its name.
        name: String,
        /// The directory with its content.
        folder: PathBuf,
    },
}

impl Place {
    /// The file or directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Volume { folder: path, .. } => path,
        }
    }
}

/// Something of the node that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the node.
    pub source: Place,
    /// In the container.
    pub target: String,
    /// Not to be written.
    pub read_only: bool,
}

/// What a container is made from. Everything is resolved: no reference is left.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// Whose.
    pub pod: PodRef,
    /// Its part.
    pub role: Role,
    /// An init container that goes on running beside the others.
    pub sidecar: bool,
    /// Its name.
    pub name: String,
    /// See `Record::attempt`.
    pub attempt: u32,
    /// See `Record::failures`.
    pub failures: u32,
    /// Whose network it joins.
    pub sandbox: String,
    /// Share the node's network.
    pub host_network: bool,
    /// Whose processes it sees.
    pub pid: PidNamespace,
    /// Seconds to stop.
    pub grace: u32,
    /// Reference of the image.
    pub image: String,
    /// Replaces the image's entry point unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments unless empty.
    pub args: Vec<String>,
    /// Replaces the image's unless empty.
    pub working_dir: String,
    /// "NAME=value".
    pub env: Vec<String>,
    /// Volumes.
    pub binds: Vec<Bind>,
    /// Processor time.
    pub cpu: Cpu,
    /// Bytes; none: no limit.
    pub memory_limit: Option<i64>,
    /// Rights.
    pub security: Security,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep its standard input open.
    pub stdin: bool,
    /// Close it when the first who is attached to it has closed it.
    pub stdin_once: bool,
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Own,
    /// The node's.
    Host,
    /// Those of the container with this id.
    Of(String),
}

/// A container's share of the processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Relative weight; 1024 is one core.
    pub shares: Option<i64>,
    /// Microseconds within each 100 ms.
    pub quota: Option<i64>,
}

/// A container's rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// "uid" or "uid:gid"; empty: the image's.
    pub user: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// All rights.
    pub privileged: bool,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// No filter of system calls.
    pub unconfined: bool,
    /// Setuid programs give no more rights.
    pub no_new_privileges: bool,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
}
