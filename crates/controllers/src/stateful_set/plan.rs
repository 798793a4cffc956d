//! What has to be done for a StatefulSet: pure.
//!
//! Rules from Kubernetes' documentation of StatefulSets: pods are made in order and taken away
//! in reverse order, each only when those before it are available; `Parallel` lifts the order
//! but not the identities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::pod;

use super::identity::ordinals;
use crate::revisions::HASH_LABEL;
use crate::workload::{count, share, until_available};

/// A StatefulSet with its pods.
pub(super) struct State<'a> {
    pub set: &'a StatefulSet,
    /// All pods of the set, whatever state they are in, by ordinal.
    pub pods: BTreeMap<i32, Arc<Pod>>,
    /// The revision that pods below the partition have.
    pub current: &'a str,
    /// The revision of the present template.
    pub update: &'a str,
    pub now: Timestamp,
}

/// What has to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Ordinals of pods to be made, and whether of the current revision.
    pub create: Vec<(i32, bool)>,
    /// Pods that have to go.
    pub delete: Vec<Arc<Pod>>,
}

impl State<'_> {
    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Time until it is available; `None`: not ready.
    fn wait(&self, object: &Pod) -> Option<Duration> {
        until_available(object, self.set.spec.min_ready_seconds, self.now)
    }

    fn is_available(&self, object: &Pod) -> bool {
        pod::is_active(object) && self.wait(object).is_some_and(|wait| wait.is_zero())
    }

    fn partition(&self) -> i32 {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or_default()
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete")
    }

    /// Has a pod that is made now the current revision, not the new one?
    fn stays_behind(&self, ordinal: i32) -> bool {
        !self.is_on_delete() && ordinal < ordinals(self.set).start.saturating_add(self.partition())
    }

    fn max_unavailable(&self) -> usize {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let value = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let replicas = self.set.spec.replicas.unwrap_or(1);
        let allowed = value.map_or(1, |value| share(value, replicas, true)).max(1);
        usize::try_from(allowed).unwrap_or(1)
    }
}

fn revision_of(object: &Pod) -> &str {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// Works out the next step.
pub(super) fn plan(state: &State<'_>) -> Plan {
    let mut plan = Plan::default();
    if fill(state, &mut plan) && shrink(state, &mut plan) {
        update(state, &mut plan);
    }
    plan
}

/// Makes what is missing. Says whether to go on: in order, everything waits for the first pod
/// that is not available. A pod that is being deleted holds its name until it is gone for good.
fn fill(state: &State<'_>, plan: &mut Plan) -> bool {
    let ordered = state.is_ordered();
    for ordinal in ordinals(state.set) {
        match state.pods.get(&ordinal) {
            None => plan.create.push((ordinal, state.stays_behind(ordinal))),
            // It has ended, and a set's pods run for ever: the next one takes its name.
            Some(object) if pod::is_terminal(object) && !pod::is_deleting(object) => {
                plan.delete.push(Arc::clone(object));
            }
            Some(object) if state.is_available(object) => continue,
            Some(_) => {}
        }
        if ordered {
            return false;
        }
    }
    true
}

/// Takes away what is too much, the highest ordinals first.
fn shrink(state: &State<'_>, plan: &mut Plan) -> bool {
    let wanted = ordinals(state.set);
    for (ordinal, object) in state.pods.iter().rev() {
        if wanted.contains(ordinal) {
            continue;
        }
        if !pod::is_deleting(object) {
            plan.delete.push(Arc::clone(object));
        }
        if state.is_ordered() {
            return false;
        }
    }
    true
}

/// Takes away pods of earlier revisions, the highest ordinal first, as long as no more than
/// maxUnavailable are missing.
fn update(state: &State<'_>, plan: &mut Plan) {
    if state.is_on_delete() {
        return;
    }
    let wanted = ordinals(state.set);
    let available =
        wanted.clone().filter(|n| state.pods.get(n).is_some_and(|pod| state.is_available(pod)));
    let mut missing = wanted.len().saturating_sub(available.count());
    let first = wanted.start.saturating_add(state.partition());
    for (_, object) in state.pods.range(first.min(wanted.end)..wanted.end).rev() {
        if revision_of(object) == state.update || !pod::is_active(object) {
            continue;
        }
        if state.is_available(object) {
            if missing >= state.max_unavailable() {
                return;
            }
            missing += 1;
        }
        plan.delete.push(Arc::clone(object));
    }
}

/// The status, and when to look again for pods that become available by mere passing of time.
pub(super) fn status(state: &State<'_>) -> (StatefulSetStatus, Option<Duration>) {
    let old = state.set.status.clone().unwrap_or_default();
    let living: Vec<_> = state.pods.values().filter(|pod| !pod::is_terminal(pod)).collect();
    let with = |revision: &str| {
        let matching =
            living.iter().filter(|pod| revision_of(pod) == revision && !pod::is_deleting(pod));
        count(matching.count())
    };
    let waits: Vec<Duration> = living
        .iter()
        .filter(|pod| !pod::is_deleting(pod))
        .filter_map(|pod| state.wait(pod))
        .collect();
    let mut status = StatefulSetStatus {
        replicas: count(living.len()),
        ready_replicas: Some(count(waits.len())),
        available_replicas: Some(count(waits.iter().filter(|wait| wait.is_zero()).count())),
        current_replicas: Some(with(state.current)),
        updated_replicas: Some(with(state.update)),
        current_revision: Some(state.current.to_owned()),
        update_revision: Some(state.update.to_owned()),
        observed_generation: state.set.metadata.generation,
        collision_count: None,
        ..old
    };
    let desired = count(ordinals(state.set).len());
    let done = status.replicas == desired
        && status.updated_replicas == Some(desired)
        && status.ready_replicas == Some(desired);
    if done {
        status.current_revision.clone_from(&status.update_revision);
        status.current_replicas = status.updated_replicas;
    }
    (status, waits.into_iter().filter(|wait| !wait.is_zero()).min())
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
