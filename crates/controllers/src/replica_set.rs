//! ReplicaSets: as many pods as the set says, neither more nor less.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{Selector, kinds, pod};
use quorate_registry::{EventType, ObjectEvent, Propagation};

use crate::context::{Context, controller_key, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// Creations or deletions in one reconciliation; the rest follows at once in the next.
const BURST: usize = 256;
/// Creations of the first round; each round that succeeds doubles it. A template that the
/// registry refuses is so refused once, not a thousand times.
const SLOW_START: usize = 4;

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
    /// Pods without a controller that match: make them ours.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods of ours that no longer match: let them go.
    pub release: Vec<Arc<Pod>>,
    /// How many pods are missing.
    pub create: usize,
    /// Which pods are too many, worst first.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that count: ours, matching, neither ended nor being deleted.
    pub active: Vec<Arc<Pod>>,
}

/// Works out what has to be done. `pods` are all pods of the namespace that match or are owned.
#[must_use]
pub fn plan(set: &ReplicaSet, selector: &Selector, pods: Vec<Arc<Pod>>) -> Plan {
    let mut plan = Plan::default();
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let deleting = set.metadata.deletion_timestamp.is_some();
    for object in pods {
        let matches = selector.matches_labels(object.metadata.labels.as_ref());
        match pod::controller_of(&object.metadata) {
            Some(owner) if owner.uid != uid => {}
            Some(_) if !matches && !deleting => plan.release.push(object),
            Some(_) if matches && pod::is_active(&object) => plan.active.push(object),
            None if matches && !deleting && pod::is_active(&object) => {
                plan.adopt.push(Arc::clone(&object));
                plan.active.push(object);
            }
            _ => {}
        }
    }
    if deleting {
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

/// How long until the pod counts as available; `None`: it is not ready.
fn until_available(object: &Pod, min_ready: i64, now: Timestamp) -> Option<Duration> {
    let ready = pod::condition(object, "Ready").filter(|c| c.status == "True")?;
    let since = ready.last_transition_time.as_ref().map_or(now, |t| t.0);
    let left = min_ready - (now.as_second() - since.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

/// The status that the pods give, and when to look again for pods that become available by
/// mere passing of time.
#[must_use]
pub fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready = set.spec.min_ready_seconds.unwrap_or_default();
    let template = set.spec.template.as_ref();
    let labels = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
    let fully_labeled = Selector::from_map(&labels.unwrap_or_default());
    let waits: Vec<Duration> =
        active.iter().filter_map(|p| until_available(p, i64::from(min_ready), now)).collect();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
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
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::REPLICA_SET {
            return vec![key_of(object)];
        }
        if *object.kind != kinds::POD {
            return Vec::new();
        }
        if let Some(owner) = controller_key(&kinds::REPLICA_SET, &object.meta) {
            return vec![owner];
        }
        if pod::controller_of(&object.meta).is_some() {
            return Vec::new();
        }
        // An orphan: any set that matches may adopt it.
        let sets = self.context.list::<ReplicaSet>(Some(object.namespace()));
        let matching = sets.iter().filter(|set| {
            selector_of(set).is_some_and(|s| s.matches_labels(object.meta.labels.as_ref()))
        });
        matching.map(|set| key(set)).collect()
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
        let plan = plan(&set, &selector, self.pods(&set, &selector));
        for object in &plan.release {
            self.release(&set, object).await?;
        }
        for object in &plan.adopt {
            self.adopt(&set, object).await?;
        }
        let again = plan.create > BURST || plan.delete.len() > BURST;
        let scaled = self.scale(&set, &plan).await;
        let (status, wait) = status(&set, &plan.active, Timestamp::now());
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

impl ReplicaSets {
    /// The pods that match or that the set owns.
    fn pods(&self, set: &ReplicaSet, selector: &Selector) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.context.owned::<Pod>(uid);
        let all =
            self.context.registry().cache().list(&kinds::POD, set.metadata.namespace.as_deref());
        let orphans = all.iter().filter(|object| {
            pod::controller_of(&object.meta).is_none()
                && selector.matches_labels(object.meta.labels.as_ref())
        });
        pods.extend(orphans.filter_map(|object| object.typed::<Pod>().ok()));
        pods
    }

    async fn scale(&self, set: &ReplicaSet, plan: &Plan) -> Result<(), ControllerError> {
        if plan.create > 0 {
            return self.create(set, plan.create.min(BURST)).await;
        }
        let doomed = plan.delete.iter().take(BURST);
        let results = join_all(doomed.map(|object| self.delete(set, object))).await;
        results.into_iter().collect()
    }

    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), ControllerError> {
        let Some(template) = new_pod(set) else { return Ok(()) };
        let (mut left, mut round) = (count, SLOW_START);
        while left > 0 {
            let now = left.min(round);
            let results = join_all((0..now).map(|_| self.context.create(&template))).await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(created) => {
                        let message = format!("Created pod: {}", created.name());
                        self.context.event(set, EventType::Normal, "SuccessfulCreate", &message);
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                if !error.is_benign() {
                    let message = format!("Error creating: {error}");
                    self.context.event(set, EventType::Warning, "FailedCreate", &message);
                }
                return Err(error);
            }
            left -= now;
            round *= 2;
        }
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet, object: &Pod) -> Result<(), ControllerError> {
        let context = &self.context;
        context.delete(&kinds::POD, &object.metadata, None, Propagation::Background).await?;
        let name = object.metadata.name.as_deref().unwrap_or_default();
        context.event(set, EventType::Normal, "SuccessfulDelete", &format!("Deleted pod: {name}"));
        Ok(())
    }

    async fn adopt(&self, set: &ReplicaSet, object: &Pod) -> Result<(), ControllerError> {
        let mut adopted = object.clone();
        let owners = adopted.metadata.owner_references.get_or_insert_default();
        owners.push(pod::controller_reference(set));
        self.context.update(&adopted).await?;
        Ok(())
    }

    async fn release(&self, set: &ReplicaSet, object: &Pod) -> Result<(), ControllerError> {
        let mut released = object.clone();
        let owners = released.metadata.owner_references.get_or_insert_default();
        owners.retain(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
        self.context.update(&released).await?;
        Ok(())
    }
}

fn selector_of(set: &ReplicaSet) -> Option<Selector> {
    Selector::from_label_selector(&set.spec.selector).ok()
}

fn key(set: &ReplicaSet) -> Key {
    Key {
        kind: &kinds::REPLICA_SET,
        namespace: set.metadata.namespace.clone().unwrap_or_default(),
        name: set.metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "replica_set_test.rs"]
mod tests;
