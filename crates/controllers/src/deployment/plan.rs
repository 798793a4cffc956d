//! What has to be done for a Deployment: pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_objects::pod;

use crate::replica_set::replicas;
use crate::template::{TEMPLATE_HASH, bare, template_hash};
use crate::workload::share;

/// The annotation that numbers the templates of a Deployment.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";

/// A Deployment with its ReplicaSets, told apart.
#[derive(Debug)]
pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    /// The set of the present template.
    pub new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
    /// Pods wanted.
    pub desired: i32,
    /// Pods allowed above that.
    pub surge: i32,
    /// Pods allowed to be missing.
    pub unavailable: i32,
}

/// A set as it shall be.
#[derive(Debug)]
pub(super) struct Change {
    pub set: ReplicaSet,
    pub event: Option<String>,
}

/// What has to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub changes: Vec<Change>,
    /// Old sets beyond the history limit.
    pub remove: Vec<Arc<ReplicaSet>>,
    /// The set of a template that is new.
    pub create: Option<ReplicaSet>,
    /// What the Deployment's revision annotation shall say.
    pub revision: Option<i64>,
}

impl<'a> Rollout<'a> {
    /// Finds the set with the present template; `sets` are sorted by age.
    pub fn new(deployment: &'a Deployment, sets: &[Arc<ReplicaSet>]) -> Self {
        let template = Some(bare(&deployment.spec.template));
        let same = |set: &Arc<ReplicaSet>| {
            let other = set.spec.template.as_ref().map(bare);
            other == template && set.metadata.deletion_timestamp.is_none()
        };
        // The oldest one, so that every look chooses the same.
        let new = sets.iter().find(|set| same(set)).cloned();
        let uid = new.as_ref().and_then(|set| set.metadata.uid.clone());
        let old =
            sets.iter().filter(|set| new.is_none() || set.metadata.uid != uid).cloned().collect();
        let desired = deployment.spec.replicas.unwrap_or(1).max(0);
        let (surge, unavailable) = bounds(deployment, desired);
        Self { deployment, new, old, desired, surge, unavailable }
    }

