//! A revision is never split.

use std::collections::BTreeMap;

use super::super::{Findings, Promise};
use crate::evidence::{Evidence, WatchItem};

pub(in crate::verdicts) const PROMISE: Promise = Promise {
    name: "watch: atomic",
    promise: "all events of one revision come together: nothing of another revision, and no \
              bookmark, comes between them",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for log in &evidence.watches {
        // Revision to the number of the group of neighbours it was seen in.
        let mut groups: BTreeMap<u64, usize> = BTreeMap::new();
        let mut group = 0;
        let mut last = None;
        for item in &log.items {
            let WatchItem::Change { revision, key, .. } = item else {
                // Between a break and the rest of a revision nothing was promised to be seen.
                if matches!(item, WatchItem::Bookmark(_)) {
                    last = None;
                }
                continue;
            };
            if last != Some(*revision) {
                group += 1;
                last = Some(*revision);
            }
            let first = *groups.entry(*revision).or_insert(group);
            findings.expect(first == group, || {
                format!("{}: {key} came apart from the rest of revision {revision}", log.name)
            });
        }
    }
    findings
}
