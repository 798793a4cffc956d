//! From answers to what is said: who leads, what may still fail, what is wrong, what to do.

use std::path::Path;

use quorate_client::v1::StatusResponse;
use quorate_client::{MasterEntry, NodeEntry, Object};
use serde::Serialize;

use crate::json::{self, text};

/// A master, and what it said.
pub struct Asked {
    pub entry: MasterEntry,
    pub pid: Option<u32>,
    pub answer: Result<StatusResponse, String>,
}

/// The state of a cluster. This is also the JSON of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub cluster_id: String,
    /// Empty when nobody leads.
    pub leader: String,
    pub term: u64,
    /// Does a majority of masters answer, with a leader among them?
    pub quorum: bool,
    /// "healthy", "degraded" or "unavailable".
    pub health: &'static str,
    /// How many more masters may die.
    pub tolerance: usize,
    pub masters: Vec<Master>,
    pub nodes_ready: usize,
    pub nodes_total: usize,
    pub nodes: Vec<Node>,
    /// What is wrong and what to do, one sentence each.
    pub problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    pub name: String,
    /// "leader", "follower", "candidate", "learner", or "" when it does not answer.
    pub role: String,
    pub url: String,
    pub reachable: bool,
    pub error: String,
    pub term: u64,
    /// Log entries behind the leader.
    pub lag: Option<u64>,
    pub revision: u64,
    pub disk_bytes: u64,
    pub resident_bytes: u64,
    pub pid: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    /// As `get nodes` shows it: "Ready", "NotReady,SchedulingDisabled", …
    pub status: String,
    pub message: String,
    pub address: String,
    pub pods: usize,
    pub pods_ready: usize,
    pub pid: Option<u32>,
}

pub fn build(
    dir: &Path,
    asked: Vec<Asked>,
    agents: &[(NodeEntry, Option<u32>)],
    nodes: &[Object],
    pods: &[Object],
) -> Report {
    let answers: Vec<&StatusResponse> =
        asked.iter().filter_map(|master| master.answer.as_ref().ok()).collect();
    // After a partition two may call themselves leader: the newest term is right.
    let term = answers.iter().map(|answer| answer.term).max().unwrap_or_default();
    let leader = answers.iter().find(|a| a.role == "leader" && a.term == term).copied();
    let majority = asked.len() / 2 + 1;
    let reachable = answers.len();
    let quorum = reachable >= majority && leader.is_some();
    let cluster_id = answers.first().map(|a| a.cluster_id.clone()).unwrap_or_default();
    let leader_name = leader.map(|leader| leader.name.clone()).unwrap_or_default();
    let lag = |status: &StatusResponse| {
        let leader = leader?;
        let member = leader.members.iter().find(|member| member.name == status.name);
        let known = member.and_then(|member| member.lag);
        Some(known.unwrap_or_else(|| leader.last_index.saturating_sub(status.last_index)))
    };
    let master = |master: &Asked| {
        let status = master.answer.as_ref().ok();
        Master {
            name: master.entry.name.clone(),
            role: status.map(|s| s.role.clone()).unwrap_or_default(),
            url: master.entry.url.clone(),
            reachable: status.is_some(),
            error: master.answer.as_ref().err().cloned().unwrap_or_default(),
            term: status.map_or(0, |s| s.term),
            lag: status.and_then(lag),
            revision: status.map_or(0, |s| s.revision),
            disk_bytes: status.map_or(0, |s| s.disk_bytes),
            resident_bytes: status.map_or(0, |s| s.resident_bytes),
            pid: master.pid,
        }
    };
    let masters: Vec<Master> = asked.iter().map(master).collect();
    let nodes = node_rows(agents, nodes, pods);
    let ready = nodes.iter().filter(|node| node.status.starts_with("Ready")).count();
    let problems = problems(dir, &masters, &nodes, quorum, leader);
    let health = match (quorum, problems.is_empty()) {
        (false, _) => "unavailable",
        (true, false) => "degraded",
        (true, true) => "healthy",
    };
    Report {
        cluster_id,
        leader: leader_name,
        term,
        quorum,
        health,
        tolerance: if quorum { reachable - majority } else { 0 },
        masters,
        nodes_ready: ready,
        nodes_total: nodes.len(),
        nodes,
        problems,
    }
}

