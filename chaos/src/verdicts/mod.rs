//! One file per promise. Each looks at the [`Evidence`] of a run and says whether the promise
//! was kept; each has a test with a history that breaks it.

mod acknowledged;
mod convergence;
mod cron;
mod elections;
mod ends;
mod fencing;
mod identity;
mod jobs;
mod linearizable;
mod locks;
mod members;
mod one_leader;
mod one_node;
mod orphans;
mod overcommit;
mod progress;
mod refused;
mod restarts;
mod traffic;
mod watch;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::linear::Budget;

/// Most violations of one promise that are spelled out.
const SHOWN: usize = 20;

/// A machine that wakes a sleeper this late, in milliseconds, may do the same to masters and agents,
/// whose time-outs are not much longer: what comes of it is no fault of theirs.
pub(crate) const STALL_MS: u64 = 300;

/// What became of a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Everything that was looked at agrees.
    Kept,
    /// Broken, and how.
    Violated(Vec<String>),
    /// The search ran out of time or memory.
    NotDecided(Vec<String>),
    /// The run has no evidence for or against it.
    NotChecked,
}

/// A promise with what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Short name.
    pub name: String,
    /// The promise, in one sentence.
    pub promise: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How many things were looked at.
    pub checked: usize,
    /// In which steps; `None` when it is not judged step by step.
    #[serde(default)]
    pub steps: Option<Steps>,
}

/// How many steps were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Steps {
    /// Judged.
    pub judged: usize,
    /// Left out, because the machine stood still.
    pub stalled: usize,
}

impl Verdict {
    /// What was looked at, in words.
    #[must_use]
    pub fn extent(&self) -> String {
        let checked = self.checked;
        match self.steps {
            None => format!("{checked} checked"),
            Some(Steps { judged, stalled: 0 }) => format!("{checked} checked in {judged} steps"),
            Some(Steps { judged, stalled }) => format!(
                "{checked} checked in {judged} steps; {stalled} not judged: the machine stood still"
            ),
        }
    }

    /// Adds the verdict on the same promise in a later window: the worst outcome stays.
    pub fn add(&mut self, later: Self, window: usize) {
        use Outcome::{Kept, NotChecked, NotDecided, Violated};
        let named = |texts: Vec<String>| -> Vec<String> {
            texts.into_iter().map(|text| format!("window {window}: {text}")).collect()
        };
        self.checked += later.checked;
        if let Some(later) = later.steps {
            let steps = self.steps.get_or_insert_default();
            steps.judged += later.judged;
            steps.stalled += later.stalled;
        }
        let sum = match (std::mem::replace(&mut self.outcome, NotChecked), later.outcome) {
            (Violated(texts), Violated(more)) => Violated([texts, named(more)].concat()),
            (Violated(texts), _) => Violated(texts),
            (_, Violated(more)) => Violated(named(more)),
            (NotDecided(texts), NotDecided(more)) => NotDecided([texts, named(more)].concat()),
            (NotDecided(texts), _) => NotDecided(texts),
            (_, NotDecided(more)) => NotDecided(named(more)),
            (NotChecked, NotChecked) => NotChecked,
            _ => Kept,
        };
        self.outcome = sum;
    }
}

/// What one file of this module returns.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    checked: usize,
    violations: Vec<String>,
    not_decided: Vec<String>,
    steps: Option<Steps>,
}

impl Findings {
    fn look(&mut self) {
        self.checked += 1;
    }

    /// Is a step judged in which a sleeper was woken so late?
    fn judges(&mut self, late_ms: u64) -> bool {
        let steps = self.steps.get_or_insert_default();
        let judges = late_ms < STALL_MS;
        let count = if judges { &mut steps.judged } else { &mut steps.stalled };
        *count += 1;
        judges
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Looks at one thing, which is a violation unless `kept`.
    fn expect(&mut self, kept: bool, text: impl FnOnce() -> String) {
        self.look();
        if !kept {
            self.violation(text());
        }
    }
}

/// A promise and its judge.
struct Promise {
    name: &'static str,
    promise: &'static str,
    judge: fn(&Evidence) -> Findings,
}

const PROMISES: &[Promise] = &[
    linearizable::REGISTERS,
    linearizable::TRANSACTIONS,
    linearizable::SETS,
    linearizable::LISTS,
    acknowledged::PROMISE,
    refused::PROMISE,
    watch::ordered::PROMISE,
    watch::unique::PROMISE,
    watch::reliable::PROMISE,
    watch::atomic::PROMISE,
    watch::resumable::PROMISE,
    watch::bookmarks::PROMISE,
    watch::previous::PROMISE,
    members::PROMISE,
    one_leader::PROMISE,
    elections::PROMISE,
    progress::PROMISE,
    fencing::PROMISE,
    locks::FENCED,
    locks::LEASES,
    one_node::PROMISE,
    overcommit::PROMISE,
    identity::PROMISE,
    jobs::PROMISE,
    cron::PROMISE,
    restarts::PROMISE,
    traffic::PROMISE,
    orphans::PROMISE,
    ends::PROMISE,
    convergence::PROMISE,
];

/// Judges every promise.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<Verdict> {
    PROMISES.iter().map(|promise| verdict(promise, (promise.judge)(evidence))).collect()
}

/// Was any promise broken?
#[must_use]
pub fn any_violation(verdicts: &[Verdict]) -> bool {
    verdicts.iter().any(|verdict| matches!(verdict.outcome, Outcome::Violated(_)))
}

fn verdict(promise: &Promise, findings: Findings) -> Verdict {
    let outcome = if !findings.violations.is_empty() {
        Outcome::Violated(shortened(findings.violations))
    } else if !findings.not_decided.is_empty() {
        Outcome::NotDecided(shortened(findings.not_decided))
    } else if findings.checked == 0 {
        Outcome::NotChecked
    } else {
        Outcome::Kept
    };
    Verdict {
        name: promise.name.to_owned(),
        promise: promise.promise.to_owned(),
        outcome,
        checked: findings.checked,
        steps: findings.steps,
    }
}

fn shortened(mut texts: Vec<String>) -> Vec<String> {
    let total = texts.len();
    if total > SHOWN {
        texts.truncate(SHOWN);
        texts.push(format!("… and {} more", total - SHOWN));
    }
    texts
}

fn budget() -> Budget {
    Budget::default()
}

#[cfg(test)]
fn violations(promise: &Promise, evidence: &Evidence) -> Vec<String> {
    (promise.judge)(evidence).violations
}

#[cfg(test)]
#[path = "verdicts_test.rs"]
mod tests;
