//! Terms and revisions never go back.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::{Evidence, MasterSighting};

pub(super) const PROMISE: Promise = Promise {
    name: "nothing goes back",
    promise: "a master's term never goes back, not even by a restart, and its applied revision \
              never does while it runs",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut last: BTreeMap<&str, &MasterSighting> = BTreeMap::new();
    for now in &evidence.masters {
        let Some(before) = last.insert(&now.master, now) else { continue };
        findings.expect(now.term >= before.term, || {
            format!("{}: from term {} back to {}", now.master, before.term, now.term)
        });
        let same_life = now.pid == before.pid;
        findings.expect(!same_life || now.revision >= before.revision, || {
            format!("{}: from revision {} back to {}", now.master, before.revision, now.revision)
        });
    }
    findings
}

#[cfg(test)]
#[path = "progress_test.rs"]
mod tests;
