//! No process ends by itself.

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "no process ends by itself",
    promise: "masters and agents end when they are killed or told to, or when their disk fails, \
              and not otherwise",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for step in &evidence.ends {
        findings.expect(step.ended.is_empty(), || {
            format!("{} ended by itself after: {}", step.ended.join(", "), step.faults)
        });
    }
    findings
}

#[cfg(test)]
#[path = "ends_test.rs"]
mod tests;