fn node_rows(agents: &[(NodeEntry, Option<u32>)], nodes: &[Object], pods: &[Object]) -> Vec<Node> {
    let agent = |name: &str| agents.iter().find(|(entry, _)| entry.name == name);
    let row = |object: &Object| {
        let conditions = json::list(&object.value, "/status/conditions");
        let ready = conditions.iter().find(|c| text(c, "/type") == "Ready");
        let is_ready = ready.is_some_and(|c| text(c, "/status") == "True");
        let mut status = if is_ready { "Ready" } else { "NotReady" }.to_owned();
        if object.value["spec"]["unschedulable"].as_bool() == Some(true) {
            status.push_str(",SchedulingDisabled");
        }
        let own = |pod: &&Object| {
            let done = ["Succeeded", "Failed"].contains(&text(&pod.value, "/status/phase"));
            text(&pod.value, "/spec/nodeName") == object.name && !done
        };
        let addresses = json::list(&object.value, "/status/addresses");
        let internal = addresses.iter().find(|a| text(a, "/type") == "InternalIP");
        let message = ready.map(|c| text(c, "/message")).unwrap_or_default();
        Node {
            name: object.name.clone(),
            status,
            message: if is_ready { String::new() } else { message.to_owned() },
            address: internal.map(|a| text(a, "/address").to_owned()).unwrap_or_default(),
            pods: pods.iter().filter(own).count(),
            pods_ready: pods
                .iter()
                .filter(own)
                .filter(|pod| json::condition(&pod.value, "Ready"))
                .count(),
            pid: agent(&object.name).and_then(|(_, pid)| *pid),
        }
    };
    let mut rows: Vec<Node> = nodes.iter().map(row).collect();
    for (entry, pid) in agents {
        if !rows.iter().any(|row| row.name == entry.name) {
            rows.push(Node {
                name: entry.name.clone(),
                status: "Unknown".into(),
                message: String::new(),
                address: entry.address.clone(),
                pods: 0,
                pods_ready: 0,
                pid: *pid,
            });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn problems(
    dir: &Path,
    masters: &[Master],
    nodes: &[Node],
    quorum: bool,
    leader: Option<&StatusResponse>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let restart = format!("`quorate up --dir {}`", dir.display());
    for master in masters.iter().filter(|master| !master.reachable) {
        let name = &master.name;
        let advice = match master.pid {
            Some(pid) => format!("its process {pid} runs: see its log"),
            None => format!("it does not run: start it with {restart}"),
        };
        problems.push(format!("{name} does not answer ({}); {advice}", master.error));
    }
    let (reachable, total) = (masters.iter().filter(|m| m.reachable).count(), masters.len());
    if !quorum && reachable == 0 {
        problems.push(format!("no master answers: start the cluster with {restart}"));
    } else if reachable < total / 2 + 1 {
        problems.push(format!(
            "no majority: {reachable} of {total} masters reachable, {} needed; nothing can be \
             changed, and reads work with --stale only. What runs on the nodes runs on",
            total / 2 + 1
        ));
    } else if leader.is_none() {
        problems.push(
            "no leader: an election is going on or cannot be won; look again in a second, then \
             at the masters' logs"
                .into(),
        );
    } else if leader.is_some_and(|leader| !leader.leader_work_running) {
        problems.push("the leader has not taken up its work yet: look again in a second".into());
    }
    if !quorum {
        return problems;
    }
    for node in nodes.iter().filter(|node| !node.status.starts_with("Ready")) {
        let name = &node.name;
        let advice = match node.pid {
            Some(_) => format!("see `quorate describe node {name}`"),
            None => format!("its agent does not run here: start it with {restart}"),
        };
        let why =
            if node.message.is_empty() { String::new() } else { format!(" ({})", node.message) };
        problems.push(format!("node {name} is {}{why}; {advice}", node.status));
    }
    problems
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
