//! A lock has one holder at a time, and a lease lives as long as it was promised.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::{Evidence, Held};

pub(super) const FENCED: Promise = Promise {
    name: "locks are fenced",
    promise: "nobody writes under a lock after somebody else has taken it",
    judge: fenced,
};

pub(super) const LEASES: Promise = Promise {
    name: "leases live their time",
    promise: "a lock whose holder has neither given it up nor lost its lease is taken by nobody \
              else before the time since the last acknowledged renewal is over",
    judge: lived,
};

/// Holders of each lock, in order.
fn holders(evidence: &Evidence) -> BTreeMap<&str, Vec<&Held>> {
    let mut holders: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for held in &evidence.held {
        holders.entry(&held.lock).or_default().push(held);
    }
    holders.values_mut().for_each(|held| held.sort_by_key(|held| held.token));
    holders
}

fn fenced(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let holders = holders(evidence);
    for write in &evidence.guarded {
        let later = holders.get(write.lock.as_str()).into_iter().flatten();
        let next = later.map(|held| held.token).find(|token| *token > write.token);
        let in_time = next.is_none_or(|next| write.revision < next);
        findings.expect(in_time && write.revision > write.token, || {
            format!(
                "{}: the holder of token {} wrote at revision {}, after the lock was taken at {:?}",
                write.lock, write.token, write.revision, next
            )
        });
    }
    findings
}

fn lived(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for (lock, held) in holders(evidence) {
        for pair in held.windows(2) {
            let [one, next] = pair else { continue };
            if one.given_up {
                continue;
            }
            let until = one.renewed_at + one.ttl_ms * 1_000_000;
            findings.expect(next.taken_at >= until, || {
                format!(
                    "{lock}: the lease behind token {} had {} ms left when token {} was given out",
                    one.token,
                    (until - next.taken_at) / 1_000_000,
                    next.token
                )
            });
        }
    }
    findings
}

#[cfg(test)]
#[path = "locks_test.rs"]
mod tests;
