//! No election without a cause.

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "no election without cause",
    promise: "a leader that runs and reaches a majority stays: neither load, nor clocks, nor nodes, \
              nor a follower that comes and goes cost it its office",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for step in &evidence.quiet {
        if !findings.judges(step.late_ms) {
            continue;
        }
        findings.expect(step.before == step.after, || {
            let (before, after) = (step.before, step.after);
            format!("the term went from {before} to {after} after: {}", step.faults)
        });
    }
    findings
}

#[cfg(test)]
#[path = "elections_test.rs"]
mod tests;
