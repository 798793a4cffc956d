//! Commits decisions: bindings, what is said about pods that fit nowhere, and the deletion of
//! those that have to leave for others.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use quorate_objects::{Typed as _, kinds, pod};
use quorate_registry::{
    Code, DeleteOptions, EventRecord, EventType, Registry, RegistryError, Write,
};
use quorate_store::Term;

use crate::claims;
use crate::decide::Outcome;
use crate::filter::FilterSet;
use crate::preempt::Preemption;
use crate::snapshot::PodKey;

const COMPONENT: &str = "default-scheduler";

/// A decision to be committed.
pub(crate) struct Attempt {
    pub key: PodKey,
    pub pod: Arc<Pod>,
    pub revision: u64,
    pub outcome: Outcome,
    pub refused_by: FilterSet,
    pub preemption: Option<Preemption>,
    /// Claims that are to be told the node first.
    pub claims: Vec<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is bound.
    Bound,
    /// It fits nowhere, because of these filters, and says so.
    Nowhere(FilterSet),
    /// Somebody changed it meanwhile, or the store refused for a while.
    Conflict,
    /// It does not exist any more.
    Gone,
    /// Nobody knows what came of it.
    Unknown,
    /// The store is in a newer term.
    Fenced,
}

/// What came of a batch.
#[derive(Default)]
pub(crate) struct Settled {
    pub verdicts: Vec<(PodKey, Verdict)>,
    /// Pods that could not be asked to leave.
    pub staying: Vec<PodKey>,
}

/// Does the error say that the writer's term is over?
#[must_use]
pub fn is_fenced(error: &RegistryError) -> bool {
    // The registry has no kind of its own for the store's refusal of an old fence.
    matches!(error, RegistryError::Forbidden(text) if text.contains("the writer's term is over"))
}

/// Commits a batch. One verdict per attempt, in no particular order.
pub(crate) async fn commit(registry: Registry, term: Term, attempts: Vec<Attempt>) -> Settled {
    let mut settled = Settled::default();
    let mut writes = Vec::new();
    let mut written = Vec::new();
    for attempt in attempts {
        if let Outcome::Node(node) = &attempt.outcome
            && let Err(error) = claims::select(&registry, term, &attempt, node).await
        {
            let verdict = verdict(&attempt, Some(&error));
            settled.verdicts.push((attempt.key, verdict));
            continue;
        }
        match write(&attempt) {
            Some(write) => {
                writes.push(write);
                written.push(attempt);
            }
            None => {
                let verdict = Verdict::Nowhere(attempt.refused_by);
                settled.staying.extend(make_room(&registry, term, &attempt, verdict).await);
                settled.verdicts.push((attempt.key, verdict));
            }
        }
    }
    let results = registry.write_batch(writes, Some(term)).await;
    for (attempt, result) in written.into_iter().zip(results) {
        let verdict = verdict(&attempt, result.err().as_ref());
        if let Some(event) = event(&attempt, verdict, term) {
            registry.events().record(event);
        }
        settled.staying.extend(make_room(&registry, term, &attempt, verdict).await);
        settled.verdicts.push((attempt.key, verdict));
    }
    settled
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
            let said = pod::set_condition(&mut object, condition, "False", reason, Some(&message));
            let nominated = attempt.preemption.as_ref().map(|preemption| preemption.node.clone());
            let status = object.status.get_or_insert_default();
            let same = status.nominated_node_name == nominated;
            status.nominated_node_name = nominated;
            if !said && same {
                return None;
            }
            object.to_value().ok().map(Write::UpdateStatus)
        }
    }
}

fn verdict(attempt: &Attempt, error: Option<&RegistryError>) -> Verdict {
    let Some(error) = error else {
        return match attempt.outcome {
            Outcome::Node(_) => Verdict::Bound,
            Outcome::Unschedulable(_) => Verdict::Nowhere(attempt.refused_by),
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

/// Asks the victims of a preemption to leave, once it is written where their room will go.
/// Returns those that stay.
async fn make_room(
    registry: &Registry,
    term: Term,
    attempt: &Attempt,
    verdict: Verdict,
) -> Vec<PodKey> {
    let Some(preemption) = &attempt.preemption else { return Vec::new() };
    if !matches!(verdict, Verdict::Nowhere(_)) {
        return preemption.victims.clone();
    }
    let PodKey { namespace, name, .. } = &attempt.key;
    let by = format!("Preempted by {namespace}/{name} on node {}", preemption.node);
    let mut marks = Vec::new();
    let mut deletions = Vec::new();
    for victim in &preemption.victims {
        let object = registry.cache().get(&kinds::POD, &victim.namespace, &victim.name);
        let typed = object.and_then(|object| object.typed::<Pod>().ok());
        if let Some(typed) = typed.filter(|pod| PodKey::of(pod) == *victim) {
            let mut marked = Pod::clone(&typed);
            let (condition, reason) = ("DisruptionTarget", Some("PreemptionByScheduler"));
            pod::set_condition(&mut marked, condition, "True", reason, Some(&by));
            marks.extend(marked.to_value().ok().map(Write::UpdateStatus));
        }
        deletions.push(Write::Delete {
            kind: &kinds::POD,
            namespace: victim.namespace.clone(),
            name: victim.name.clone(),
            options: DeleteOptions { uid: Some(victim.uid.clone()), ..DeleteOptions::default() },
        });
    }
    // The mark is for people; a victim that changes just now goes without.
    registry.write_batch(marks, Some(term)).await;
    let results = registry.write_batch(deletions, Some(term)).await;
    let mut staying = Vec::new();
    for (victim, result) in preemption.victims.iter().zip(results) {
        match result {
            Ok(_) => registry.events().record(record(victim, "Preempted", by.clone(), true, term)),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!("{}/{} was to leave: {error}", victim.namespace, victim.name);
                staying.push(victim.clone());
            }
        }
    }
    staying
}

fn event(attempt: &Attempt, verdict: Verdict, term: Term) -> Option<EventRecord> {
    let PodKey { namespace, name, .. } = &attempt.key;
    match (&attempt.outcome, verdict) {
        (Outcome::Node(node), Verdict::Bound) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            Some(record(&attempt.key, "Scheduled", message, false, term))
        }
        (Outcome::Unschedulable(why), Verdict::Nowhere(_)) => {
            Some(record(&attempt.key, "FailedScheduling", why.to_string(), true, term))
        }
        _ => None,
    }
}

fn record(key: &PodKey, reason: &str, message: String, warning: bool, term: Term) -> EventRecord {
    EventRecord {
        object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(key.uid.clone()),
            ..ObjectReference::default()
        },
        event_type: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        message,
        component: COMPONENT.to_owned(),
        host: None,
        fence: Some(term),
    }
}
