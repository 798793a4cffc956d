//! No pod on two nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "no pod on two nodes",
    promise: "a pod is bound to one node in its life, and its containers are on that node only",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut nodes: BTreeMap<&str, (BTreeSet<&str>, &str)> = BTreeMap::new();
    for pod in &evidence.pods {
        if let Some(node) = &pod.node {
            nodes.entry(&pod.uid).or_insert_with(|| (BTreeSet::new(), &pod.name)).0.insert(node);
        }
    }
    for sample in &evidence.containers {
        for container in sample.containers.iter().filter(|container| container.running) {
            let name = container.pod.as_str();
            let entry = nodes.entry(&container.pod_uid).or_insert((BTreeSet::new(), name));
            entry.0.insert(&container.node);
        }
    }
    for (uid, (nodes, name)) in nodes {
        findings.expect(nodes.len() == 1, || format!("{name} ({uid}) was on {nodes:?}"));
    }
    findings
}

#[cfg(test)]
#[path = "one_node_test.rs"]
mod tests;
