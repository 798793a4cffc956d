//! What was definitely refused has no effect.

use std::collections::BTreeSet;

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "a refused write has no effect",
    promise: "the value of a write that was answered with a definite refusal is never seen, by \
              readers or by watchers",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let kept = evidence.writes.kept.iter().flatten();
    let kept = kept.map(|(key, (value, _))| (key.as_str(), *value));
    let watched = evidence
        .watches
        .iter()
        .flat_map(|log| log.changes().filter_map(|(_, key, value)| Some((key, value?))));
    let seen: BTreeSet<(&str, u64)> = kept.chain(watched).collect();
    for write in &evidence.writes.refused {
        // A refused deletion leaves nothing to look for.
        let Some(value) = write.value else { continue };
        findings.expect(!seen.contains(&(write.key.as_str(), value)), || {
            format!("{}: the write of {value} was refused, and yet it is there", write.key)
        });
    }
    findings
}

#[cfg(test)]
#[path = "refused_test.rs"]
mod tests;
