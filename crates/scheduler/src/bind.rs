//! Commits decisions: bindings, and what is said about pods that fit nowhere.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use quorate_objects::{Typed as _, pod};
use quorate_registry::{Code, EventRecord, EventType, Registry, RegistryError, Write};
use quorate_store::Term;

use crate::decide::Outcome;
use crate::snapshot::PodKey;

const COMPONENT: &str = "default-scheduler";

/// A decision to be committed.
pub(crate) struct Attempt {
    pub key: PodKey,
    pub pod: Arc<Pod>,
    pub revision: u64,
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is bound.
    Bound,
    /// It fits nowhere, and says so.
    Nowhere,
    /// Somebody changed it meanwhile, or the store refused for a while.
    Conflict,
    /// It does not exist any more.
    Gone,
    /// Nobody knows what came of it.
    Unknown,
    /// The store is in a newer term.
    Fenced,
}

/// Does the error say that the writer's term is over?
#[must_use]
pub fn is_fenced(error: &RegistryError) -> bool {
    // The registry has no kind of its own for the store's refusal of an old fence.
    matches!(error, RegistryError::Forbidden(text) if text.contains("the writer's term is over"))
}

/// Commits a batch. One entry per attempt, in no particular order.
pub(crate) async fn commit(
    registry: Registry,
    term: Term,
    attempts: Vec<Attempt>,
) -> Vec<(PodKey, Verdict)> {
    let mut verdicts = Vec::new();
    let mut writes = Vec::new();
    let mut written = Vec::new();
    for attempt in attempts {
        match write(&attempt) {
            Some(write) => {
                writes.push(write);
                written.push(attempt);
            }
            None => verdicts.push((attempt.key, Verdict::Nowhere)),
        }
    }
    let results = registry.write_batch(writes, Some(term)).await;
    for (attempt, result) in written.into_iter().zip(results) {
        let verdict = verdict(&attempt.outcome, result.err().as_ref());
        if let Some(event) = event(&attempt, verdict, term) {
            registry.events().record(event);
        }
        verdicts.push((attempt.key, verdict));
    }
    verdicts
}

/// The write of a decision; `None` when the pod says already what is to be said.
fn write(attempt: &Attempt) -> Option<Write> {
    let PodKey { namespace, name, uid } = attempt.key.clone();
    match &attempt.outcome {
        Outcome::Node(node) => Some(Write::Bind {
            namespace,
            name,
            uid,
            revision: Some(attempt.revision),
            node: node.clone(),
        }),
        Outcome::Unschedulable(why) => {
            let mut object = Pod::clone(&attempt.pod);
            let message = why.to_string();
            let (condition, reason) = ("PodScheduled", Some("Unschedulable"));
            if !pod::set_condition(&mut object, condition, "False", reason, Some(&message)) {
                return None;
            }
            object.to_value().ok().map(Write::UpdateStatus)
        }
    }
}

fn verdict(outcome: &Outcome, error: Option<&RegistryError>) -> Verdict {
    let Some(error) = error else {
        return match outcome {
            Outcome::Node(_) => Verdict::Bound,
            Outcome::Unschedulable(_) => Verdict::Nowhere,
        };
    };
    match error.code() {
        _ if is_fenced(error) => Verdict::Fenced,
        Code::NotFound => Verdict::Gone,
        Code::OutcomeUnknown => Verdict::Unknown,
        Code::Conflict => Verdict::Conflict,
        _ => {
            tracing::warn!("a decision of the scheduler could not be written: {error}");
            Verdict::Conflict
        }
    }
}

fn event(attempt: &Attempt, verdict: Verdict, term: Term) -> Option<EventRecord> {
    let PodKey { namespace, name, uid } = &attempt.key;
    let (event_type, reason, message) = match (&attempt.outcome, verdict) {
        (Outcome::Node(node), Verdict::Bound) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            (EventType::Normal, "Scheduled", message)
        }
        (Outcome::Unschedulable(why), Verdict::Nowhere) => {
            (EventType::Warning, "FailedScheduling", why.to_string())
        }
        _ => return None,
    };
    Some(EventRecord {
        object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
        event_type,
        reason: reason.to_owned(),
        message,
        component: COMPONENT.to_owned(),
        fence: Some(term),
    })
}
