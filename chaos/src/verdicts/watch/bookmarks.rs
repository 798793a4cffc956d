//! A bookmark is never ahead of events.

use super::super::{Findings, Promise};
use crate::evidence::{Evidence, WatchItem};

pub(in crate::verdicts) const PROMISE: Promise = Promise {
    name: "watch: bookmarks",
    promise: "after a bookmark nothing comes that it has said to be complete",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for log in &evidence.watches {
        let mut complete = 0;
        for item in &log.items {
            match item {
                WatchItem::Bookmark(revision) => {
                    findings.look();
                    complete = complete.max(*revision);
                }
                WatchItem::Change { revision, key, .. } if *revision <= complete => {
                    findings.violation(format!(
                        "{}: {key} at revision {revision} came after the bookmark {complete}",
                        log.name
                    ));
                }
                _ => {}
            }
        }
    }
    findings
}
