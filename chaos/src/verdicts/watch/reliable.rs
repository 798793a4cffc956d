//! No event is missed, and all watchers are told the same.

use std::collections::BTreeMap;

use super::super::{Findings, Promise};
use crate::evidence::Evidence;

pub(in crate::verdicts) const PROMISE: Promise = Promise {
    name: "watch: reliable",
    promise: "every acknowledged write comes to every watch of its key, with its value, and a \
              watch that has seen an event is not contradicted by another",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut truth: BTreeMap<(u64, &str), Option<u64>> = BTreeMap::new();
    for write in &evidence.writes.acknowledged {
        truth.insert((write.revision, write.key.as_str()), write.value);
    }
    // What one watcher saw happened, also when the writer never got its answer.
    for log in &evidence.watches {
        for (revision, key, value) in log.changes() {
            let known = *truth.entry((revision, key)).or_insert(value);
            findings.expect(known == value, || {
                format!(
                    "{}: {key} became {value:?} at revision {revision}, and {known:?} elsewhere",
                    log.name
                )
            });
        }
    }
    for log in &evidence.watches {
        let seen: BTreeMap<(u64, &str), Option<u64>> =
            log.changes().map(|(revision, key, value)| ((revision, key), value)).collect();
        let complete = log.complete();
        for ((revision, key), value) in truth.range((log.from + 1, "")..) {
            if *revision > complete {
                break;
            }
            if !key.starts_with(&log.prefix) {
                continue;
            }
            findings.expect(seen.contains_key(&(*revision, *key)), || {
                format!(
                    "{}: {key} became {value:?} at revision {revision}, and the watch, complete \
                     up to {complete}, did not say so",
                    log.name
                )
            });
        }
    }
    findings
}
