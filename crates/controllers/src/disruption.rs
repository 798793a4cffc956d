//! Disruption budgets: how many pods may be evicted now. Evictions themselves are the
//! registry's, which counts them in the status that is written here.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_objects::{Selector, kinds, pod};
use quorate_registry::ObjectEvent;

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use crate::workload::{self, count, share};

/// An eviction that was allowed and did not take place counts no longer after this time.
const EVICTION_PATIENCE: Duration = Duration::from_secs(120);

/// The controller of PodDisruptionBudgets.
pub struct DisruptionBudgets {
    context: Arc<Context>,
}

impl DisruptionBudgets {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// How many pods there shall be: what the pods' controllers say, each asked once; a pod
    /// without one counts itself.
    fn expected(&self, pods: &[Arc<Pod>]) -> i32 {
        let (mut asked, mut sum) = (HashSet::new(), 0_i32);
        for object in pods {
            let scale = self.scale_of(object);
            sum = sum.saturating_add(match scale {
                Some((uid, replicas)) => {
                    if asked.insert(uid) {
                        replicas
                    } else {
                        0
                    }
                }
                None => 1,
            });
        }
        sum
    }

    /// The uid and the replicas of what scales the pod.
    fn scale_of(&self, object: &Pod) -> Option<(String, i32)> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let owner = pod::controller_of(&object.metadata)?;
        if owner.kind == "StatefulSet" {
            let set = self.context.get::<StatefulSet>(namespace, &owner.name)?;
            return Some((owner.uid.clone(), set.spec.replicas.unwrap_or(1)));
        }
        if owner.kind != "ReplicaSet" {
            return None;
        }
        let set = self.context.get::<ReplicaSet>(namespace, &owner.name)?;
        let above = pod::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let deployment =
            above.and_then(|owner| self.context.get::<Deployment>(namespace, &owner.name));
        match deployment {
            Some(deployment) => {
                let uid = deployment.metadata.uid.clone().unwrap_or_default();
                Some((uid, deployment.spec.replicas.unwrap_or(1)))
            }
            None => Some((owner.uid.clone(), crate::replica_set::replicas(&set))),
        }
    }

    fn budgets(&self, namespace: &str, selects: impl Fn(&Selector) -> bool) -> Vec<Key> {
        let budgets = self.context.list::<PodDisruptionBudget>(Some(namespace));
        let matching =
            budgets.iter().filter(|budget| selector_of(budget).is_some_and(|s| selects(&s)));
        matching.map(|budget| workload::key(&**budget)).collect()
    }
}

fn selector_of(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::from_label_selector(budget.spec.as_ref()?.selector.as_ref()?).ok()
}

/// The status that the pods give; `expected`: how many there shall be.
pub(crate) fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let spec = budget.spec.clone().unwrap_or_default();
    let (disrupted, wait) = still_disrupted(&old, pods, now);
    let healthy = pods.iter().filter(|object| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        pod::is_active(object) && pod::is_ready(object) && !disrupted.contains_key(name)
    });
    let healthy = count(healthy.count());
    let (expected, desired) = match (&spec.min_available, &spec.max_unavailable) {
        // A plain number is one, whatever the controllers say.
        (Some(IntOrString::Int(number)), _) => (count(pods.len()), (*number).max(0)),
        (Some(share_of), _) => (expected, share(share_of, expected, true)),
        (None, Some(unavailable)) => {
            (expected, (expected - share(unavailable, expected, true)).max(0))
        }
        // A budget that says nothing keeps one.
        (None, None) => (expected, 1),
    };
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|map| !map.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: None,
    };
    status.conditions = Some(vec![condition(&old, allowed > 0, budget.metadata.generation, now)]);
    (status, wait)
}

/// Pods whose eviction was allowed and has not shown yet, and when the first of these is
/// believed no longer.
fn still_disrupted(
    old: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let (mut kept, mut wait) = (BTreeMap::new(), None);
    for (name, since) in old.disrupted_pods.iter().flatten() {
        let present = pods.iter().find(|object| object.metadata.name.as_ref() == Some(name));
        let passed = u64::try_from(now.as_second() - since.0.as_second()).unwrap_or_default();
        let left = EVICTION_PATIENCE.saturating_sub(Duration::from_secs(passed));
        if present.is_none_or(|object| pod::is_deleting(object)) || left.is_zero() {
            continue;
        }
        kept.insert(name.clone(), since.clone());
        wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
    }
    (kept, wait)
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: bool,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    const TYPE: &str = "DisruptionAllowed";
    let (status, reason) =
        if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = old.conditions.iter().flatten().find(|one| one.type_ == TYPE);
    let since =
        before.filter(|one| one.status == status).map(|one| one.last_transition_time.clone());
    Condition {
        type_: TYPE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: generation,
    }
}

#[async_trait]
impl Controller for DisruptionBudgets {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::POD_DISRUPTION_BUDGET {
            return vec![key_of(object)];
        }
        if *object.kind == kinds::POD {
            let labels = object.meta.labels.as_ref();
            return self.budgets(object.namespace(), |s| s.matches_labels(labels));
        }
        // How many pods there shall be may have changed.
        let scales = [&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::STATEFUL_SET];
        if scales.contains(&object.kind) {
            return self.budgets(object.namespace(), |_| true);
        }
        Vec::new()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::POD_DISRUPTION_BUDGET)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let found = self.context.get::<PodDisruptionBudget>(&key.namespace, &key.name);
        let Some(budget) = found else { return Ok(Requeue::Done) };
        // Without a selector it selects nothing.
        let selector = selector_of(&budget).unwrap_or_else(Selector::nothing);
        let all = self.context.registry().cache().list(&kinds::POD, Some(&key.namespace));
        let matching = all.iter().filter(|object| selector.matches(object.labels()));
        let pods: Vec<Arc<Pod>> = matching
            .filter_map(|object| object.typed::<Pod>().ok())
            .filter(|object| !pod::is_terminal(object))
            .collect();
        let (status, wait) =
            status(&budget, &pods, self.expected(&pods), quorate_objects::time::timestamp());
        if budget.status.as_ref() != Some(&status) {
            let mut updated = PodDisruptionBudget::clone(&budget);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        Ok(wait.map_or(Requeue::Done, Requeue::After))
    }
}

#[cfg(test)]
#[path = "disruption_test.rs"]
mod tests;
