//! The two systems, behind one face.

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use quorate_testkit::links::{CLIENTS, Links, Rule};
use quorate_testkit::{Options, wait_for};

use super::etcd_cluster::EtcdCluster;
use super::{How, LIMIT};
use crate::etcd::Etcd;
use crate::target::Target;

/// Hollow nodes for pods to be bound to.
const HOLLOW: u32 = 5;

/// A cluster that is measured.
#[derive(Debug)]
pub(super) enum System {
    Quorate { target: Box<Target>, pods: bool },
    Etcd(EtcdCluster),
}

impl System {
    pub(super) async fn start(name: &str, links: bool, pods: bool) -> Result<Self> {
        Ok(match name {
            "quorate" => {
                let hollow = if pods { HOLLOW } else { 0 };
                let options =
                    Options { nodes: 0, hollow, insecure: true, links, ..Options::default() };
                Self::Quorate { target: Box::new(Target::start(options, None).await?), pods }
            }
            "etcd" => Self::Etcd(EtcdCluster::start(links).await?),
            other => bail!("there is no peer {other:?}: only etcd"),
        })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Quorate { .. } => "quorate",
            Self::Etcd(_) => "etcd",
        }
    }

    /// The cluster whose pods are watched.
    pub(super) fn pods(&self) -> Option<&Target> {
        match self {
            Self::Quorate { target, pods: true } => Some(target),
            _ => None,
        }
    }

    /// Where clients reach the servers.
    pub(super) fn urls(&self) -> Result<Vec<String>> {
        Ok(match self {
            Self::Quorate { target, .. } => target.cluster().file()?.urls(),
            Self::Etcd(cluster) => cluster.urls(),
        })
    }

    /// Name and URL of all servers, past the proxy.
    fn servers(&self) -> Result<Vec<(String, String)>> {
        Ok(match self {
            Self::Quorate { target, .. } => {
                let file = target.cluster().file_behind_links()?;
                file.masters.into_iter().map(|master| (master.name, master.url)).collect()
            }
            Self::Etcd(cluster) => cluster.servers(),
        })
    }

    /// Who leads, by what the servers say themselves.
    pub(super) async fn leader(&self) -> Result<String> {
        for (name, url) in self.servers()? {
            if let Ok(status) = Etcd::status(&url).await
                && status.leader != 0
                && status.header.unwrap_or_default().member_id == status.leader
            {
                return Ok(name);
            }
        }
        bail!("nobody leads")
    }

    /// Waits until all servers follow one leader and have applied what it has.
    pub(super) async fn wait_ready(&self) -> Result<()> {
        wait_for("all servers follow one leader", LIMIT, async || {
            let mut applied = Vec::new();
            for (name, url) in self.servers()? {
                let status = Etcd::status(&url).await.with_context(|| name.clone())?;
                anyhow::ensure!(status.leader != 0, "{name} knows no leader");
                applied.push((status.leader, status.raft_term, status.raft_applied_index));
            }
            let (leader, term, most) =
                applied.iter().copied().max_by_key(|a| a.2).unwrap_or_default();
            let same = applied.iter().all(|a| (a.0, a.1) == (leader, term) && a.2 + 500 >= most);
            anyhow::ensure!(same, "{applied:?}");
            Ok(())
        })
        .await
        .map(drop)
    }

    pub(super) async fn strike(&self, name: &str, how: How) -> Result<()> {
        let signal = match how {
            How::Kill => Signal::SIGKILL,
            How::Terminate => Signal::SIGTERM,
            How::Cut => {
                self.cut(name, Rule { cut: true, ..Rule::default() });
                return Ok(());
            }
        };
        match self {
            Self::Quorate { target, .. } => target.cluster().signal(name, signal),
            Self::Etcd(cluster) => cluster.signal(name, signal),
        }
    }

    pub(super) async fn mend(&mut self, name: &str, how: How) -> Result<()> {
        if how == How::Cut {
            self.cut(name, Rule::default());
            return Ok(());
        }
        match self {
            Self::Quorate { target, .. } => {
                target.cluster().wait_ended(name).await?;
                target.cluster().start_again(name)
            }
            Self::Etcd(cluster) => cluster.start_again(name).await,
        }
    }

    /// Both directions, to all servers, nodes and clients.
    fn cut(&self, name: &str, rule: Rule) {
        let (links, others): (Option<&Links>, Vec<String>) = match self {
            Self::Quorate { target, .. } => {
                let others = [target.masters(), target.nodes.clone()].concat();
                (target.cluster().links(), others)
            }
            Self::Etcd(cluster) => (cluster.links(), cluster.names()),
        };
        let Some(links) = links else { return };
        for other in others.iter().map(String::as_str).chain([CLIENTS]).filter(|o| *o != name) {
            links.set_both(name, other, rule);
        }
    }
}
