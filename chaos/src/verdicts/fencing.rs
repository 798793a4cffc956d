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
    for write in &evidence.fenced {
        let stale = write.decided_in < write.committed_in;
        findings.expect(!(stale && write.effective), || {
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