    pub fn is_recreate(&self) -> bool {
        let strategy = self.deployment.spec.strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    pub fn is_paused(&self) -> bool {
        self.deployment.spec.paused.unwrap_or_default()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// Pods that exist or may be created at any moment: what a set says, or what it still has.
    fn at_most(&self) -> i32 {
        self.all().map(|set| replicas(set).max(present(set))).sum()
    }

    /// Pods that are available and will stay so: a set that was scaled down since it counted
    /// has fewer than it says.
    fn at_least(&self) -> i32 {
        self.all().map(|set| available(set).min(replicas(set))).sum()
    }

    fn newest_revision(&self) -> i64 {
        self.old.iter().map(|set| revision_of(set)).max().unwrap_or_default()
    }
}

/// maxSurge (rounded up) and maxUnavailable (rounded down), 25 % each unless said otherwise.
fn bounds(deployment: &Deployment, desired: i32) -> (i32, i32) {
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let surge = share(surge, desired, true);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let mut unavailable = share(unavailable, desired, false);
    if surge == 0 && unavailable == 0 {
        // Rounding must not stop a rollout for ever.
        unavailable = 1;
    }
    (surge, unavailable.min(desired))
}

/// Pods that a set has by its own count.
pub(super) fn present(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// Pods of a set that are available by its own count.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or_default()
}

/// Works out the next step.
pub(super) fn plan(rollout: &Rollout<'_>, old_pods_remain: bool) -> Plan {
    let mut plan = Plan::default();
    if rollout.is_paused() {
        scale_paused(rollout, &mut plan);
        return plan;
    }
    let newest = rollout.newest_revision();
    let own = rollout.new.as_ref().map_or(0, |set| revision_of(set));
    // A template that comes back (a rollback) gets a new number.
    let revision = if own > newest { own } else { newest + 1 };
    plan.revision = Some(revision);
    if rollout.is_recreate() {
        for set in &rollout.old {
            scale(&mut plan, set, 0, None);
        }
        if !old_pods_remain && plan.changes.is_empty() {
            scale_new(rollout, &mut plan, rollout.desired, revision);
        }
    } else {
        let target = new_target(rollout);
        scale_new(rollout, &mut plan, target, revision);
        if rollout.new.is_some() {
            scale_old(rollout, &mut plan);
        }
    }
    clean_up(rollout, &mut plan);
    plan
}

/// How many pods the new set may have now.
fn new_target(rollout: &Rollout<'_>) -> i32 {
    let present = rollout.new.as_ref().map_or(0, |set| replicas(set));
    if present >= rollout.desired {
        return rollout.desired;
    }
    let room = rollout.desired + rollout.surge - rollout.at_most();
    (present + room.max(0)).min(rollout.desired)
}

fn scale_new(rollout: &Rollout<'_>, plan: &mut Plan, target: i32, revision: i64) {
    match &rollout.new {
        Some(set) => scale(plan, set, target, Some(revision)),
        None => plan.create = Some(new_set(rollout.deployment, target, revision)),
    }
}

/// Takes away from the old sets: first pods that are of no use anyway, then as many others as
/// may be missing.
fn scale_old(rollout: &Rollout<'_>, plan: &mut Plan) {
    let minimum = rollout.desired - rollout.unavailable;
    let new_missing = rollout.new.as_ref().map_or(0, |set| (replicas(set) - available(set)).max(0));
    let total: i32 = rollout.all().map(|set| replicas(set)).sum();
    let mut budget = (total - minimum - new_missing).max(0);
    let mut spare = (rollout.at_least() - minimum).max(0);
    for set in &rollout.old {
        let unhealthy = (replicas(set) - available(set)).clamp(0, budget);
        budget -= unhealthy;
        let healthy = (replicas(set) - unhealthy).min(spare).min(budget);
        budget -= healthy;
        spare -= healthy;
        scale(plan, set, replicas(set) - unhealthy - healthy, None);
    }
}

/// A paused Deployment starts no rollout, but is scaled.
fn scale_paused(rollout: &Rollout<'_>, plan: &mut Plan) {
    let total: i32 = rollout.all().map(|set| replicas(set)).sum();
    let mut missing = rollout.desired - total;
    // More go to the newest set that has any; fewer are taken from the oldest first.
    if missing > 0 {
        let active = rollout.all().filter(|set| replicas(set) > 0).last();
        if let Some(set) = active.or(rollout.new.as_ref()).or(rollout.old.last()) {
            scale(plan, set, replicas(set) + missing, None);
        }
        return;
    }
    for set in rollout.all() {
        let taken = replicas(set).min(-missing);
        missing += taken;
        scale(plan, set, replicas(set) - taken, None);
    }
}

fn clean_up(rollout: &Rollout<'_>, plan: &mut Plan) {
    let limit = rollout.deployment.spec.revision_history_limit.unwrap_or(10).max(0);
    let unused = |set: &&Arc<ReplicaSet>| {
        let settled =
            set.status.as_ref().and_then(|s| s.observed_generation) >= set.metadata.generation;
        replicas(set) == 0
            && present(set) == 0
            && settled
            && set.metadata.deletion_timestamp.is_none()
    };
    let mut unused: Vec<_> = rollout.old.iter().filter(unused).cloned().collect();
    unused.sort_by_key(|set| revision_of(set));
    let excess = unused.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    unused.truncate(excess);
    plan.remove = unused;
}

fn scale(plan: &mut Plan, set: &Arc<ReplicaSet>, target: i32, revision: Option<i64>) {
    let from = replicas(set);
    let annotated = revision.is_none_or(|revision| revision_of(set) == revision);
    if from == target && annotated {
        return;
    }
    let mut changed = ReplicaSet::clone(set);
    changed.spec.replicas = Some(target);
    if let Some(revision) = revision {
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.into(), revision.to_string());
    }
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let direction = if target > from { "up" } else { "down" };
    let event = (from != target)
        .then(|| format!("Scaled {direction} replica set {name} from {from} to {target}"));
    plan.changes.push(Change { set: changed, event });
}

/// The ReplicaSet of the present template.
fn new_set(deployment: &Deployment, replicas: i32, revision: i64) -> ReplicaSet {
    let spec = &deployment.spec;
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(REVISION.into(), revision.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![pod::controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
