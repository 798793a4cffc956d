//! [`Explainer`]: why pods are where they are, or nowhere. Keeps the last decisions in memory and
//! asks the running scheduler for others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use quorate_store::Term;
use tokio::sync::{mpsc, oneshot};

use crate::decide::{Decision, Outcome};
use crate::snapshot::PodKey;

/// Pods of which the last decision is kept.
const KEPT: usize = 4_096;
/// What has happened to a pod: the last so many things.
const HISTORY: usize = 16;
/// Requests that may wait for the scheduler.
const WAITING: usize = 64;

/// One thing that happened to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When, for the first time …
    pub first: Timestamp,
    /// … and for the last time.
    pub last: Timestamp,
    /// How often in a row.
    pub count: u32,
    /// What, in words.
    pub what: String,
}

/// Why a pod is where it is, or nowhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The pod.
    pub key: PodKey,
    /// The decision.
    pub decision: Decision,
    /// When the decision was made; `None`: just now, because the record of it is gone.
    pub decided_at: Option<Timestamp>,
    /// The term of the leader that explains.
    pub term: Term,
    /// What has happened to the pod, the oldest first.
    pub history: Vec<Happening>,
}

/// Why there is no explanation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The scheduler runs on another master.
    #[error("no scheduler runs on this master, ask the leader")]
    NotRunning,
    /// The pod is not known.
    #[error("pods \"{0}\" not found")]
    NotFound(String),
    /// Another scheduler takes care of the pod.
    #[error("pod \"{pod}\" is scheduled by {scheduler}, and not by this scheduler")]
    NotOurs {
        /// The pod.
        pod: String,
        /// What does.
        scheduler: String,
    },
}

/// A question to the running scheduler.
pub(crate) struct Question {
    pub namespace: String,
    pub name: String,
    pub answer: oneshot::Sender<Result<(PodKey, Decision), ExplainError>>,
}

#[derive(Default)]
struct Record {
    key: PodKey,
    decision: Option<(Timestamp, Decision)>,
    history: VecDeque<Happening>,
    /// Where it is in `Inner::order`.
    order: u64,
}

#[derive(Default)]
struct Inner {
    running: Option<(Term, mpsc::Sender<Question>)>,
    records: HashMap<(String, String), Record>,
    /// The pods that were written about, the longest ago first.
    order: BTreeMap<u64, (String, String)>,
    sequence: u64,
}

/// Shared by the scheduler of each term, which writes, and the API, which reads. Cheap to clone.
#[derive(Clone, Default)]
pub struct Explainer {
    inner: Arc<Mutex<Inner>>,
}

impl std::fmt::Debug for Explainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Explainer").finish_non_exhaustive()
    }
}

impl Explainer {
    /// Explains a pod.
    ///
    /// # Errors
    /// [`ExplainError`]
    pub async fn explain(&self, namespace: &str, name: &str) -> Result<Explanation, ExplainError> {
        let (term, ask, history) = {
            let inner = self.inner.lock();
            let (term, ask) = inner.running.clone().ok_or(ExplainError::NotRunning)?;
            let record = inner.records.get(&(namespace.to_owned(), name.to_owned()));
            let history: Vec<_> = record.iter().flat_map(|r| r.history.iter().cloned()).collect();
            if let Some(record) = record
                && let Some((at, decision)) = &record.decision
            {
                return Ok(Explanation {
                    key: record.key.clone(),
                    decision: decision.clone(),
                    decided_at: Some(*at),
                    term,
                    history,
                });
            }
            (term, ask, history)
        };
        let (answer, answered) = oneshot::channel();
        let question = Question { namespace: namespace.into(), name: name.into(), answer };
        ask.send(question).await.map_err(|_| ExplainError::NotRunning)?;
        let (key, decision) = answered.await.map_err(|_| ExplainError::NotRunning)??;
        Ok(Explanation { key, decision, decided_at: None, term, history })
    }

    /// A scheduler begins in `term`: what an earlier one has decided is forgotten.
    pub(crate) fn begin(&self, term: Term) -> mpsc::Receiver<Question> {
        let (ask, questions) = mpsc::channel(WAITING);
        *self.inner.lock() = Inner { running: Some((term, ask)), ..Inner::default() };
        questions
    }

    /// The scheduler of `term` has ended.
    pub(crate) fn end(&self, term: Term) {
        let mut inner = self.inner.lock();
        if inner.running.as_ref().is_some_and(|(running, _)| *running == term) {
            *inner = Inner::default();
        }
    }

    /// Keeps decisions.
    pub(crate) fn decided(&self, decisions: Vec<(PodKey, Decision)>) {
        let now = quorate_objects::time::timestamp();
        let mut inner = self.inner.lock();
        for (key, decision) in decisions {
            let what = in_words(&decision);
            let record = inner.record(&key);
            record.decision = Some((now, decision));
            note(&mut record.history, now, what);
        }
    }

    /// Something has happened to a pod.
    pub(crate) fn happened(&self, key: &PodKey, what: String) {
        let mut inner = self.inner.lock();
        note(&mut inner.record(key).history, quorate_objects::time::timestamp(), what);
    }
}

impl Inner {
    fn record(&mut self, key: &PodKey) -> &mut Record {
        let at = (key.namespace.clone(), key.name.clone());
        self.sequence += 1;
        let order = self.sequence;
        self.order.insert(order, at.clone());
        if self.records.len() >= KEPT
            && !self.records.contains_key(&at)
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.records.remove(&oldest);
        }
        let record = self.records.entry(at).or_default();
        self.order.remove(&std::mem::replace(&mut record.order, order));
        if record.key != *key {
            // A later pod of the same name; what happened to the earlier one may be the reason.
            record.key = key.clone();
            record.decision = None;
        }
        record
    }
}

fn note(history: &mut VecDeque<Happening>, now: Timestamp, what: String) {
    if let Some(last) = history.back_mut().filter(|last| last.what == what) {
        last.last = now;
        last.count = last.count.saturating_add(1);
        return;
    }
    if history.len() >= HISTORY {
        history.pop_front();
    }
    history.push_back(Happening { first: now, last: now, count: 1, what });
}

fn in_words(decision: &Decision) -> String {
    match (&decision.outcome, &decision.preemption) {
        (Outcome::Node(node), _) => format!("assigned to {node}"),
        (Outcome::Unschedulable(why), None) => format!("unschedulable: {why}"),
        (Outcome::Unschedulable(why), Some(preemption)) => {
            let victims: Vec<String> =
                preemption.victims.iter().map(|v| format!("{}/{}", v.namespace, v.name)).collect();
            let who = match victims.len() {
                0 => "pods that leave already".to_owned(),
                _ => victims.join(", "),
            };
            format!("waits for {who} to leave {}: {why}", preemption.node)
        }
    }
}

#[cfg(test)]
#[path = "trace_test.rs"]
mod tests;
