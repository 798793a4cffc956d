#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "mine"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}},
    }))
    .unwrap()
}

/// A pod of the set; `owner` "" means none.
fn pod(name: &str, owner: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    if !owner.is_empty() {
        value["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": owner, "controller": true}]);
    }
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn planned(replicas: i32, pods: Vec<Arc<Pod>>) -> Plan {
    let set = set(replicas);
    let claim = workload::claim(&set, &selector_of(&set).unwrap(), pods, |_| true);
    plan(&set, claim.owned)
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

#[test]
fn what_counts() {
    let deleting =
        |v: &mut Value| v["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let claim = workload::claim(
        &set(5),
        &selector_of(&set(5)).unwrap(),
        vec![
            pod("ours", "mine", |_| {}),
            pod("orphan", "", |_| {}),
            pod("foreign", "other", |_| {}),
            pod("failed", "mine", |v| v["status"]["phase"] = json!("Failed")),
            pod("going", "mine", deleting),
            pod("relabelled", "mine", |v| v["metadata"]["labels"] = json!({})),
        ],
        |_| true,
    );
    assert_eq!(names(&claim.adopt), ["orphan"]);
    assert_eq!(names(&claim.release), ["relabelled"]);
    let plan = plan(&set(5), claim.owned);
    assert_eq!(names(&plan.active), ["ours", "orphan"]);
    assert_eq!(plan.create, 3);
    assert!(plan.delete.is_empty());
}

#[test]
fn the_least_missed_go_first() {
    let pods = vec![
        pod("old", "mine", |_| {}),
        pod("young", "mine", |v| {
            v["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z")
        }),
        pod("alone", "mine", |v| v["spec"]["nodeName"] = json!("n2")),
        pod("unready", "mine", |v| v["status"]["conditions"][0]["status"] = json!("False")),
        pod("pending", "mine", |v| v["status"]["phase"] = json!("Pending")),
        pod("unbound", "mine", |v| v["spec"]["nodeName"] = json!("")),
    ];
    let plan = planned(0, pods.clone());
    assert_eq!(names(&plan.delete), ["unbound", "pending", "unready", "young", "old", "alone"]);
    assert_eq!(names(&planned(4, pods).delete), ["unbound", "pending"]);
}

#[test]
fn a_set_that_is_being_deleted_does_nothing() {
    let mut set = set(3);
    set.metadata.deletion_timestamp = Some(quorate_objects::time::now());
    let selector = selector_of(&set).unwrap();
    let claim = workload::claim(&set, &selector, vec![pod("orphan", "", |_| {})], |_| true);
    assert!(claim.adopt.is_empty() && claim.owned.is_empty());
    let plan = plan(&set, claim.owned);
    assert!(plan.create == 0 && plan.delete.is_empty());
}

#[test]
fn a_failure_is_told_once_and_taken_back() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let later: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let quota = Err(ControllerError::Other("exceeded quota: few".into()));
    let mut status = ReplicaSetStatus::default();
    set_failure(&mut status, &Err(ControllerError::Conflict("changed".into())), true, now);
    assert_eq!(status.conditions, None, "a conflict is no failure");
    set_failure(&mut status, &quota, true, now);
    let told = status.clone();
    let condition = &told.conditions.as_ref().unwrap()[0];
    assert_eq!(condition.type_.as_deref(), Some("ReplicaFailure"));
    assert_eq!(condition.status.as_deref(), Some("True"));
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    assert_eq!(condition.message.as_deref(), Some("exceeded quota: few"));
    let other = Err(ControllerError::Other("exceeded quota: other".into()));
    set_failure(&mut status, &other, true, later);
    assert_eq!(status, told, "no write for each attempt");
    set_failure(&mut status, &Ok(()), false, later);
    assert_eq!(status.conditions, None);
    set_failure(&mut status, &quota, false, later);
    let reason = status.conditions.unwrap()[0].reason.clone();
    assert_eq!(reason.as_deref(), Some("FailedDelete"));
}
