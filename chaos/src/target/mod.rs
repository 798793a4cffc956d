//! What is broken: a cluster of processes on this machine, started for the purpose.

mod disks;
mod nodes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate_client::v1::StatusResponse;
use quorate_client::{Client, ClientOptions, ClusterFile};
use quorate_testkit::membership::place;
use quorate_testkit::{Options, TestCluster, wait_for};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::disk::Names;
use crate::etcd::Etcd;
use crate::plan::{Abilities, Ability, Who};
use disks::Disks;

/// After this time a client's call is over.
const CALL: Duration = Duration::from_secs(5);
/// After this time a client asks the next master, when it may.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long a master gets to say who it is.
const STATUS: Duration = Duration::from_millis(500);

/// How long a fault that needs a leader waits for one.
const ELECTION: Duration = Duration::from_secs(4);

/// A cluster under test.
#[derive(Clone, Debug)]
pub struct Target {
    /// Before the cluster: its folder can be removed once they are unmounted.
    disks: Arc<Disks>,
    cluster: Arc<TestCluster>,
    /// Names of the processes of nodes.
    pub nodes: Vec<String>,
    /// Do pods of ours run in Docker? On hollow nodes they have no containers.
    pub docker: bool,
    /// In somebody else's cluster: what may be broken.
    allowed: Option<Abilities>,
}

