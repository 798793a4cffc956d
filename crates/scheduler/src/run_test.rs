#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use quorate_objects::{pod, storage};
use quorate_registry::{DeleteOptions, RegistryOptions, WriteOptions};
use quorate_store::MemoryStore;
use serde_json::json;

use super::*;
use crate::fixtures::{node, pod};

const PATIENCE: Duration = Duration::from_secs(20);

async fn registry(store: &Arc<MemoryStore>, cancel: &CancellationToken) -> Registry {
    let shared: quorate_store::SharedStore = Arc::clone(store) as _;
    let registry = Registry::start(shared, RegistryOptions::default(), cancel.clone());
    registry.wait_synced(PATIENCE).await.unwrap();
    registry.ensure_system_objects(None).await.unwrap();
    // A claim gets its class from the cache, when it is created.
    let classes = || registry.cache().list(&kinds::STORAGE_CLASS, None);
    until(&registry, "there is a storage class", || !classes().is_empty()).await;
    registry
}

async fn create_node(registry: &Registry, name: &str, cpu: &str) {
    let mut value = node(name, cpu, "16Gi");
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Node");
    registry.create(value.clone(), &WriteOptions::default()).await.unwrap();
    let written = registry.update_status(value, &WriteOptions::default()).await.unwrap();
    registry.cache().wait(written.revision, PATIENCE).await.unwrap();
}

async fn create_pod(registry: &Registry, name: &str, cpu: &str) {
    let mut value = pod(name, cpu, "1Mi");
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Pod");
    registry.create(value, &WriteOptions::default()).await.unwrap();
}

