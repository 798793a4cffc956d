//! Previous values are the values before.

use std::collections::BTreeMap;

use super::super::{Findings, Promise};
use crate::evidence::{Evidence, WatchItem};

pub(in crate::verdicts) const PROMISE: Promise = Promise {
    name: "watch: previous values",
    promise: "the previous value of an event is what the event before it left",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for log in &evidence.watches {
        let mut values: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        for item in &log.items {
            let WatchItem::Change { revision, key, value, previous } = item else { continue };
            let before = values.insert(key, *value);
            // Before the first event of a key the watch does not know what it held.
            let (Some(previous), Some(before)) = (previous, before) else { continue };
            findings.expect(*previous == before, || {
                format!(
                    "{}: {key} at revision {revision} said {previous:?} was there before, and it \
                     was {before:?}",
                    log.name
                )
            });
        }
    }
    findings
}
