//! All members hold the same at the same revision.

use std::collections::BTreeMap;

use super::{Findings, Promise};
use crate::evidence::{Evidence, MemberContents};

pub(super) const PROMISE: Promise = Promise {
    name: "members agree",
    promise: "members at the same revision hold the same keys with the same values and revisions",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let mut first: BTreeMap<(u64, &str), &MemberContents> = BTreeMap::new();
    for member in &evidence.members {
        let reference = *first.entry((member.revision, &member.part)).or_insert(member);
        if reference.member == member.member {
            continue;
        }
        findings.expect(reference.contents == member.contents, || differences(reference, member));
    }
    findings
}

fn differences(one: &MemberContents, other: &MemberContents) -> String {
    let keys = one.contents.keys().chain(other.contents.keys());
    let mut different: Vec<&String> =
        keys.filter(|key| one.contents.get(*key) != other.contents.get(*key)).collect();
    different.sort();
    different.dedup();
    let shown: Vec<String> = different
        .iter()
        .take(3)
        .map(|key| {
            format!("{key} ({:?} and {:?})", one.contents.get(*key), other.contents.get(*key))
        })
        .collect();
    format!(
        "{} and {} differ in {:?} at revision {} in {} keys: {}",
        one.member,
        other.member,
        one.part,
        one.revision,
        different.len(),
        shown.join(", ")
    )
}

#[cfg(test)]
#[path = "members_test.rs"]
mod tests;
