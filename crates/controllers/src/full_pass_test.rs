//! What controllers look at regularly, of all the pods there are.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use quorate_objects::kinds;
use quorate_registry::DeleteOptions;
use serde_json::{Value, json};

use crate::context::Context;
use crate::controller::Controller;
use crate::fake::{self, Cluster};
use crate::nodes::{PodCollector, TaintEviction};
use crate::storage::EphemeralClaims;

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "app:1"}]},
    })
}

fn all(controller: &impl Controller) -> Vec<String> {
    let mut names: Vec<_> = controller.all().into_iter().map(|key| key.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn of_pods_only_those_are_looked_at_for_which_something_is_to_be_done() {
    let cluster = Cluster::new(0).await;
    // Nodes without agents, so that nothing changes by itself.
    cluster.create(fake::node("here")).await;
    let mut tainted = fake::node("tainted");
    tainted["spec"]["taints"] = json!([{"key": "example.com/out", "effect": "NoExecute"},
                                       {"key": "example.com/full", "effect": "NoSchedule"}]);
    cluster.create(tainted).await;
    let mut full = fake::node("full");
    full["spec"]["taints"] = json!([{"key": "example.com/full", "effect": "NoSchedule"}]);
    cluster.create(full).await;
    for (name, node) in
        [("a", "here"), ("leaves", "here"), ("lost", "gone"), ("out", "tainted"), ("b", "full")]
    {
        cluster.create(pod(name, node)).await;
    }
    let mut waits = pod("waits", "");
    waits["spec"]["volumes"] = json!([{"name": "scratch", "ephemeral": {
        "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
                                         "resources": {"requests": {"storage": "1Gi"}}}}}}]);
    cluster.create(waits).await;
    // The word alone brings no claim.
    let mut named = pod("named", "here");
    named["metadata"]["labels"] = json!({"kind": "ephemeral"});
    cluster.create(named).await;
    cluster.delete(&kinds::POD, "leaves", DeleteOptions::default()).await;
    cluster.settle().await;

    let context = || Arc::new(Context::new(cluster.registry.clone(), cluster.term(), "test"));
    let collector = PodCollector::new(context(), Duration::from_secs(60), Duration::from_secs(60));
    assert_eq!(all(&collector), ["leaves", "lost"]);
    assert_eq!(all(&TaintEviction::new(context(), 300)), ["out"]);
    assert_eq!(all(&EphemeralClaims::new(context())), ["waits"]);
}

#[tokio::test]
async fn a_node_that_was_missing_for_a_while_has_its_whole_grace_the_next_time() {
    let cluster = Cluster::new(0).await;
    cluster.create(pod("a", "late")).await;
    cluster.settle().await;
    let context = Arc::new(Context::new(cluster.registry.clone(), cluster.term(), "test"));
    let grace = Duration::from_millis(200);
    let collector = PodCollector::new(context, Duration::from_secs(60), grace);
    let key = collector.all().remove(0);
    collector.reconcile(&key).await.unwrap();
    cluster.create(fake::node("late")).await;
    cluster.settle().await;
    // No news of the node came through, only the regular look at everything.
    assert_eq!(all(&collector), Vec::<String>::new());
    let options = DeleteOptions::default();
    cluster.registry.delete(&kinds::NODE, "", "late", &options).await.unwrap();
    cluster.settle().await;
    tokio::time::sleep(grace).await;
    collector.reconcile(&key).await.unwrap();
    cluster.settle().await;
    assert!(cluster.get(&kinds::POD, "a").is_some(), "it is missing since just now");
}
