//! No node is overcommitted.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::{Evidence, Resources};

pub(super) const PROMISE: Promise = Promise {
    name: "no node overcommitted",
    promise: "at no revision do the pods bound to a node ask for more than it offers",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut bound: BTreeMap<&str, (&str, Resources)> = BTreeMap::new();
    let mut used: BTreeMap<&str, Resources> = BTreeMap::new();
    for pod in &evidence.pods {
        if let Some((node, requests)) = bound.remove(pod.uid.as_str()) {
            let used = used.entry(node).or_default();
            used.cpu_milli -= requests.cpu_milli;
            used.memory -= requests.memory;
            used.pods -= 1;
        }
        let Some(node) = pod.node.as_deref().filter(|_| !pod.gone && !pod.finished) else {
            continue;
        };
        bound.insert(&pod.uid, (node, pod.requests));
        let used = used.entry(node).or_default();
        used.cpu_milli += pod.requests.cpu_milli;
        used.memory += pod.requests.memory;
        used.pods += 1;
        let Some(offered) = evidence.nodes.get(node) else { continue };
        let fits = used.cpu_milli <= offered.cpu_milli
            && used.memory <= offered.memory
            && used.pods <= offered.pods;
        findings.expect(fits, || {
            format!(
                "{node} at revision {} with {}: {used:?} of {offered:?}",
                pod.revision, pod.name
            )
        });
    }
    findings
}

#[cfg(test)]
#[path = "overcommit_test.rs"]
mod tests;
