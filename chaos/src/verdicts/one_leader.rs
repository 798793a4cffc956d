//! At most one leader per term.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "one leader per term",
    promise: "no two masters ever call themselves the leader of one term",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut leaders: BTreeMap<u64, &str> = BTreeMap::new();
    for sighting in evidence.masters.iter().filter(|sighting| sighting.leads) {
        let first = *leaders.entry(sighting.term).or_insert(&sighting.master);
        findings.expect(first == sighting.master, || {
            format!("term {}: both {first} and {} led", sighting.term, sighting.master)
        });
    }
    findings
}

#[cfg(test)]
#[path = "one_leader_test.rs"]
mod tests;
