//! All that a run has seen, in one value: what the verdicts judge, and what is kept for replay.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{Nanos, Operation};
use crate::linear::{
    ListInput, ListOutput, RegisterInput, RegisterOutput, SetInput, SetOutput, TransactionInput,
    TransactionOutput,
};

/// Evidence of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Calls on registers.
    pub registers: Vec<Operation<RegisterInput, RegisterOutput>>,
    /// Calls on groups of keys.
    pub transactions: Vec<Operation<TransactionInput, TransactionOutput>>,
    /// Calls on sets.
    pub sets: Vec<Operation<SetInput, SetOutput>>,
    /// Calls on lists.
    pub lists: Vec<Operation<ListInput, ListOutput>>,
    /// Writes of single keys by what was answered.
    pub writes: Writes,
    /// What watchers saw.
    pub watches: Vec<WatchLog>,
    /// Contents of all members, each at one revision.
    pub members: Vec<MemberContents>,
    /// What masters said of themselves, in order of time.
    pub masters: Vec<MasterSighting>,
    /// Writes of leader work that masters applied.
    pub fenced: Vec<FencedWrite>,
    /// Pods, in order of revision.
    pub pods: Vec<PodSighting>,
    /// What nodes offer to pods.
    pub nodes: BTreeMap<String, Resources>,
    /// Containers, sampled over time.
    pub containers: Vec<ContainerSample>,
    /// Pods (by uid) that exist in the end, after everything has settled.
    pub final_pods: Option<Vec<String>>,
    /// Containers in the end, after everything has settled.
    pub final_containers: Vec<Container>,
    /// Containers before and after faults that masters alone suffered.
    pub steady: Vec<SteadyWindow>,
    /// Service traffic during faults that masters alone suffered.
    #[serde(default)]
    pub traffic: Vec<TrafficWindow>,
    /// Processes that did not run after a step that gave them no reason to end.
    #[serde(default)]
    pub ends: Vec<StepEnds>,
    /// Terms around steps that gave no reason for an election.
    #[serde(default)]
    pub quiet: Vec<QuietStep>,
    /// Who held locks.
    #[serde(default)]
    pub held: Vec<Held>,
    /// What was written under locks.
    #[serde(default)]
    pub guarded: Vec<Guarded>,
    /// Jobs that are complete.
    #[serde(default)]
    pub jobs: Vec<JobCount>,
    /// What a CronJob has run that is due every minute.
    #[serde(default)]
    pub cron: Option<CronRuns>,
    /// What had to come about after the last fault was removed.
    pub convergence: Vec<Convergence>,
}

/// Writes by what the client was told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Writes {
    /// Acknowledged.
    pub acknowledged: Vec<Write>,
    /// Nobody knows; the revision is 0.
    pub unknown: Vec<Write>,
    /// Definitely refused; the revision is 0.
    pub refused: Vec<Write>,
    /// What a linearizable read showed in the end: key to value and revision.
    pub kept: Option<BTreeMap<String, (u64, u64)>>,
}

/// One write of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Which key.
    pub key: String,
    /// Its new value, unique; `None`: it was deleted.
    pub value: Option<u64>,
    /// The revision that the answer carried.
    pub revision: u64,
}

/// What one watcher saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchLog {
    /// Who watched.
    pub name: String,
    /// Keys with this prefix.
    pub prefix: String,
    /// Changes strictly after this revision.
    pub from: u64,
    /// In order.
    pub items: Vec<WatchItem>,
}

/// Something that a watcher saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchItem {
    /// A change.
    Change {
        /// Revision of the change.
        revision: u64,
        /// Which key.
        key: String,
        /// Its new value; `None`: it was deleted.
        value: Option<u64>,
        /// What the event said the key held before, when it said so: `Some(None)` is "nothing".
        previous: Option<Option<u64>>,
    },
    /// Everything up to here has come.
    Bookmark(u64),
    /// The stream broke, and went on with what comes after this revision.
    Resumed(u64),
}

impl WatchLog {
    /// Everything up to here must have come: the last bookmark, or all before the last event.
    #[must_use]
    pub fn complete(&self) -> u64 {
        let reached = self.items.iter().map(|item| match item {
            WatchItem::Change { revision, .. } => revision.saturating_sub(1),
            WatchItem::Bookmark(revision) => *revision,
            WatchItem::Resumed(_) => 0,
        });
        reached.max().unwrap_or(self.from)
    }

    /// Revision, key and value of all changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = (u64, &str, Option<u64>)> {
        self.items.iter().filter_map(|item| match item {
            WatchItem::Change { revision, key, value, .. } => {
                Some((*revision, key.as_str(), *value))
            }
            _ => None,
        })
    }
}

