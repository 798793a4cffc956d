//! ReplicaSets: as many pods as the set says, neither more nor less.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_objects::{Selector, kinds, pod};
use quorate_registry::ObjectEvent;

use crate::context::Context;
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use crate::workload::{self, BURST, Workload, count, until_available};

/// The condition of a set whose pods cannot be made or deleted.
pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The controller of ReplicaSets.
pub struct ReplicaSets {
    context: Arc<Context>,
}

impl ReplicaSets {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

/// What has to be done for a set.
#[derive(Debug, Default)]
pub struct Plan {
    /// How many pods are missing.
    pub create: usize,
    /// Which pods are too many, worst first.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that count: ours, matching, neither ended nor being deleted.
    pub active: Vec<Arc<Pod>>,
}

/// Works out what has to be done with the set's pods.
#[must_use]
pub fn plan(set: &ReplicaSet, owned: Vec<Arc<Pod>>) -> Plan {
    let active: Vec<_> = owned.into_iter().filter(|object| pod::is_active(object)).collect();
    let mut plan = Plan { active, ..Plan::default() };
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let wanted = usize::try_from(replicas(set)).unwrap_or_default();
    plan.create = wanted.saturating_sub(plan.active.len());
    if plan.active.len() > wanted {
        let mut ranked = rank(&plan.active);
        ranked.truncate(plan.active.len() - wanted);
        plan.delete = ranked;
    }
    plan
}

/// `spec.replicas`, 1 when missing.
#[must_use]
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

/// The pods, those first that are missed least: without a node, not running, not ready, on a
/// node with more of its kind, younger.
fn rank(active: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut per_node = HashMap::<&str, usize>::new();
    for object in active {
        *per_node.entry(pod::node_name(object).unwrap_or_default()).or_default() += 1;
    }
    let cost = |object: &Pod| {
        let annotations = object.metadata.annotations.as_ref();
        let cost = annotations.and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
        cost.and_then(|c| c.parse::<i32>().ok()).unwrap_or_default()
    };
    let mut ranked: Vec<Arc<Pod>> = active.to_vec();
    ranked.sort_by_cached_key(|object| {
        let crowd = per_node.get(pod::node_name(object).unwrap_or_default()).copied();
        let age = object.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (
            pod::node_name(object).is_some(),
            pod::phase(object) == "Running",
            pod::is_ready(object),
            cost(object),
            std::cmp::Reverse(crowd),
            std::cmp::Reverse(age),
            object.metadata.name.clone(),
        )
    });
    ranked
}

/// The status that the pods give, and when to look again for pods that become available by
/// mere passing of time.
#[must_use]
pub fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready = set.spec.min_ready_seconds;
    let template = set.spec.template.as_ref();
    let labels = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
    let fully_labeled = Selector::from_map(&labels.unwrap_or_default());
    let waits: Vec<Duration> =
        active.iter().filter_map(|p| until_available(p, min_ready, now)).collect();
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(
            active
                .iter()
                .filter(|p| fully_labeled.matches_labels(p.metadata.labels.as_ref()))
                .count(),
        )),
        ready_replicas: Some(count(waits.len())),
        available_replicas: Some(count(waits.iter().filter(|w| w.is_zero()).count())),
        observed_generation: set.metadata.generation,
        ..old
    };
    let next = waits.into_iter().filter(|wait| !wait.is_zero()).min();
    (status, next)
}

/// The condition ReplicaFailure is there from the first failure on until nothing fails any more;
/// further failures do not change it, so that a full quota costs one write and not one a try.
fn set_failure(
    status: &mut ReplicaSetStatus,
    scaled: &Result<(), ControllerError>,
    creating: bool,
    now: Timestamp,
) {
    let mut conditions = status.conditions.take().unwrap_or_default();
    let is_failure = |one: &ReplicaSetCondition| one.type_.as_deref() == Some(REPLICA_FAILURE);
    let present = conditions.iter().any(is_failure);
    match scaled {
        Ok(()) => conditions.retain(|one| !is_failure(one)),
        Err(error) if !present && !error.is_benign() => conditions.push(ReplicaSetCondition {
            type_: Some(REPLICA_FAILURE.to_owned()),
            status: Some("True".to_owned()),
            reason: Some(if creating { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(error.to_string()),
            last_transition_time: Some(Time(now)),
        }),
        Err(_) => {}
    }
    status.conditions = Some(conditions).filter(|all| !all.is_empty());
}

/// A new pod of a set.
fn new_pod(set: &ReplicaSet) -> Option<Pod> {
    let template = set.spec.template.as_ref()?;
    let mut object = pod::from_template(template);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    object.metadata.generate_name = Some(format!("{name}-"));
    object.metadata.namespace.clone_from(&set.metadata.namespace);
    object.metadata.owner_references = Some(vec![pod::controller_reference(set)]);
    Some(object)
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        workload::wants::<ReplicaSet>(&self.context, event, selector_of)
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::REPLICA_SET)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(set) = self.context.get::<ReplicaSet>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        let Some(selector) = selector_of(&set) else {
            return Err(ControllerError::Other("the selector cannot be read".into()));
        };
        let workload = Workload { context: &self.context, owner: &*set, selector };
        let plan = plan(&set, workload.claim(|_| true).await?);
        let again = plan.create > BURST || plan.delete.len() > BURST;
        let scaled = scale(&workload, &plan).await;
        let now = quorate_objects::time::timestamp();
        let (mut status, wait) = status(&set, &plan.active, now);
        set_failure(&mut status, &scaled, plan.create > 0, now);
        if set.status.as_ref() != Some(&status) {
            let mut updated = ReplicaSet::clone(&set);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        scaled?;
        Ok(match wait {
            _ if again => Requeue::After(Duration::ZERO),
            Some(wait) => Requeue::After(wait),
            None => Requeue::Done,
        })
    }
}

async fn scale(workload: &Workload<'_, ReplicaSet>, plan: &Plan) -> Result<(), ControllerError> {
    if plan.create > 0 {
        let Some(template) = new_pod(workload.owner) else { return Ok(()) };
        return workload.create(&vec![template; plan.create.min(BURST)]).await;
    }
    workload.delete(&plan.delete[..plan.delete.len().min(BURST)]).await
}

fn selector_of(set: &ReplicaSet) -> Option<Selector> {
    Selector::from_label_selector(&set.spec.selector).ok()
}

#[cfg(test)]
#[path = "replica_set_test.rs"]
mod tests;
