//! When is a cluster up? All masters answer, one leads and does the leader's work, and all
//! nodes are Ready.

use std::collections::HashSet;
use std::process::Child;
use std::time::Duration;

use quorate_client::v1::StatusResponse;
use quorate_client::{Client, ListOptions, Object};
use tokio::time::{Instant, sleep};

use super::progress::Progress;
use crate::context::list_all;
use crate::error::{CliError, Result};
use crate::local::{LocalCluster, Member, Role};
use crate::{json, resource};

const POLL: Duration = Duration::from_millis(100);

/// The processes that this command started.
#[derive(Default)]
pub struct Started {
    children: Vec<(Role, Child)>,
    culprit: Option<Role>,
}

impl Started {
    pub fn add(&mut self, role: Role, child: Child) {
        self.children.push((role, child));
    }

    pub fn contains(&self, role: Role) -> bool {
        self.children.iter().any(|(r, _)| *r == role)
    }

    /// Whose log tells why it failed.
    pub fn culprit(&self, cluster: &LocalCluster) -> Option<Member> {
        let role = self.culprit?;
        cluster.members().into_iter().find(|member| member.role == role)
    }

    /// Collects the ended children, so that none stays a zombie.
    pub fn reap(&mut self) {
        for (_, child) in &mut self.children {
            // The process is gone already; its exit status tells nothing new.
            let _ = child.try_wait();
        }
    }

    /// An error when a process has ended.
    fn check(&mut self, cluster: &LocalCluster) -> Result<()> {
        for (role, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                self.culprit = Some(*role);
                let name = name(cluster, *role);
                return Err(CliError::local(format!("{name} ended at once ({status})")));
            }
        }
        Ok(())
    }
}

fn name(cluster: &LocalCluster, role: Role) -> String {
    match role {
        Role::Master(i) => format!("master {}", cluster.spec.masters[i].name),
        Role::Node(i) => format!("the agent of node {}", cluster.spec.nodes[i].name),
        Role::Endpoint => "the endpoint".to_owned(),
    }
}

/// Waits until all is well, and says each step.
pub async fn wait(
    client: &Client,
    cluster: &LocalCluster,
    started: &mut Started,
    progress: &mut Progress,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut seen = Seen::default();
    loop {
        started.check(cluster)?;
        let missing = seen.look(client, cluster, progress).await;
        let Some(missing) = missing else { return Ok(()) };
        progress.waiting(&missing.what);
        if Instant::now() >= deadline {
            started.culprit = missing.role;
            return Err(CliError::local(format!(
                "not ready after {limit:?}: {} (wait longer with --wait)",
                missing.what
            )));
        }
        sleep(POLL).await;
    }
}

/// What is still missing, and whose fault it may be.
struct Missing {
    what: String,
    role: Option<Role>,
}

#[derive(Default)]
struct Seen {
    masters: HashSet<usize>,
    leader: Option<String>,
    nodes: HashSet<usize>,
}

impl Seen {
    async fn look(
        &mut self,
        client: &Client,
        cluster: &LocalCluster,
        progress: &mut Progress,
    ) -> Option<Missing> {
        let statuses = client.statuses().await;
        for (i, (_, status)) in statuses.iter().enumerate() {
            if status.is_ok() && self.masters.insert(i) {
                let master = &cluster.spec.masters[i];
                progress.step(&format!("Master {} answers at {}", master.name, master.url));
            }
        }
        if let Some(i) = statuses.iter().position(|(_, status)| status.is_err()) {
            let role = Role::Master(i);
            let what = format!("waiting for {}", name(cluster, role));
            return Some(Missing { what, role: Some(role) });
        }
        let answers = || statuses.iter().filter_map(|(_, status)| status.as_ref().ok());
        let leads = |s: &&StatusResponse| s.role == "leader" && s.leader_work_running;
        let Some(leader) = answers().find(leads) else {
            let role = Some(Role::Master(0));
            return Some(Missing { what: "waiting for a leader".into(), role });
        };
        if self.leader.as_ref() != Some(&leader.name) {
            progress.step(&format!("{} leads in term {}", leader.name, leader.term));
            self.leader = Some(leader.name.clone());
        }
        self.nodes(client, cluster, progress).await
    }

    async fn nodes(
        &mut self,
        client: &Client,
        cluster: &LocalCluster,
        progress: &mut Progress,
    ) -> Option<Missing> {
        if cluster.spec.nodes.is_empty() {
            return None;
        }
        let waiting = |i: usize, why: String| {
            let role = Role::Node(i);
            let what = format!("waiting for node {}: {why}", cluster.spec.nodes[i].name);
            Some(Missing { what, role: Some(role) })
        };
        let kind = match resource::by_name("nodes") {
            Ok(kind) => kind,
            Err(error) => return waiting(0, error.to_string()),
        };
        let found = match list_all(client, kind, ListOptions::default()).await {
            Ok((_, found)) => found,
            Err(error) => return waiting(0, error.to_string()),
        };
        let mut missing = None;
        for (i, node) in cluster.spec.nodes.iter().enumerate() {
            if node.hollow > 0 {
                let ready = hollow_ready(&found, &node.name);
                if ready < node.hollow as usize {
                    let why = format!("{ready} of {} are ready", node.hollow);
                    missing = missing.or(waiting(i, why));
                } else if self.nodes.insert(i) {
                    progress.step(&format!("{} hollow nodes are ready", node.hollow));
                }
                continue;
            }
            let object = found.iter().find(|object| object.name == node.name);
            match object {
                Some(object) if json::condition(&object.value, "Ready") => {
                    if self.nodes.insert(i) {
                        progress.step(&format!("Node {} is ready at {}", node.name, node.address));
                    }
                }
                Some(object) => missing = missing.or(waiting(i, not_ready(&object.value))),
                None => missing = missing.or(waiting(i, "it has not registered".into())),
            }
        }
        missing
    }
}

/// How many nodes of a process of hollow nodes are ready.
fn hollow_ready(found: &[Object], name: &str) -> usize {
    let number =
        |object: &Object| object.name.strip_prefix(name)?.strip_prefix('-')?.parse::<u32>().ok();
    let ready = |object: &&Object| json::condition(&object.value, "Ready");
    found.iter().filter(ready).filter_map(number).count()
}

fn not_ready(node: &serde_json::Value) -> String {
    let ready = json::list(node, "/status/conditions").iter();
    let mut ready = ready.filter(|c| json::text(c, "/type") == "Ready");
    let message = ready.next().map(|c| json::text(c, "/message")).unwrap_or_default();
    if message.is_empty() { "it is not Ready".into() } else { format!("not Ready: {message}") }
}
