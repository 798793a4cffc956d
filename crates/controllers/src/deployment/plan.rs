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
/// The annotation of a ReplicaSet with the Deployment's replicas when it was last scaled. A set
/// with pods that says another number has not been told of a change yet.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";

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

    /// How many pods may be added now. None, as long as a set has not said what it has since it
    /// was scaled: one that was scaled up and down again may have more than it says.
    fn room(&self) -> i32 {
        if !self.all().all(|set| is_observed(set)) {
            return 0;
        }
        (self.desired + self.surge - self.at_most()).max(0)
    }

    /// Pods that are available and will stay so: a set that was scaled down since it counted
    /// has fewer than it says, and one that was scaled up again since then fewer than it shall.
    fn at_least(&self) -> i32 {
        if !self.all().all(|set| is_observed(set)) {
            return 0;
        }
        self.all().map(|set| available(set).min(replicas(set))).sum()
    }

    /// The sets that have pods or shall have some, oldest first.
    fn active(&self) -> Vec<&Arc<ReplicaSet>> {
        self.all().filter(|set| replicas(set) > 0).collect()
    }

    /// Has spec.replicas changed while pods of several templates run?
    fn is_scaled_on_the_way(&self) -> bool {
        let active = self.active();
        let told = |set: &&Arc<ReplicaSet>| desired_of(set).is_none_or(|n| n == self.desired);
        active.len() > 1 && !active.iter().all(told)
    }

    fn newest_revision(&self) -> i64 {
        self.old.iter().map(|set| revision_of(set)).max().unwrap_or_default()
    }
}

/// maxSurge (rounded up) and maxUnavailable (rounded down), 25 % each unless said otherwise; the
/// strategy Recreate has neither.
fn bounds(deployment: &Deployment, desired: i32) -> (i32, i32) {
    let strategy = deployment.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return (0, 0);
    }
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

/// Is its status about its present spec?
fn is_observed(set: &ReplicaSet) -> bool {
    let observed = set.status.as_ref().and_then(|status| status.observed_generation);
    observed >= set.metadata.generation
}

fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or_default()
}

fn desired_of(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(DESIRED)?.parse().ok()
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
            scale(rollout, &mut plan, set, 0, None);
        }
        if !old_pods_remain && plan.changes.is_empty() {
            scale_new(rollout, &mut plan, rollout.desired, revision);
        }
    } else if rollout.is_scaled_on_the_way() {
        scale_in_proportion(rollout, &mut plan);
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
    (present + rollout.room()).min(rollout.desired)
}

fn scale_new(rollout: &Rollout<'_>, plan: &mut Plan, target: i32, revision: i64) {
    match &rollout.new {
        Some(set) => scale(rollout, plan, set, target, Some(revision)),
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
        scale(rollout, plan, set, replicas(set) - unhealthy - healthy, None);
    }
}

/// A paused Deployment starts no rollout, but is scaled.
fn scale_paused(rollout: &Rollout<'_>, plan: &mut Plan) {
    match rollout.active()[..] {
        [] => {
            if let Some(set) = rollout.new.as_ref().or(rollout.old.last()) {
                scale(rollout, plan, set, rollout.desired, None);
            }
        }
        [set] => scale(rollout, plan, set, rollout.desired, None),
        _ if rollout.is_scaled_on_the_way() => scale_in_proportion(rollout, plan),
        _ => {}
    }
}

/// Spreads a change of spec.replicas over all sets with pods by their sizes, so that a new
/// template that turns out to be bad does not get all that is added, nor a good one lose all
/// that is taken away. What rounding leaves over is the largest set's.
fn scale_in_proportion(rollout: &Rollout<'_>, plan: &mut Plan) {
    let mut active = rollout.active();
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    let most = if rollout.desired > 0 { rollout.desired + rollout.surge } else { 0 };
    let mut change = most - total;
    if change > 0 {
        change = change.min(rollout.room());
        // Of sets of one size the newest gains first, and the oldest loses first.
        active.reverse();
    }
    active.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
    let (before, after) = (i64::from(total), i64::from(total + change));
    let mut left = change;
    let mut targets = Vec::with_capacity(active.len());
    for set in &active {
        let exact = (i64::from(replicas(set)) * after * 2 + before) / (before * 2);
        let part = i32::try_from(exact).unwrap_or(i32::MAX) - replicas(set);
        let part = if change > 0 { part.min(left) } else { part.max(left) };
        left -= part;
        targets.push(replicas(set) + part);
    }
    if let Some(first) = targets.first_mut() {
        *first = (*first + left).max(0);
    }
    let mut spare = (rollout.at_least() - (rollout.desired - rollout.unavailable)).max(0);
    for (set, target) in active.into_iter().zip(targets) {
        let lost = available(set).min(replicas(set)) - available(set).min(target);
        let kept = (lost - spare).max(0);
        spare -= (lost - kept).max(0);
        scale(rollout, plan, set, target + kept, None);
    }
}

fn clean_up(rollout: &Rollout<'_>, plan: &mut Plan) {
    let limit = rollout.deployment.spec.revision_history_limit.unwrap_or(10).max(0);
    let unused = |set: &&Arc<ReplicaSet>| {
        replicas(set) == 0
            && present(set) == 0
            && is_observed(set)
            && set.metadata.deletion_timestamp.is_none()
    };
    let mut unused: Vec<_> = rollout.old.iter().filter(unused).cloned().collect();
    unused.sort_by_key(|set| revision_of(set));
    let excess = unused.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    unused.truncate(excess);
    plan.remove = unused;
}

/// `revision`: of the present template; `None` for a set of another one.
fn scale(
    rollout: &Rollout<'_>,
    plan: &mut Plan,
    set: &Arc<ReplicaSet>,
    target: i32,
    revision: Option<i64>,
) {
    let from = replicas(set);
    let annotated = revision.is_none_or(|revision| revision_of(set) == revision);
    // An empty set is told when it gets pods.
    let told = target == 0 || desired_of(set).is_none_or(|desired| desired == rollout.desired);
    // No part of the template, and yet the present set has to know it.
    let min_ready = match revision {
        Some(_) => rollout.deployment.spec.min_ready_seconds,
        None => set.spec.min_ready_seconds,
    };
    let same = min_ready.unwrap_or_default() == set.spec.min_ready_seconds.unwrap_or_default();
    if from == target && annotated && told && same {
        return;
    }
    let mut changed = ReplicaSet::clone(set);
    changed.spec.replicas = Some(target);
    changed.spec.min_ready_seconds = min_ready;
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.into(), rollout.desired.to_string());
    if let Some(revision) = revision {
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
    let desired = spec.replicas.unwrap_or(1).max(0);
    annotations.insert(DESIRED.into(), desired.to_string());
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
