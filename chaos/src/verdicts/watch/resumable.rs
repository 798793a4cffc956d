//! A watch that broke goes on exactly where it was.

use super::super::{Findings, Promise};
use crate::evidence::{Evidence, WatchItem};

pub(in crate::verdicts) const PROMISE: Promise = Promise {
    name: "watch: resumable",
    promise: "after a break a watch goes on after the revision it was resumed from, and never \
              with something older",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for log in &evidence.watches {
        let mut resumed = None;
        for item in &log.items {
            match item {
                WatchItem::Resumed(after) => resumed = Some(*after),
                WatchItem::Change { revision, key, .. } => {
                    let Some(after) = resumed else { continue };
                    findings.expect(*revision > after, || {
                        format!(
                            "{}: resumed after revision {after}, and {key} at revision \
                             {revision} came",
                            log.name
                        )
                    });
                }
                WatchItem::Bookmark(revision) => {
                    let Some(after) = resumed else { continue };
                    findings.expect(*revision >= after, || {
                        format!(
                            "{}: resumed after revision {after}, and a bookmark said {revision}",
                            log.name
                        )
                    });
                }
            }
        }
    }
    findings
}
