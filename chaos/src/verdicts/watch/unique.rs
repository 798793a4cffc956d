//! No event comes twice.

use std::collections::BTreeSet;

use super::super::{Findings, Promise};
use crate::evidence::Evidence;

pub(in crate::verdicts) const PROMISE: Promise =
    Promise { name: "watch: unique", promise: "no event comes twice on one watch", judge };

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for log in &evidence.watches {
        let mut seen = BTreeSet::new();
        for (revision, key, _) in log.changes() {
            findings.expect(seen.insert((revision, key)), || {
                format!("{}: {key} at revision {revision} came twice", log.name)
            });
        }
    }
    findings
}
