//! What every command needs: global flags, the cluster, a client.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, ClientOptions, ClusterFile, ListOptions, Object};
use quorate_objects::Kind;
use quorate_objects::net::Ipv4Net;

use crate::duration;
use crate::error::{CliError, Result};

/// Flags of all commands.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Folder or cluster.json of the cluster [default: that of the last `up`]
    #[arg(long, global = true, env = "QUORATE_CLUSTER", value_name = "DIR|FILE")]
    pub cluster: Option<PathBuf>,
    /// Namespace
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How long a single request may take; 0: as long as it takes
    #[arg(long, global = true, default_value = "10s", value_name = "DURATION", value_parser = duration::parse)]
    pub request_timeout: Duration,
}

/// What was removed from a Docker daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Number of containers.
    pub containers: usize,
    /// Number of networks.
    pub networks: usize,
    /// Number of volumes.
    pub volumes: usize,
}

/// Removes all containers and networks of a cluster from a Docker daemon: takes the daemon's
/// address, the cluster's id, and whether the volumes of its claims go too. The binary provides
/// it, as only the agent speaks to Docker.
pub type Purge = Box<
    dyn Fn(String, String, bool) -> Pin<Box<dyn Future<Output = Result<Purged, String>> + Send>>
        + Send
        + Sync,
>;

/// Address ranges of a Docker daemon's networks, each with the network's name; takes the
/// daemon's address.
pub type Subnets = Box<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Vec<(String, Ipv4Net)>, String>> + Send>>
        + Send
        + Sync,
>;

/// Checks a snapshot file, and says what it holds; only the binary knows the store.
pub type VerifySnapshot = Box<
    dyn Fn(PathBuf) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync,
>;

/// Makes a master's data directory from a snapshot file, and says what it holds.
pub type RestoreSnapshot = Box<
    dyn Fn(RestoreRequest) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>>
        + Send
        + Sync,
>;

/// Which data directory is to be made from which file.
#[derive(Args, Clone, Debug)]
pub struct RestoreRequest {
    /// The snapshot
    pub file: PathBuf,
    /// The directory; it must be empty
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Name of the master, as --initial-masters has it
    #[arg(long)]
    pub name: String,
    /// Identity of the new cluster; not that of the old one
    #[arg(long)]
    pub cluster_id: String,
    /// All masters of the new cluster: NAME=CLIENT_URL,PEER_URL;NAME=…  (the same on each)
    #[arg(long, value_delimiter = ';', required = true)]
    pub initial_masters: Vec<String>,
}

/// What the binary provides.
pub struct Host {
    /// See [`VerifySnapshot`].
    pub verify_snapshot: VerifySnapshot,
    /// See [`RestoreSnapshot`].
    pub restore_snapshot: RestoreSnapshot,
    /// See [`Purge`].
    pub purge: Purge,
    /// See [`Subnets`].
    pub subnets: Subnets,
    /// Version of the binary.
    pub version: &'static str,
}

/// A running command's surroundings.
pub struct Context {
    pub globals: Globals,
    pub host: Host,
    /// The whole command line, for completion.
    pub root: clap::Command,
}

/// Instead of "as long as it takes": no call may hang for ever.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Context {
    pub fn new(globals: Globals, host: Host, root: clap::Command) -> Self {
        Self { globals, host, root }
    }

    /// Finds the cluster.
    pub fn cluster(&self) -> Result<ClusterFile> {
        Ok(ClusterFile::discover(self.globals.cluster.as_deref())?)
    }

    /// A client of all masters.
    pub fn client(&self) -> Result<Client> {
        let timeout = match self.globals.request_timeout {
            Duration::ZERO => LONGEST,
            limit => limit,
        };
        let options = ClientOptions { timeout, ..ClientOptions::default() };
        Ok(Client::from_cluster_file(&self.cluster()?, options)?)
    }

    /// The namespace of namespaced objects.
    pub fn namespace(&self) -> &str {
        self.globals.namespace.as_deref().unwrap_or("default")
    }

    /// The namespace for objects of this kind: "" for kinds without.
    pub fn namespace_for(&self, kind: &Kind) -> &str {
        if kind.namespaced { self.namespace() } else { "" }
    }
}

/// A label and a field selector, as flags.
#[derive(Args, Clone, Debug, Default)]
pub struct Selectors {
    /// Label selector, for instance app=web,tier!=db
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub selector: Option<String>,
    /// Field selector, for instance status.phase=Running
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
}

impl Selectors {
    /// Checked here, so that a mistake does not depend on what the cluster contains.
    pub fn check(&self) -> Result<()> {
        let labels = self.selector.as_deref().unwrap_or_default();
        quorate_objects::Selector::parse(labels).map_err(|e| CliError::local(e.to_string()))?;
        Ok(())
    }

    /// For a list call.
    pub fn options(&self, namespace: &str) -> ListOptions {
        ListOptions {
            namespace: namespace.to_owned(),
            labels: self.selector.clone().unwrap_or_default(),
            fields: self.field_selector.clone().unwrap_or_default(),
            ..ListOptions::default()
        }
    }

    /// Is any of them given?
    pub fn any(&self) -> bool {
        self.selector.is_some() || self.field_selector.is_some()
    }
}

/// Reads all pages of a list.
pub async fn list_all(
    client: &Client,
    kind: &Kind,
    mut options: ListOptions,
) -> Result<(u64, Vec<Object>)> {
    let mut items = Vec::new();
    loop {
        let page = client.list(kind, &options).await?;
        items.extend(page.items);
        if page.continue_token.is_empty() {
            return Ok((page.revision, items));
        }
        options.continue_token = page.continue_token;
    }
}
