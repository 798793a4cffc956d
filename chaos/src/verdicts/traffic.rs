//! Services serve while masters suffer.

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "services serve without masters",
    promise: "while only masters suffer, no request to a service fails",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for window in &evidence.traffic {
        if !findings.judges(window.late_ms) {
            continue;
        }
        findings.checked += usize::try_from(window.sent).unwrap_or(usize::MAX);
        if window.failed > 0 {
            findings.violation(format!(
                "{} of {} requests failed during: {}; {}",
                window.failed,
                window.sent,
                window.faults,
                window.messages.join("; ")
            ));
        }
    }
    findings
}

#[cfg(test)]
#[path = "traffic_test.rs"]
mod tests;
