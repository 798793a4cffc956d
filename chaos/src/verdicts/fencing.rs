//! A deposed leader's decisions have no effect.

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "deposed leaders decide nothing",
    promise: "no write that leader work decided in one term has an effect in a later term",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    // Only decisions that came too late prove anything; the others may well have an effect.
    for write in evidence.fenced.iter().filter(|write| write.decided_in < write.committed_in) {
        findings.expect(!write.effective, || {
            format!(
                "{}: the entry {} of term {} carried a decision of term {}, and it had an effect",
                write.master, write.index, write.committed_in, write.decided_in
            )
        });
    }
    findings
}

#[cfg(test)]
#[path = "fencing_test.rs"]
mod tests;
