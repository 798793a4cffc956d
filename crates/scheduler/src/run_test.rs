#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

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
    registry
}

async fn create_node(registry: &Registry, name: &str, cpu: &str) {
    let mut value = node(name, cpu, "16Gi");
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Node");
    registry.create(value.clone(), &WriteOptions::default()).await.unwrap();
    registry.update_status(value, &WriteOptions::default()).await.unwrap();
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
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not reached: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_what_fits_says_why_the_rest_does_not_and_tries_again_when_room_comes() {
    let cancel = CancellationToken::new();
    let store = MemoryStore::new();
    let registry = registry(&store, &cancel).await;
    create_node(&registry, "n1", "2").await;
    let options =
        SchedulerOptions { back_off_first: Duration::from_millis(10), ..Default::default() };
    let task = tokio::spawn(run(registry.clone(), 1, options, cancel.clone()));
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
