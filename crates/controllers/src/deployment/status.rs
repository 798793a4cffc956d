//! The status of a Deployment: pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Rollout, available, present};
use crate::replica_set::REPLICA_FAILURE;

/// Kubernetes' default of progressDeadlineSeconds.
const DEADLINE_DEFAULT: i32 = 600;
/// Reason and event: the registry refuses the ReplicaSet of a new template.
pub(super) const CREATE_ERROR: &str = "ReplicaSetCreateError";

/// The status, and when to look again because a deadline passes.
pub(super) fn status(
    rollout: &Rollout<'_>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSet) -> i32| rollout.all().map(|set| count(set)).sum::<i32>();
    let ready = |set: &ReplicaSet| {
        set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
    };
    let (total, available) = (sum(present), sum(available));
    let mut status = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: Some(total),
        updated_replicas: Some(rollout.new.as_ref().map_or(0, |set| present(set))),
        ready_replicas: Some(sum(ready)),
        available_replicas: Some(available),
        unavailable_replicas: Some((rollout.desired.max(total) - available).max(0)),
        ..old.clone()
    };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    set_available(rollout, available, now, &mut conditions);
    set_failure(rollout, &mut conditions);
    let wait = set_progressing(rollout, &old, &status, now, &mut conditions);
    status.conditions = Some(conditions);
    (status, wait)
}

fn set_available(
    rollout: &Rollout<'_>,
    available: i32,
    now: Timestamp,
    conditions: &mut Vec<DeploymentCondition>,
) {
    let (status, reason, message) = if available >= rollout.desired - rollout.unavailable {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(conditions, "Available", status, reason, message.to_owned(), now, false);
}

/// What keeps a ReplicaSet from making or deleting its pods; the newest set's comes first.
fn set_failure(rollout: &Rollout<'_>, conditions: &mut Vec<DeploymentCondition>) {
    let of = |set: &ReplicaSet| -> Option<ReplicaSetCondition> {
        let mut all = set.status.as_ref()?.conditions.iter().flatten();
        all.find(|c| {
            c.type_.as_deref() == Some(REPLICA_FAILURE) && c.status.as_deref() == Some("True")
        })
        .cloned()
    };
    let new = rollout.new.as_ref().and_then(|set| of(set));
    let found = new.or_else(|| rollout.old.iter().find_map(|set| of(set)));
    conditions.retain(|c| c.type_.as_deref() != Some(REPLICA_FAILURE));
    conditions.extend(found.map(|failure| DeploymentCondition {
        type_: failure.type_,
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    }));
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// The status of a Deployment whose new ReplicaSet was refused.
pub(super) fn refused(
    deployment: &Deployment,
    set_name: &str,
    error: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    let message = format!("Failed to create new replica set \"{set_name}\": {error}");
    let conditions = status.conditions.get_or_insert_default();
    set(conditions, "Progressing", "False", CREATE_ERROR, message, now, false);
    status
}

fn set_progressing(
    rollout: &Rollout<'_>,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    now: Timestamp,
    conditions: &mut Vec<DeploymentCondition>,
) -> Option<Duration> {
    let spec = &rollout.deployment.spec;
    let deadline = spec.progress_deadline_seconds.unwrap_or(DEADLINE_DEFAULT);
    let name = rollout.new.as_ref().and_then(|set| set.metadata.name.clone()).unwrap_or_default();
    let present = conditions.iter().find(|c| c.type_.as_deref() == Some("Progressing")).cloned();
    let reason = present.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or_default();
    if rollout.is_paused() {
        let message = "Deployment is paused".to_owned();
        set(conditions, "Progressing", "Unknown", "DeploymentPaused", message, now, false);
        return None;
    }
    let desired = Some(rollout.desired);
    if new.updated_replicas == desired
        && new.replicas == desired
        && new.available_replicas == desired
    {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        set(conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now, false);
        return None;
    }
    let progressed = new.updated_replicas > old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
        || new.observed_generation != old.observed_generation
        || (new.replicas < old.replicas && new.updated_replicas >= old.updated_replicas);
    let fresh = matches!(reason, "" | "DeploymentPaused" | CREATE_ERROR);
    if progressed || fresh {
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        set(conditions, "Progressing", "True", "ReplicaSetUpdated", message, now, true);
        return Some(seconds(deadline));
    }
    if matches!(reason, "ProgressDeadlineExceeded" | "NewReplicaSetAvailable") {
        // A complete Deployment that loses a pod is not a rollout that hangs.
        return None;
    }
    let since = present.and_then(|c| c.last_update_time).map_or(now, |t| t.0);
    let left = i64::from(deadline) - (now.as_second() - since.as_second());
    if left > 0 {
        return Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()));
    }
    let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
    set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now, false);
    None
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Sets a condition; `touch` renews its time of update although nothing else changes.
fn set(
    conditions: &mut Vec<DeploymentCondition>,
    condition: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
    touch: bool,
) {
    let at = conditions.iter().position(|c| c.type_.as_deref() == Some(condition));
    let old = at.map(|at| conditions.swap_remove(at));
    let same = old.as_ref().is_some_and(|old| {
        old.status.as_deref() == Some(status) && old.reason.as_deref() == Some(reason)
    });
    if let Some(old) = old.clone().filter(|_| same && !touch) {
        conditions.push(DeploymentCondition { message: Some(message), ..old });
    } else {
        let kept = old.filter(|old| old.status.as_deref() == Some(status));
        let since = kept.and_then(|old| old.last_transition_time).unwrap_or(Time(now));
        conditions.push(DeploymentCondition {
            type_: Some(condition.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(Time(now)),
            last_transition_time: Some(since),
        });
    }
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