/// Contents of one member, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberContents {
    /// Which member.
    pub member: String,
    /// Which part, for instance a kind of objects.
    pub part: String,
    /// At which revision.
    pub revision: u64,
    /// Key to a digest of its value and revisions.
    pub contents: BTreeMap<String, String>,
}

/// What a master said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterSighting {
    /// When.
    pub at: Nanos,
    /// Which master.
    pub master: String,
    /// Process id: a new one is a new life.
    pub pid: u32,
    /// The newest term it knew.
    pub term: u64,
    /// Did it call itself the leader?
    pub leads: bool,
    /// The revision it had applied.
    pub revision: u64,
}

/// A write of leader work that a master applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedWrite {
    /// Which master applied it.
    pub master: String,
    /// The term whose leader decided it.
    pub decided_in: u64,
    /// The term of the log entry that carried it.
    pub committed_in: u64,
    /// Index of that entry.
    pub index: u64,
    /// Did it have an effect?
    pub effective: bool,
}

/// Processor and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Number of pods.
    pub pods: u64,
}

/// A pod at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSighting {
    /// Revision of the change.
    pub revision: u64,
    /// The pod's identity.
    pub uid: String,
    /// `namespace/name`
    pub name: String,
    /// The node it is bound to.
    pub node: Option<String>,
    /// What it asks for.
    pub requests: Resources,
    /// Is it over (Succeeded or Failed)?
    pub finished: bool,
    /// Is the object gone?
    pub gone: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The node that runs it.
    pub node: String,
    /// Identity of its pod.
    pub pod_uid: String,
    /// `namespace/name` of its pod.
    pub pod: String,
    /// Name within the pod; empty for the sandbox.
    pub name: String,
    /// When it started last.
    pub started_at: String,
    /// Is it running?
    pub running: bool,
    /// Must this pod's name be unique among what runs (StatefulSet)?
    pub stateful: bool,
}

/// All containers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSample {
    /// When.
    pub at: Nanos,
    /// What was there.
    pub containers: Vec<Container>,
}

/// A time in which only masters suffered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteadyWindow {
    /// The faults.
    pub faults: String,
    /// Containers that nobody had a reason to touch, before.
    pub before: Vec<Container>,
    /// And after.
    pub after: Vec<Container>,
    /// How late a sleeper was woken in this step or the one before, in milliseconds.
    #[serde(default)]
    pub late_ms: u64,
}

/// Requests to a service in a time in which only masters suffered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficWindow {
    /// The faults.
    pub faults: String,
    /// Requests that have ended.
    pub sent: u64,
    /// Those without a right answer.
    pub failed: u64,
    /// What went wrong, of the first.
    pub messages: Vec<String>,
    /// How late a sleeper was woken in this step or the one before, in milliseconds.
    #[serde(default)]
    pub late_ms: u64,
}

/// Who had ended by itself after a step in which no disk failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEnds {
    /// The faults.
    pub faults: String,
    /// The processes.
    pub ended: Vec<String>,
}

/// The newest term before and after a step that gave no reason for an election.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietStep {
    /// The faults.
    pub faults: String,
    /// Before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// How late a sleeper was woken in this step or the one before, in milliseconds.
    #[serde(default)]
    pub late_ms: u64,
}

/// Somebody held a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which lock.
    pub lock: String,
    /// The revision at which it was taken.
    pub token: u64,
    /// When the answer came that said so.
    pub taken_at: Nanos,
    /// When the last renewal was sent that was acknowledged.
    pub renewed_at: Nanos,
    /// How long the lease lives after that, in milliseconds.
    pub ttl_ms: u64,
    /// Did the holder give it back?
    pub given_up: bool,
}

/// A write that was acknowledged under a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// Which lock.
    pub lock: String,
    /// The holder's token.
    pub token: u64,
    /// Revision of the write.
    pub revision: u64,
}

/// What a complete Job says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCount {
    /// Its name.
    pub name: String,
    /// Completions that were asked for.
    pub wanted: u64,
    /// Completions that its status counts.
    pub counted: u64,
    /// Pods of it that have succeeded and are still there.
    pub succeeded: u64,
}

/// Runs of a CronJob that is due every minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronRuns {
    /// When it was made.
    pub from: Nanos,
    /// When its runs were counted.
    pub until: Nanos,
    /// How often a clock was turned in between (and turned back).
    pub turns: u64,
    /// The times for which it ran, by whatever clock.
    pub scheduled: Vec<String>,
}

/// Something that had to come about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Convergence {
    /// What.
    pub what: String,
    /// Milliseconds it took; `None`: it did not come about.
    pub took_ms: Option<u64>,
    /// Milliseconds it may take.
    pub limit_ms: u64,
    /// What was missing at last.
    pub missing: String,
}