async fn until(registry: &Registry, what: &str, condition: impl Fn() -> bool) {
    let mut revision = registry.cache().subscribe();
    let wait = async {
        while !condition() {
            let _ = tokio::time::timeout(Duration::from_millis(50), revision.changed()).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        let kinds = [&kinds::POD, &kinds::PERSISTENT_VOLUME_CLAIM, &kinds::NODE];
        let objects = kinds.into_iter().flat_map(|kind| registry.cache().list(kind, None));
        let texts: Vec<_> = objects.map(|object| object.value().to_string()).collect();
        panic!("not reached: {what}; there is\n{}", texts.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_what_fits_says_why_the_rest_does_not_and_tries_again_when_room_comes() {
    let cancel = CancellationToken::new();
    let store = MemoryStore::new();
    let registry = registry(&store, &cancel).await;
    create_node(&registry, "n1", "2").await;
    let options =
        SchedulerOptions { back_off_first: Duration::from_millis(10), ..Default::default() };
    let task = tokio::spawn(run(Standby::new(registry.clone(), options), 1, cancel.clone()));
    for n in 0..3 {
        create_pod(&registry, &format!("p{n}"), "1").await;
    }
    let bound = || registry.cache().pods_on("n1").len();
    let waiting = || {
        let pods = registry.cache().list(&kinds::POD, None);
        pods.into_iter()
            .filter(|p| p.field("spec.nodeName").is_none_or(str::is_empty))
            .collect::<Vec<_>>()
    };
    let says_why = || {
        waiting().iter().any(|p| {
            let conditions = p.value()["status"]["conditions"].clone();
            conditions[0]["reason"] == json!("Unschedulable")
                && conditions[0]["message"] == json!("0/1 nodes are available: 1 Insufficient cpu.")
        })
    };
    until(&registry, "two are bound, one says why not", || bound() == 2 && says_why()).await;
    // Room comes: another node, then a deletion.
    create_pod(&registry, "p3", "1").await;
    create_node(&registry, "n2", "1").await;
    until(&registry, "one more is bound", || waiting().len() == 1).await;
    let name = registry.cache().pods_on("n1")[0].name().to_owned();
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    registry.delete(&kinds::POD, "default", &name, &now).await.unwrap();
    until(&registry, "all are bound", || waiting().is_empty()).await;
    assert_eq!(bound(), 2);
    // When the term is over, the scheduler ends by itself and binds nothing more.
    store.set_term(2);
    let names: Vec<_> =
        registry.cache().list(&kinds::POD, None).iter().map(|p| p.name().to_owned()).collect();
    for name in names {
        registry.delete(&kinds::POD, "default", &name, &now).await.unwrap();
    }
    create_pod(&registry, "late", "1").await;
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    assert_eq!(waiting().len(), 1);
    cancel.cancel();
}

fn pod_of(registry: &Registry, name: &str) -> Option<Arc<Pod>> {
    let object = registry.cache().get(&kinds::POD, "default", name)?;
    Some(object.typed::<Pod>().unwrap())
}

fn is_bound(registry: &Registry, name: &str) -> bool {
    pod_of(registry, name).is_some_and(|pod| pod::node_name(&pod).is_some())
}

async fn create(registry: &Registry, mut value: serde_json::Value) {
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Pod");
    registry.create(value, &WriteOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_important_pod_gets_the_room_of_another_and_both_are_told_why() {
    let cancel = CancellationToken::new();
    let store = MemoryStore::new();
    let registry = registry(&store, &cancel).await;
    create_node(&registry, "n1", "1").await;
    let explainer = Explainer::default();
    let options = SchedulerOptions {
        back_off_first: Duration::from_millis(10),
        explainer: explainer.clone(),
        ..Default::default()
    };
    let first = CancellationToken::new();
    let task = tokio::spawn(run(Standby::new(registry.clone(), options.clone()), 1, first.clone()));
    create_pod(&registry, "low", "1").await;
    until(&registry, "the first is bound", || is_bound(&registry, "low")).await;
    let mut high = pod("high", "1", "1Mi");
    high["spec"]["priorityClassName"] = json!("system-cluster-critical");
    create(&registry, high).await;
    let leaving = || pod_of(&registry, "low").is_none_or(|pod| pod::is_deleting(&pod));
    until(&registry, "it is asked to leave", leaving).await;
    // With its grace period, marked, and for the sake of a pod whose node is kept for it.
    let low = pod_of(&registry, "low").expect("it has a grace period");
    let mark = pod::condition(&low, "DisruptionTarget").expect("it is marked");
    assert_eq!(mark.reason.as_deref(), Some("PreemptionByScheduler"));
    let waiting = pod_of(&registry, "high").unwrap();
    let nominated = waiting.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    assert_eq!(nominated, Some("n1"));
    // A third one does not get in between.
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    create_pod(&registry, "third", "1").await;
    registry.delete(&kinds::POD, "default", "low", &now).await.unwrap();
    until(&registry, "the important one is bound", || is_bound(&registry, "high")).await;
    assert!(!is_bound(&registry, "third"));

    let told = explainer.explain("default", "low").await.unwrap();
    let last = told.history.last().map(|h| h.what.clone());
    assert_eq!(last.as_deref(), Some("preempted by default/high on n1"));
    let told = explainer.explain("default", "high").await.unwrap();
    assert_eq!((told.decision.node(), told.decided_at.is_some()), (Some("n1"), true));
    let missing = explainer.explain("default", "nobody").await;
    assert_eq!(missing, Err(ExplainError::NotFound("nobody".into())));

    // Another leader has no record, and decides again.
    first.cancel();
    task.await.unwrap();
    assert_eq!(explainer.explain("default", "high").await, Err(ExplainError::NotRunning));
    store.set_term(2);
    let second = CancellationToken::new();
    let task = tokio::spawn(run(Standby::new(registry.clone(), options), 2, second.clone()));
    let told = loop {
        match explainer.explain("default", "high").await {
            Ok(told) => break told,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!((told.decision.node(), told.decided_at, told.term), (Some("n1"), None, 2));
    second.cancel();
    task.await.unwrap();
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_told_the_node_before_its_pod_is_bound() {
    let cancel = CancellationToken::new();
    let registry = registry(&MemoryStore::new(), &cancel).await;
    create_node(&registry, "n1", "4").await;
    let standby = Standby::new(registry.clone(), SchedulerOptions::default());
    let task = tokio::spawn(run(standby, 1, cancel.clone()));
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "default", "name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
    });
    registry.create(claim, &WriteOptions::default()).await.unwrap();
    let mut value = pod("db", "1", "1Mi");
    value["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    create(&registry, value).await;
    until(&registry, "the pod is bound", || is_bound(&registry, "db")).await;
    let kind = &kinds::PERSISTENT_VOLUME_CLAIM;
    let claim = registry.cache().get(kind, "default", "data").unwrap();
    let node = &claim.value()["metadata"]["annotations"][storage::SELECTED_NODE];
    assert_eq!(node, &json!("n1"));
    cancel.cancel();
    task.await.unwrap();
}

/// What a standby knows of the cluster, in words.
fn known(standby: &Standby) -> (usize, usize, Vec<(String, i64)>) {
    let cluster = standby.follower.as_ref().expect("it has read everything");
    let nodes = cluster.snapshot.nodes().iter().filter(|node| node.exists);
    let mut nodes: Vec<_> =
        nodes.map(|node| (node.name.to_string(), node.allocated.cpu_millis)).collect();
    nodes.sort();
    (cluster.snapshot.pod_count(), cluster.queue.len(), nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_was_there_all_the_time_knows_what_one_that_begins_now_reads() {
    let cancel = CancellationToken::new();
    let store = MemoryStore::new();
    let registry = registry(&store, &cancel).await;
    create_node(&registry, "n1", "2").await;
    let mut early = Standby::new(registry.clone(), SchedulerOptions::default());
    early.step().await.unwrap();
    assert_eq!(known(&early), (0, 0, vec![("n1".into(), 0)]));

    let leader = CancellationToken::new();
    let standby = Standby::new(registry.clone(), SchedulerOptions::default());
    let task = tokio::spawn(run(standby, 1, leader.clone()));
    for n in 0..4 {
        create_pod(&registry, &format!("p{n}"), "1").await;
    }
    create_node(&registry, "n2", "1").await;
    let bound = || registry.cache().pods_on("n1").len() + registry.cache().pods_on("n2").len();
    until(&registry, "three are bound", || bound() == 3).await;
    leader.cancel();
    task.await.unwrap();
    // One goes, and comes again under its name.
    let name = registry.cache().pods_on("n1")[0].name().to_owned();
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    registry.delete(&kinds::POD, "default", &name, &now).await.unwrap();
    create_pod(&registry, &name, "1").await;

    until(&registry, "two wait", || registry.cache().list(&kinds::POD, None).len() == bound() + 2)
        .await;
    early.step().await.unwrap();
    let mut late = Standby::new(registry.clone(), SchedulerOptions::default());
    late.step().await.unwrap();
    assert_eq!(known(&early), known(&late));
    let nodes = vec![("n1".into(), 1_000), ("n2".into(), 1_000)];
    assert_eq!(known(&early), (2, 2, nodes));

    // It goes on where the earlier leader was, at once.
    store.set_term(2);
    let second = CancellationToken::new();
    let task = tokio::spawn(run(early, 2, second.clone()));
    until(&registry, "three are bound again", || bound() == 3).await;
    second.cancel();
    task.await.unwrap();
    cancel.cancel();
}

#[tokio::test]
async fn room_that_was_kept_for_a_pod_and_is_given_free_is_free_for_the_next_leader() {
    let cancel = CancellationToken::new();
    let registry = registry(&MemoryStore::new(), &cancel).await;
    create_node(&registry, "n1", "1").await;
    let mut value = pod("high", "1", "1Mi");
    (value["apiVersion"], value["kind"]) = (json!("v1"), json!("Pod"));
    value["metadata"]["uid"].take();
    let pod = registry.create(value.clone(), &WriteOptions::default()).await.unwrap();
    registry.cache().wait(pod.revision, PATIENCE).await.unwrap();
    let mut cluster = Follower::start(&registry, &SchedulerOptions::default()).await.unwrap();
    let kept = async |cluster: &mut Follower, node: Option<&str>| {
        let mut value = value.clone();
        value["status"] = json!({"nominatedNodeName": node, "phase": "Pending"});
        let written = registry.update_status(value, &WriteOptions::default()).await.unwrap();
        registry.cache().wait(written.revision, PATIENCE).await.unwrap();
        cluster.catch_up().await.unwrap();
        cluster.snapshot.node("n1").unwrap().nominated.len()
    };
    assert_eq!(kept(&mut cluster, Some("n1")).await, 1);
    assert_eq!(kept(&mut cluster, Some("n1")).await, 1);
    assert_eq!(kept(&mut cluster, None).await, 0);
    cancel.cancel();
}
