//! A stateful identity is never used twice at the same time.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "unique stateful identity",
    promise: "at no moment do two pods of a StatefulSet run under one name",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for sample in &evidence.containers {
        let mut running: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for container in &sample.containers {
            if !container.running || !container.stateful {
                continue;
            }
            let this = (container.pod_uid.as_str(), container.node.as_str());
            let first = *running.entry(&container.pod).or_insert(this);
            findings.expect(first.0 == this.0, || {
                format!("{}: {first:?} and {this:?} ran at the same time", container.pod)
            });
        }
    }
    findings
}

#[cfg(test)]
#[path = "identity_test.rs"]
mod tests;
