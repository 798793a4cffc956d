//! Nodes of a [`TestCluster`]: on this machine's Docker, or each on a host of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use quorate_client::ListOptions;
use serde_json::json;
use tokio::time::timeout;

use crate::breaking::BEHIND;
use crate::cluster::{Options, TestCluster};
use crate::docker::{Container, Daemon};
use crate::host::{Host, Hosts};
use crate::image;

/// Label on each container: the cluster's id.
pub(crate) const CLUSTER_LABEL: &str = "quorate.dev/cluster";
/// Label on each container: the node's name.
const NODE_LABEL: &str = "quorate.dev/node";
/// How long a daemon may take to show its containers to somebody who does not insist.
const GLANCE: Duration = Duration::from_secs(2);

/// The names that `quorate up` gives to nodes.
fn names(nodes: u16) -> Vec<String> {
    (1..=nodes).map(|number| format!("n{number}")).collect()
}

/// Where clients and agents reach the masters of a cluster with links.
fn public_ports(port_base: u16, masters: u16) -> Vec<u16> {
    (1..=masters).map(|number| port_base + BEHIND + number).collect()
}

/// The hosts that a cluster asks for, before any of its processes runs.
pub(crate) async fn start_hosts(
    port_base: u16,
    places: u16,
    options: &Options,
) -> Result<Option<Hosts>> {
    if !options.own_docker || options.nodes == 0 {
        return Ok(None);
    }
    ensure!(
        options.links && options.insecure,
        "nodes on hosts of their own reach the masters through the proxy, in plain HTTP only"
    );
    let ports = public_ports(port_base, places);
    Hosts::start(port_base, &names(options.nodes), &ports).await.map(Some)
}

impl TestCluster {
    /// All containers of the cluster, sandboxes too, running or not.
    ///
    /// # Errors
    /// When a daemon does not answer.
    pub async fn containers(&self) -> Result<Vec<Container>> {
        let label = [self.label()];
        let mut all = Vec::new();
        for daemon in self.daemons() {
            all.extend(daemon.containers(&label).await?);
        }
        Ok(all)
    }

    /// The same of those daemons that answer soon: one may be killed or paused.
    pub async fn visible_containers(&self) -> Vec<Container> {
        let label = [self.label()];
        let looks = self.daemons().into_iter().map(|daemon| {
            let label = label.clone();
            // Task "glance": ends with the look, which has a limit.
            tokio::spawn(async move { timeout(GLANCE, daemon.containers(&label)).await })
        });
        let mut all = Vec::new();
        for look in looks.collect::<Vec<_>>() {
            if let Ok(Ok(Ok(containers))) = look.await {
                all.extend(containers);
            }
        }
        all
    }

    /// All containers of one node.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub async fn containers_of(&self, node: &str) -> Result<Vec<Container>> {
        let labels = [self.label(), format!("{NODE_LABEL}={node}")];
        self.daemon_of(node).containers(&labels).await
    }

    fn label(&self) -> String {
        format!("{CLUSTER_LABEL}={}", self.cluster_id)
    }

    fn daemons(&self) -> Vec<Daemon> {
        match &self.hosts {
            Some(hosts) => hosts.all().map(|(_, host)| host.daemon()).collect(),
            None => vec![Daemon::default()],
        }
    }

    fn daemon_of(&self, node: &str) -> Daemon {
        self.own_host(node).map(Host::daemon).unwrap_or_default()
    }

    /// Kills a node as a power cut would: its agent, its daemon if it has one, and all its
    /// containers.
    ///
    /// # Errors
    /// When the agent is not running, or Docker fails.
    pub async fn kill_node(&self, name: &str) -> Result<()> {
        self.kill(name).await?;
        match self.own_host(name) {
            Some(host) => host.cut_power().await,
            None => self.daemon_of(name).kill(&self.containers_of(name).await?).await,
        }
    }

    /// The hosts of the nodes, when [`crate::Options::own_docker`] asked for them.
    #[must_use]
    pub fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_ref()
    }

    /// The host of a node.
    ///
    /// # Errors
    /// When it has none of its own.
    pub fn host(&self, node: &str) -> Result<&Host> {
        self.own_host(node).with_context(|| format!("{node} has no host of its own"))
    }

    pub(crate) fn own_host(&self, node: &str) -> Option<&Host> {
        self.hosts.as_ref()?.get(node)
    }

    /// Builds the web image for every daemon.
    ///
    /// # Errors
    /// When busybox is missing or Docker fails.
    pub async fn build_web_image(&self, tag: &str) -> Result<()> {
        for daemon in self.daemons() {
            image::build_web_image_for(&daemon, tag).await?;
        }
        Ok(())
    }

    /// Adds nodes to a cluster that was started without any: an agent on each host.
    pub(crate) async fn start_on_hosts(&self) -> Result<()> {
        let Some(hosts) = &self.hosts else { return Ok(()) };
        let masters: Vec<String> = self.file()?.masters.into_iter().map(|m| m.url).collect();
        let masters = masters.join(",");
        for (node, host) in hosts.all() {
            let data = self.dir.join(node).join("data");
            std::fs::create_dir_all(&data)?;
            let (data, address) = (data.display().to_string(), host.address().to_string());
            let socket = format!("unix://{}", host.socket().display());
            self.remember_command(
                node,
                ["agent", "--name", node, "--masters", &masters, "--data-dir", &data]
                    .into_iter()
                    .chain(["--address", &address, "--cluster-id", &self.cluster_id])
                    .chain(["--docker", &socket, "--insecure"]),
            );
            let entry = json!({"name": node, "pid": 0, "data_dir": data, "address": address});
            self.change_file(|file| {
                file["nodes"].as_array_mut().context("nodes")?.push(entry);
                Ok(())
            })?;
            self.start_again(node)?;
        }
        self.wait("every node has a range for its pods", async || {
            let ranges = self.pod_ranges().await?;
            ensure!(ranges.len() == hosts.all().count(), "{ranges:?}");
            hosts.route(&ranges).await
        })
        .await
    }

    async fn pod_ranges(&self) -> Result<BTreeMap<String, String>> {
        let nodes: Vec<Node> = self.client()?.list_as(&ListOptions::default()).await?;
        let range = |node: Node| Some((node.metadata.name?, node.spec?.pod_cidr?));
        Ok(nodes.into_iter().filter_map(range).collect())
    }

    /// Starts the daemon of a node's own host again if it does not run. Does nothing for a node
    /// without one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_docker(&self, node: &str) -> Result<()> {
        match self.own_host(node) {
            Some(host) => host.start_docker().await,
            None => Ok(()),
        }
    }

    /// Daemons and agents of hosts run again.
    pub(crate) async fn heal_hosts(&self) -> Result<()> {
        for (node, host) in self.hosts.iter().flat_map(Hosts::all) {
            host.plug().await?;
            host.start_docker().await?;
            self.start_again(node)?;
        }
        Ok(())
    }
}
