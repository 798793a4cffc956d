use quorate_store::MemoryStore;
use serde_json::json;

use super::*;
use quorate_registry::{RegistryOptions, WriteOptions};

const PATIENCE: Duration = Duration::from_secs(20);

async fn registry() -> (Registry, Arc<Feeds>, tokio_util::sync::DropGuard) {
    let cancel = CancellationToken::new();
    let registry = Registry::start(MemoryStore::new(), RegistryOptions::default(), cancel.clone());
    registry.wait_synced(PATIENCE).await.unwrap();
    registry.ensure_system_objects(None).await.unwrap();
    let feeds = Feeds::start(registry.clone(), cancel.clone());
    // The watch has begun as soon as it tells of a change.
    let first = feeds.subscribe("first", true);
    registry.create(pod("first", "first"), &WriteOptions::default()).await.unwrap();
    tokio::time::timeout(PATIENCE, first.feed().changes()).await.unwrap();
    drop(first);
    (registry, feeds, cancel.drop_guard())
}

/// Names of what is marked, until `wanted` is among them.
async fn until(feed: &Feed, wanted: &str) -> Vec<String> {
    let mut names = Vec::new();
    let look = async {
        while !names.iter().any(|name| name == wanted) {
            match feed.changes().await {
                Dirty::Keys(keys) => names.extend(keys.into_iter().map(|key| key.name)),
                other => assert_eq!(other, Dirty::All),
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    names
}

fn pod(name: &str, node: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i:1"}]}})
}

fn config_map(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}})
}

fn service(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "x"}}})
}

#[tokio::test]
async fn a_node_is_told_of_its_own_pods_and_of_what_they_refer_to() {
    let (registry, feeds, _guard) = registry().await;
    let mut one = feeds.subscribe("n1", false);
    let two = feeds.subscribe("n2", true);
    one.refer([ObjectKey::new(&kinds::CONFIG_MAP, "default", "used")].into());
    let options = WriteOptions::default();
    for object in [
        pod("far", "n2"),
        config_map("unused"),
        service("web"),
        config_map("used"),
        pod("own", "n1"),
    ] {
        registry.create(object, &options).await.unwrap();
    }
    let mut names = until(one.feed(), "own").await;
    names.sort();
    assert_eq!(names, ["own", "used", "web"]);
    registry.create(pod("last", "n2"), &options).await.unwrap();
    assert_eq!(until(two.feed(), "last").await, ["far", "last"], "it wants no services");
}

#[tokio::test]
async fn who_has_gone_is_forgotten_and_a_newer_session_stays() {
    let (_registry, feeds, _guard) = registry().await;
    let mut old = feeds.subscribe("n1", false);
    old.refer([ObjectKey::new(&kinds::SECRET, "default", "s")].into());
    let new = feeds.subscribe("n1", false);
    drop(old);
    assert!(feeds.state.lock().nodes.contains_key("n1"));
    drop(new);
    assert!(feeds.state.lock().nodes.is_empty());
    let mut only = feeds.subscribe("n1", false);
    only.refer([ObjectKey::new(&kinds::SECRET, "default", "t")].into());
    only.refer(BTreeSet::new());
    assert!(!feeds.state.lock().references.contains_key(&ObjectKey::new(
        &kinds::SECRET,
        "default",
        "t"
    )));
}
