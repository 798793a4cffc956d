//! What was acknowledged is there in the end, unless something later replaced it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Promise};
use crate::evidence::{Evidence, Write};

pub(super) const PROMISE: Promise = Promise {
    name: "no lost acknowledged write",
    promise: "after every fault, the newest acknowledged write of each key is there, at the \
              revision that the answer said, or a later write of that key is",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let writes = &evidence.writes;
    let Some(kept) = &writes.kept else { return findings };
    let open: BTreeSet<(&str, Option<u64>)> =
        writes.unknown.iter().map(|write| (write.key.as_str(), write.value)).collect();
    let mut newest: BTreeMap<&str, &Write> = BTreeMap::new();
    for write in &writes.acknowledged {
        let entry = newest.entry(&write.key).or_insert(write);
        if write.revision > entry.revision {
            *entry = write;
        }
    }
    for (key, write) in newest {
        findings.look();
        match (kept.get(key), write.value) {
            (None, None) => {}
            // A deletion whose answer was lost.
            (None, Some(_)) if open.contains(&(key, None)) => {}
            (None, Some(value)) => findings.violation(format!(
                "{key}: value {value} was acknowledged at revision {} and is gone",
                write.revision
            )),
            (Some((value, revision)), acknowledged) => {
                let same = acknowledged == Some(*value) && *revision == write.revision;
                let later = *revision > write.revision && open.contains(&(key, Some(*value)));
                if !same && !later {
                    findings.violation(format!(
                        "{key}: {acknowledged:?} was acknowledged at revision {}, and {value} at \
                         revision {revision} is there",
                        write.revision
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
#[path = "acknowledged_test.rs"]
mod tests;
