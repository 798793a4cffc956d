//! No container is started, stopped or replaced because a master died, an agent was restarted, or
//! Docker hung.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "no container notices a master's death",
    promise: "while only masters suffer, or agents and Docker daemons that keep their containers, \
              those that nobody changes keep their ids and their start times",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for window in &evidence.steady {
        if !findings.judges(window.late_ms) {
            continue;
        }
        let after: BTreeMap<&str, _> =
            window.after.iter().map(|container| (container.id.as_str(), container)).collect();
        // One that has ended is waiting to be removed.
        for before in window.before.iter().filter(|container| container.running) {
            let problem = match after.get(before.id.as_str()) {
                None => Some("is gone"),
                Some(now) if !now.running => Some("has stopped"),
                Some(now) if now.started_at != before.started_at => Some("was restarted"),
                Some(_) => None,
            };
            findings.expect(problem.is_none(), || {
                format!(
                    "{}/{} on {} {} during: {}",
                    before.pod,
                    before.name,
                    before.node,
                    problem.unwrap_or_default(),
                    window.faults
                )
            });
        }
    }
    findings
}

#[cfg(test)]
#[path = "restarts_test.rs"]
mod tests;
