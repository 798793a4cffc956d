#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn deployment(change: impl FnOnce(&mut Value)) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "new"}]}},
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// A set of the Deployment, `failure`: the message of its condition ReplicaFailure.
fn set(deployment: &Deployment, image: &str, available: i32, failure: &str) -> Arc<ReplicaSet> {
    let mut template = serde_json::to_value(&deployment.spec.template).unwrap();
    template["spec"]["containers"][0]["image"] = json!(image);
    let conditions = match failure {
        "" => json!(null),
        message => json!([{"type": REPLICA_FAILURE, "status": "True", "reason": "FailedCreate",
            "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
    };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("web-{image}"), "namespace": "default", "uid": image},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
                "template": template},
            "status": {"replicas": available, "availableReplicas": available,
                "conditions": conditions},
        }))
        .unwrap(),
    )
}

fn condition(status: &DeploymentStatus, which: &str) -> Option<DeploymentCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|one| one.type_.as_deref() == Some(which)).cloned()
}

#[test]
fn a_failure_of_a_set_is_the_deployments_and_goes_with_it() {
    let mut d = deployment(|_| {});
    let sets = [set(&d, "old", 4, "of the old"), set(&d, "new", 0, "of the new")];
    let (told, _) = status(&Rollout::new(&d, &sets), now());
    let failure = condition(&told, REPLICA_FAILURE).unwrap();
    assert_eq!(failure.reason.as_deref(), Some("FailedCreate"));
    assert_eq!(failure.message.as_deref(), Some("of the new"), "the newest set's comes first");
    assert_eq!(failure.status.as_deref(), Some("True"));
    d.status = Some(told);
    let sets = [set(&d, "old", 4, "of the old"), set(&d, "new", 0, "")];
    let (told, _) = status(&Rollout::new(&d, &sets), now());
    let failure = condition(&told, REPLICA_FAILURE).unwrap();
    assert_eq!(failure.message.as_deref(), Some("of the old"));
    d.status = Some(told);
    let (well, _) = status(&Rollout::new(&d, &[set(&d, "new", 4, "")]), now());
    assert_eq!(condition(&well, REPLICA_FAILURE), None);
    assert!(condition(&well, "Available").is_some());
}

#[test]
fn a_refused_set_is_told_and_forgotten_when_it_is_made() {
    let mut d = deployment(|_| {});
    let status_of = refused(&d, "web-1", "exceeded quota", now());
    let told = condition(&status_of, "Progressing").unwrap();
    assert_eq!(
        (told.status.as_deref(), told.reason.as_deref()),
        (Some("False"), Some(CREATE_ERROR))
    );
    let text = "Failed to create new replica set \"web-1\": exceeded quota";
    assert_eq!(told.message.as_deref(), Some(text));
    d.status = Some(status_of.clone());
    assert_eq!(refused(&d, "web-1", "exceeded quota", now()), status_of, "one write is enough");
    let (made, _) = status(&Rollout::new(&d, &[set(&d, "new", 0, "")]), now());
    let told = condition(&made, "Progressing").unwrap();
    let shown = (told.status.as_deref(), told.reason.as_deref());
    assert_eq!(shown, (Some("True"), Some("ReplicaSetUpdated")));
}

#[test]
fn with_recreate_every_pod_counts_for_availability() {
    let d = deployment(|value| value["spec"]["strategy"] = json!({"type": "Recreate"}));
    let available = |count| {
        let (status, _) = status(&Rollout::new(&d, &[set(&d, "new", count, "")]), now());
        condition(&status, "Available").and_then(|c| c.status)
    };
    assert_eq!(available(3).as_deref(), Some("False"));
    assert_eq!(available(4).as_deref(), Some("True"));
}
