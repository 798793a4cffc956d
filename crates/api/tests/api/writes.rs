//! Writes over the Kubernetes API that change nothing, meet other writers, or say too much.

use axum::http::{Method, StatusCode};
use quorate_registry::WriteOptions;
use serde_json::{Value, json};

use crate::master::{Master, pod};
use crate::rest::Http;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const AUTOSCALERS: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// A ready pod, and a budget that lets one such pod go.
async fn guarded(master: &Master) {
    let options = WriteOptions::default();
    let mut ready = pod("p", Some("n1"));
    ready["metadata"]["labels"] = json!({"app": "web"});
    master.registry.create(ready.clone(), &options).await.unwrap();
    ready["status"] =
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    master.registry.update_status(ready, &options).await.unwrap();
    let mut budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    master.registry.create(budget.clone(), &options).await.unwrap();
    budget["status"] = json!({
        "currentHealthy": 1, "desiredHealthy": 0, "disruptionsAllowed": 1, "expectedPods": 1,
        "observedGeneration": 1,
    });
    master.registry.update_status(budget, &options).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_of_an_eviction_evicts_nothing() {
    let master = Master::start().await;
    let http = Http::new(&master);
    guarded(&master).await;
    let both = async || {
        let pod = http.get(&format!("{PODS}/p")).await.1;
        (pod, http.get(&format!("{BUDGETS}/b")).await.1)
    };
    let before = both().await;
    let evict = async |query: &str| {
        let path = format!("{PODS}/p/eviction{query}");
        http.call(Method::POST, &path, &json!({"metadata": {"name": "p"}})).await.0
    };
    assert_eq!(evict("?dryRun=All").await, StatusCode::CREATED);
    assert_eq!(evict("?dryRun=Some").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(both().await, before);
    assert_eq!(evict("").await, StatusCode::CREATED);
    let (pod, budget) = both().await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn a_dry_run_of_a_binding_binds_nothing_and_says_whether_it_could() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let options = WriteOptions::default();
    master.registry.create(pod("free", None), &options).await.unwrap();
    master.registry.create(pod("bound", Some("n1")), &options).await.unwrap();
    let bind = async |pod: &str, dry_run: &str, node: &str| {
        let path = format!("{PODS}/{pod}/binding?dryRun={dry_run}");
        http.call(Method::POST, &path, &json!({"target": {"name": node}})).await.0
    };
    let (_, before) = http.get(&format!("{PODS}/free")).await;
    assert_eq!(bind("free", "All", "n1").await, StatusCode::CREATED);
    assert_eq!(bind("free", "Some", "n1").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(bind("bound", "All", "n2").await, StatusCode::CONFLICT);
    assert_eq!(bind("none", "All", "n1").await, StatusCode::NOT_FOUND);
    assert_eq!(http.get(&format!("{PODS}/free")).await.1, before);
}

#[tokio::test]
async fn kinds_without_namespaces_may_name_one() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = |verb: &str| {
        json!({
            "metadata": {"name": "r", "namespace": "x"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}],
        })
    };
    let (code, created) = http.call(Method::POST, roles, &role("get")).await;
    assert_eq!((code, created["metadata"].get("namespace")), (StatusCode::CREATED, None));
    let one = format!("{roles}/r");
    let (code, updated) = http.call(Method::PUT, &one, &role("list")).await;
    assert_eq!((code, &updated["rules"][0]["verbs"]), (StatusCode::OK, &json!(["list"])));
    assert_eq!(http.get(&one).await.1["metadata"].get("namespace"), None);
}

#[tokio::test]
async fn patches_through_another_version_meet_other_writers() {
    const WRITERS: usize = 8;
    let master = Master::start().await;
    let http = Http::new(&master);
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let autoscaler = json!({
        "metadata": {"name": "web"}, "spec": {"scaleTargetRef": target, "maxReplicas": 5},
    });
    let (code, created) = http.call(Method::POST, AUTOSCALERS, &autoscaler).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    let one = format!("{AUTOSCALERS}/web");
    // Who names no revision means whichever there is.
    let label = |number: usize| json!({"metadata": {"labels": {format!("l{number}"): "x"}}});
    let patches: Vec<Value> = (0..WRITERS).map(label).collect();
    let sent = patches.iter().map(|patch| http.patch(&one, MERGE, patch));
    for (code, answer) in futures::future::join_all(sent).await {
        assert_eq!(code, StatusCode::OK, "{answer}");
    }
    let (_, mut now) = http.get(&one).await;
    assert_eq!(now["metadata"]["labels"].as_object().unwrap().len(), WRITERS);
    let old = &created["metadata"]["resourceVersion"];
    for revision in [old, &now["metadata"]["resourceVersion"].take()] {
        let stale = revision == old;
        let merge = json!({"metadata": {"resourceVersion": revision}, "spec": {"maxReplicas": 7}});
        let (code, answer) = http.patch(&one, MERGE, &merge).await;
        let wanted = if stale { StatusCode::CONFLICT } else { StatusCode::OK };
        assert_eq!(code, wanted, "{answer}");
    }
    let replace = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": old},
        {"op": "replace", "path": "/spec/maxReplicas", "value": 9},
    ]);
    let (code, answer) = http.patch(&one, "application/json-patch+json", &replace).await;
    assert_eq!(code, StatusCode::CONFLICT, "{answer}");
    assert_eq!(http.get(&one).await.1["spec"]["maxReplicas"], 7);
}

#[tokio::test]
async fn who_scales_owns_the_number_of_replicas() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let applied = |replicas: i64| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "web:1"}]},
                },
            },
        })
    };
    let one = format!("{DEPLOYMENTS}/web?fieldManager=applier");
    let (code, answer) = http.patch(&one, APPLY, &applied(1)).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let scale = format!("{DEPLOYMENTS}/web/scale?fieldManager=scaler");
    let (code, answer) = http.patch(&scale, MERGE, &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let (code, answer) = http.patch(&one, APPLY, &applied(2)).await;
    assert_eq!(code, StatusCode::CONFLICT, "{answer}");
    let cause = &answer["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&json!("FieldManagerConflict"), &json!(".spec.replicas"))
    );
    assert!(cause["message"].as_str().unwrap().contains("scaler"), "{cause}");
}
