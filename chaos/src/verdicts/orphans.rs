//! No orphan containers.

use std::collections::BTreeSet;

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "no orphan containers",
    promise: "once everything has settled, every container belongs to a pod that exists",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let Some(pods) = &evidence.final_pods else { return findings };
    let pods: BTreeSet<&str> = pods.iter().map(String::as_str).collect();
    for container in &evidence.final_containers {
        findings.expect(pods.contains(container.pod_uid.as_str()), || {
            format!(
                "{} on {} is left of {} ({}), which does not exist",
                container.id, container.node, container.pod, container.pod_uid
            )
        });
    }
    findings
}

#[cfg(test)]
#[path = "orphans_test.rs"]
mod tests;
