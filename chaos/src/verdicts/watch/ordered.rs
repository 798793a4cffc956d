//! Events come in the order of revisions.

use super::super::{Findings, Promise};
use crate::evidence::Evidence;

pub(in crate::verdicts) const PROMISE: Promise = Promise {
    name: "watch: ordered",
    promise: "events of a watch come in the order of their revisions",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for log in &evidence.watches {
        let mut last = log.from;
        for (revision, key, _) in log.changes() {
            findings.expect(revision >= last && revision > log.from, || {
                format!("{}: {key} at revision {revision} after revision {last}", log.name)
            });
            last = last.max(revision);
        }
    }
    findings
}