impl Target {
    /// Starts a cluster, and waits until it is ready. With `disks`, the masters' data lies on
    /// disks that can be broken.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(options: Options, disks: Option<Names>) -> Result<Self> {
        let docker = options.nodes > 0;
        let cluster = TestCluster::start(options).await?;
        let file = cluster.file()?;
        let target = Self {
            disks: Arc::new(Disks::new(disks.unwrap_or(Names::WithFile))),
            cluster: Arc::new(cluster),
            nodes: file.nodes.into_iter().map(|node| node.name).collect(),
            docker,
            allowed: None,
        };
        if disks.is_some() {
            target.move_to_disks().await?;
        }
        Ok(target)
    }

    /// A cluster that somebody has started with `quorate up`, of which only what is `allowed` may
    /// be broken.
    ///
    /// # Errors
    /// When it does not run as a whole.
    pub fn attach(folder: &Path, allowed: &Abilities) -> Result<Self> {
        let cluster = TestCluster::attach(folder)?;
        let nodes = cluster.file()?.nodes.into_iter().map(|node| node.name).collect();
        Ok(Self {
            disks: Arc::new(Disks::new(Names::WithFile)),
            docker: false,
            nodes,
            allowed: Some(allowed.clone()),
            cluster: Arc::new(cluster),
        })
    }

    /// Was it started for the purpose? Then everything in it is ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.cluster.is_owned()
    }

    /// Names of the masters as they are now.
    #[must_use]
    pub fn masters(&self) -> Vec<String> {
        // The file is written by this process alone, and replaced as a whole.
        let masters = self.cluster.file().map(|file| file.masters).unwrap_or_default();
        masters.into_iter().map(|master| master.name).collect()
    }

    /// Names of all masters and nodes as they are now.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        [self.masters(), self.nodes.clone()].concat()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &TestCluster {
        &self.cluster
    }

    /// What can be done to it.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        let abilities = [
            (Ability::Processes, true),
            (Ability::Network, self.cluster.links().is_some()),
            (Ability::Disks, !self.disks.is_empty()),
            (Ability::Members, self.is_ours() && self.masters().len() > 2),
            (Ability::Nodes, !self.nodes.is_empty()),
            (Ability::Pods, !self.nodes.is_empty()),
            (Ability::Docker, self.cluster.hosts().is_some()),
            (Ability::Clock, self.masters().iter().all(|name| self.cluster.has_clock(name))),
        ];
        let able = abilities.into_iter().filter(|(_, able)| *able).map(|(ability, _)| ability);
        let may = |ability: &Ability| self.allowed.as_ref().is_none_or(|may| may.contains(ability));
        able.filter(may).collect()
    }

    /// The n-th client: all have all masters, and each begins at another.
    ///
    /// # Errors
    /// When `cluster.json` cannot be read.
    pub fn client(&self, number: u32) -> Result<Client> {
        let mut file = self.cluster.file()?;
        let masters = file.masters.len().max(1);
        file.masters.rotate_left(number as usize % masters);
        client(&file, CALL, ATTEMPT)
    }

    /// The n-th client of etcd's API; `None` when the masters speak TLS.
    ///
    /// # Errors
    /// As [`Target::client`].
    pub fn etcd(&self, number: u32) -> Result<Option<Etcd>> {
        let urls = self.cluster.file()?.urls();
        if urls.iter().any(|url| url.starts_with("https:")) {
            return Ok(None);
        }
        Ok(Some(Etcd::new(&urls, number as usize, ATTEMPT)?))
    }

    /// A client that no rule of the proxy touches, for looking at what is.
    ///
    /// # Errors
    /// As [`Target::client`].
    pub fn observer(&self) -> Result<Client> {
        client(&self.cluster.file_behind_links()?, CALL, STATUS)
    }

    /// The same of one master.
    ///
    /// # Errors
    /// As [`Target::client`].
    pub fn observer_of(&self, master: &str) -> Result<Client> {
        let mut file = self.cluster.file_behind_links()?;
        file.masters.retain(|entry| entry.name == master);
        client(&file, CALL, CALL)
    }

    /// What every master that answers says of itself.
    ///
    /// # Errors
    /// As [`Target::client`].
    pub async fn statuses(&self) -> Result<Vec<StatusResponse>> {
        let answers = self.observer()?.statuses().await;
        Ok(answers.into_iter().filter_map(|(_, status)| status.ok()).collect())
    }

    /// The master that leads in the newest term.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn leader(&self) -> Result<String> {
        leader_of(&self.statuses().await?).context("no master leads")
    }

    /// The same once somebody does: after an earlier fault that may take a moment.
    ///
    /// # Errors
    /// When nobody does in time.
    pub async fn wait_leader(&self) -> Result<String> {
        let (leader, _) = wait_for("a leader", ELECTION, async || self.leader().await).await?;
        Ok(leader)
    }

    /// Which processes `who` means at this moment.
    ///
    /// # Errors
    /// When there is none such.
    pub async fn resolve(&self, who: &Who, random: &mut StdRng) -> Result<Vec<String>> {
        let leader = match who {
            Who::Leader | Who::Follower => Some(self.wait_leader().await?),
            _ => None,
        };
        let mut masters = self.masters();
        masters.shuffle(random);
        Ok(match who {
            Who::Leader => leader.into_iter().collect(),
            Who::Follower => {
                masters.into_iter().filter(|name| Some(name) != leader.as_ref()).take(1).collect()
            }
            Who::Any => masters.into_iter().take(1).collect(),
            Who::Majority => {
                let majority = masters.len() / 2 + 1;
                masters.into_iter().take(majority).collect()
            }
            Who::All => masters,
            Who::Node => vec![self.any_node(random)?],
            Who::Named(name) => {
                // A master that was replaced is meant by its place.
                let all = self.processes();
                let found = all.iter().find(|known| *known == name || place(known) == name);
                let unknown = || format!("there is no {name}: there are {}", all.join(", "));
                vec![found.with_context(unknown)?.clone()]
            }
        })
    }

    /// Starts every process that should run and does not; returns their names.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn revive(&self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for name in self.masters().iter().chain(&self.nodes) {
            if !self.cluster.runs(name)? {
                self.cluster.start_docker(name).await?;
                self.cluster.start_again(name)?;
                ended.push(name.clone());
            }
        }
        Ok(ended)
    }

    /// The folder with the logs of all processes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.cluster.dir()
    }

    /// Hands leadership to another master; returns who had it.
    ///
    /// # Errors
    /// When nobody leads, or nobody takes over.
    pub async fn transfer(&self) -> Result<String> {
        let leader = self.wait_leader().await?;
        match self.observer_of(&leader)?.transfer_leader(None).await {
            Ok(_) => Ok(leader),
            Err(error) => bail!("transfer from {leader}: {error}"),
        }
    }
}

fn client(file: &ClusterFile, timeout: Duration, attempt_timeout: Duration) -> Result<Client> {
    let options = ClientOptions { timeout, attempt_timeout, ..ClientOptions::default() };
    Ok(Client::from_cluster_file(file, options)?)
}

/// Does a master call itself the leader of its term? Term and leader are of one look; the role of a
/// master of an older version may be that of an earlier term.
#[must_use]
pub fn leads(status: &StatusResponse) -> bool {
    status.leader == status.name
}

/// The name of the leader of the newest term, among masters that call themselves so.
#[must_use]
pub fn leader_of(statuses: &[StatusResponse]) -> Option<String> {
    let leaders = statuses.iter().filter(|status| leads(status));
    leaders.max_by_key(|status| status.term).map(|status| status.name.clone())
}

#[cfg(test)]
#[path = "target_test.rs"]
mod tests;
