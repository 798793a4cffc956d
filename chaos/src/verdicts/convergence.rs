//! Without faults, everything converges in bounded time.

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "bounded convergence",
    promise: "once every fault is removed, the cluster reaches what was asked of it in time",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for goal in &evidence.convergence {
        let in_time = goal.took_ms.is_some_and(|took| took <= goal.limit_ms);
        findings.expect(in_time, || {
            let took = goal.took_ms.map_or("never".to_owned(), |took| format!("{took} ms"));
            format!("{}: {took}, limit {} ms; {}", goal.what, goal.limit_ms, goal.missing)
        });
    }
    findings
}

#[cfg(test)]
#[path = "convergence_test.rs"]
mod tests;
