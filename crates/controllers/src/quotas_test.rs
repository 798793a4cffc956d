#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::fake::Cluster;

/// What is made counts itself; only what goes or shrinks is worth a count of the namespace.
#[tokio::test]
async fn only_what_may_use_less_is_looked_at() {
    let cluster = Cluster::new(0).await;
    let context = Arc::new(Context::new(cluster.registry.clone(), cluster.term(), "test"));
    let quotas = Quotas::new(context);
    let few = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": "default"},
        "spec": {"hard": {"pods": "3", "services": "3"}}});
    let few = cluster.create(few).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "a"}]}});
    let pending = cluster.create(pod).await;
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    let service = cluster.create(service).await;
    cluster.settle().await;
    let wanted = |kind: EventKind, object: &Arc<Object>| {
        let (object, revision) = (Some(Arc::clone(object)), object.revision);
        let keys = quotas.wants(&ObjectEvent { kind, object, revision });
        keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
    };
    let pod = || cluster.registry.cache().get(&kinds::POD, "default", "a").unwrap();
    assert!(wanted(EventKind::Added, &pending).is_empty());
    crate::fake::agent_step(&cluster.registry, "n1", &Default::default()).await;
    cluster.settle().await;
    let running = pod();
    assert_eq!(running.field("status.phase"), Some("Running"));
    assert!(wanted(EventKind::Modified, &running).is_empty());
    assert_eq!(wanted(EventKind::Deleted, &running), ["few"]);
    cluster.succeed("a").await;
    cluster.settle().await;
    assert_eq!(wanted(EventKind::Modified, &pod()), ["few"]);
    assert_eq!(wanted(EventKind::Modified, &service), ["few"]);
    assert_eq!(wanted(EventKind::Added, &few), ["few"]);
}

/// A master that did not know of it has perhaps admitted something meanwhile.
#[tokio::test]
async fn a_new_quota_is_counted_twice() {
    let cluster = Cluster::new(0).await;
    let context = Arc::new(Context::new(cluster.registry.clone(), cluster.term(), "test"));
    let quotas = Quotas::new(context);
    let few = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": "default"}, "spec": {"hard": {"pods": "3"}}});
    let few = cluster.create(few).await;
    cluster.settle().await;
    let again = quotas.reconcile(&key_of(&few)).await.unwrap();
    assert_eq!(again, Requeue::After(KNOWN_EVERYWHERE));
    cluster.settle().await;
    assert_eq!(quotas.reconcile(&key_of(&few)).await.unwrap(), Requeue::Done);
}
