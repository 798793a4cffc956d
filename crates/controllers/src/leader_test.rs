#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use proptest::prelude::*;
use quorate_objects::{kinds, pod};
use quorate_registry::{DeleteOptions, Object, Propagation};
use quorate_store::Store as _;
use serde_json::json;

use super::*;
use crate::fake::{Cluster, PATIENCE, deployment, options};

fn start(cluster: &Cluster) -> Leader {
    Leader::start(cluster.registry.clone(), cluster.term(), options())
}

/// Starts the work and waits until it has found all nodes ready: a pod that comes earlier may
/// find only one of them.
async fn start_ready(cluster: &Cluster) -> Leader {
    let leader = start(cluster);
    let ready = |n: &Arc<Object>| n.value()["status"]["conditions"][0]["status"] == json!("True");
    let all = |c: &Cluster| c.registry.cache().list(&kinds::NODE, None).iter().all(ready);
    cluster.until("all nodes are ready", all).await;
    leader
}

fn on_node(cluster: &Cluster, node: &str) -> usize {
    cluster.active().iter().filter(|p| pod::node_name(p) == Some(node)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_and_is_scaled() {
    let cluster = Cluster::new(2).await;
    let leader = start_ready(&cluster).await;
    cluster.create(deployment("web", 4, "a")).await;
    cluster.until("four pods are ready", |c| c.ready() == 4).await;
    assert_eq!(on_node(&cluster, "n1"), 2, "they are spread");
    cluster.scale("web", 1).await;
    let all = |c: &Cluster| c.registry.cache().list(&kinds::POD, None).len();
    cluster.until("one is left", |c| all(c) == 1).await;
    cluster
        .until("the status says so", |c| {
            let web = c.get(&kinds::DEPLOYMENT, "web").unwrap();
            web["status"]["availableReplicas"] == json!(1) && web["status"]["replicas"] == json!(1)
        })
        .await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_keeps_its_bounds_at_every_step() {
    let cluster = Cluster::new(3).await;
    let leader = start_ready(&cluster).await;
    let mut web = deployment("web", 4, "a");
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    cluster.create(web).await;
    cluster.until("it is ready", |c| c.ready() == 4).await;
    let set_image = |image: &'static str| {
        cluster.change(&kinds::DEPLOYMENT, "web", move |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        })
    };
    let mut watcher = cluster
        .registry
        .watch(Some(&kinds::POD), None, Selector::everything(), cluster.registry.cache().revision())
        .unwrap();
    let mut pods: std::collections::HashMap<_, _> =
        cluster.active().into_iter().map(|p| (p.metadata.name.clone(), p)).collect();
    set_image("b").await;
    let image =
        |p: &k8s_openapi::api::core::v1::Pod| p.spec.as_ref().unwrap().containers[0].image.clone();
    let observe = async {
        // Every single state that the store has been in.
        loop {
            let event = watcher.next().await.unwrap();
            let Some(object) = event.object else { continue };
            let object = object.typed::<k8s_openapi::api::core::v1::Pod>().unwrap();
            let name = object.metadata.name.clone();
            if event.kind == quorate_registry::EventKind::Deleted {
                pods.remove(&name);
            } else {
                pods.insert(name, object);
            }
            let active: Vec<_> = pods.values().filter(|p| pod::is_active(p)).collect();
            let ready = active.iter().filter(|p| pod::is_ready(p)).count();
            assert!(active.len() <= 5, "maxSurge: {} pods", active.len());
            assert!(ready >= 3, "maxUnavailable: {ready} pods are ready");
            if ready == 4 && active.iter().all(|p| image(p).as_deref() == Some("b")) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, observe).await.unwrap();
    let revision = |c: &Cluster| {
        c.get(&kinds::DEPLOYMENT, "web").unwrap()["metadata"]["annotations"]
            [crate::deployment::TEST_REVISION]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(revision(&cluster).as_deref(), Some("2"));
    // Back to the old template: its ReplicaSet is used again.
    set_image("a").await;
    cluster
        .until("it is rolled back", |c| {
            c.ready() == 4 && c.active().iter().all(|p| image(p).as_deref() == Some("a"))
        })
        .await;
    assert_eq!(revision(&cluster).as_deref(), Some("3"));
    assert_eq!(cluster.registry.cache().list(&kinds::REPLICA_SET, None).len(), 2);
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_template_takes_no_more_than_its_share() {
    let cluster = Cluster::new(2).await;
    cluster.broken.lock().insert("bad".into());
    let leader = start_ready(&cluster).await;
    cluster.create(deployment("web", 4, "good")).await;
    cluster.until("it is ready", |c| c.ready() == 4).await;
    cluster
        .change(&kinds::DEPLOYMENT, "web", |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("bad");
        })
        .await;
    // 25 % of 4: one more and one less.
    cluster.until("two of the new ones exist", |c| c.active().len() == 5 && c.ready() == 3).await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_and_its_return_noticed() {
    let cluster = Cluster::new(2).await;
    let leader = start_ready(&cluster).await;
    cluster.create(deployment("web", 4, "a")).await;
    cluster.until("it is ready", |c| c.ready() == 4 && on_node(c, "n2") == 2).await;
    cluster.dead.lock().insert("n2".into());
    cluster.until("all run on n1", |c| on_node(c, "n1") == 4 && c.ready() == 4).await;
    let deleting = cluster.registry.cache().pods_on("n2");
    assert_eq!(deleting.len(), 2, "the objects stay until the agent has its say");
    cluster.dead.lock().clear();
    cluster.until("the old ones are gone", |c| c.registry.cache().pods_on("n2").is_empty()).await;
    cluster
        .until("n2 is ready and has no taints", |c| {
            let node = c.registry.cache().get(&kinds::NODE, "", "n2").unwrap().value();
            let taints = node["spec"]["taints"].as_array().is_none_or(Vec::is_empty);
            taints && node["status"]["conditions"][0]["status"] == json!("True")
        })
        .await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_evicted_when_most_nodes_fall_silent() {
    let cluster = Cluster::new(3).await;
    let leader = start_ready(&cluster).await;
    cluster.create(deployment("web", 3, "a")).await;
    cluster.until("it is ready", |c| c.ready() == 3).await;
    let before: HashSet<_> = cluster.active().iter().map(|p| p.metadata.uid.clone()).collect();
    // One that is silent a moment longer than the others would be one of three, and not most.
    let all = ["n1", "n2", "n3"];
    cluster.silence(&all, true);
    cluster
        .until("all nodes are unknown", |c| {
            let nodes = c.registry.cache().list(&kinds::NODE, None);
            nodes.iter().all(|n| n.value()["status"]["conditions"][0]["status"] == json!("Unknown"))
        })
        .await;
    cluster.silence(&all, false);
    cluster
        .until("all nodes are ready", |c| {
            let nodes = c.registry.cache().list(&kinds::NODE, None);
            nodes.iter().all(|n| n.value()["status"]["conditions"][0]["status"] == json!("True"))
        })
        .await;
    let after: HashSet<_> = cluster.active().iter().map(|p| p.metadata.uid.clone()).collect();
    assert_eq!(before, after);
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_go_with_their_owner_or_stay() {
    let cluster = Cluster::new(1).await;
    let leader = start_ready(&cluster).await;
    let count = |c: &Cluster, kind| c.registry.cache().list(kind, Some("default")).len();
    for (propagation, left) in
        [(Propagation::Background, 0), (Propagation::Foreground, 0), (Propagation::Orphan, 1)]
    {
        cluster.create(deployment("web", 2, "a")).await;
        cluster.until("it is ready", |c| c.ready() == 2).await;
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        cluster.delete(&kinds::DEPLOYMENT, "web", options).await;
        cluster
            .until(&format!("{propagation:?} is done"), |c| {
                count(c, &kinds::DEPLOYMENT) == 0
                    && count(c, &kinds::REPLICA_SET) == left
                    && count(c, &kinds::POD) == 2 * left
            })
            .await;
    }
    leader.stop().await.unwrap();
}

/// A ConfigMap with these owners: apiVersion, the object itself, blockOwnerDeletion.
async fn owned(cluster: &Cluster, name: &str, owners: &[(&str, &Object, bool)]) -> Arc<Object> {
    let reference = |(version, owner, blocks): &(&str, &Object, bool)| {
        json!({"apiVersion": version, "kind": owner.kind.kind, "name": owner.name(),
            "uid": owner.uid(), "blockOwnerDeletion": blocks})
    };
    let references: Vec<_> = owners.iter().map(reference).collect();
    let meta = json!({"name": name, "namespace": "default", "ownerReferences": references});
    cluster.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependent_with_another_owner_keeps_nobody_waiting() {
    let cluster = Cluster::new(0).await;
    let leader = start(&cluster);
    let (a, b) = (owned(&cluster, "a", &[]).await, owned(&cluster, "b", &[]).await);
    owned(&cluster, "c", &[("v1", &a, true), ("v1", &b, true)]).await;
    let options =
        DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    cluster.delete(&kinds::CONFIG_MAP, "a", options).await;
    let gone = |c: &Cluster, name: &str| c.get(&kinds::CONFIG_MAP, name).is_none();
    cluster.until("its owner is gone", |c| gone(c, "a")).await;
    let left = cluster.get(&kinds::CONFIG_MAP, "c").unwrap()["metadata"]["ownerReferences"].clone();
    let left: Vec<_> = left.as_array().unwrap().iter().map(|one| &one["uid"]).collect();
    assert_eq!(left, [b.uid()]);
    cluster.delete(&kinds::CONFIG_MAP, "b", DeleteOptions::default()).await;
    cluster.until("with its last owner it goes", |c| gone(c, "c")).await;
    leader.stop().await.unwrap();
}

/// Whose owner it is nobody can tell: it stays, its users hear of it, and nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_without_a_namespace_has_no_owner_in_one() {
    let cluster = Cluster::new(0).await;
    let leader = start(&cluster);
    let owner = owned(&cluster, "owner", &[]).await;
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner.uid(), "blockOwnerDeletion": true});
    cluster
        .create(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "wide", "ownerReferences": [reference]}, "rules": [],
        }))
        .await;
    let told = |c: &Cluster| {
        let mut events = c.list(&kinds::EVENT).into_iter();
        events.any(|event| {
            let about = &event["involvedObject"];
            about["name"] == "wide" && event["reason"] == "OwnerRefInvalidNamespace"
        })
    };
    cluster.until("it is told", told).await;
    let options =
        DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    cluster.delete(&kinds::CONFIG_MAP, "owner", options).await;
    cluster.until("it is gone", |c| c.get(&kinds::CONFIG_MAP, "owner").is_none()).await;
    // The next one has been looked at after it.
    let next = owned(&cluster, "next", &[("v1", &owner, false)]).await;
    cluster
        .until("a real dependent goes", |c| c.get(&kinds::CONFIG_MAP, next.name()).is_none())
        .await;
    assert!(cluster.get(&kinds::CLUSTER_ROLE, "wide").is_some());
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_may_be_named_in_any_version_of_its_kind() {
    let cluster = Cluster::new(0).await;
    let leader = start(&cluster);
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let group = "owners.example.com";
    cluster
        .create(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("boxes.{group}")},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": "boxes", "kind": "Box"},
                "versions": [version("v1", true), version("v2", false)]},
        }))
        .await;
    let served = || quorate_objects::Kind::by_gvk("owners.example.com/v1", "Box");
    cluster.until("it is served", |_| served().is_some()).await;
    let meta = json!({"name": "owner", "namespace": "default"});
    let owner = json!({"apiVersion": format!("{group}/v1"), "kind": "Box", "metadata": meta});
    let owner = cluster.create(owner).await;
    let other = format!("{group}/v2");
    owned(&cluster, "dependent", &[(&other, &owner, true)]).await;
    let options =
        DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    cluster.delete(owner.kind, "owner", options).await;
    cluster
        .until("both are gone", |c| {
            c.get(&kinds::CONFIG_MAP, "dependent").is_none() && c.get(owner.kind, "owner").is_none()
        })
        .await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_ready_pods_and_nodes_have_their_own_addresses() {
    let cluster = Cluster::new(4).await;
    let leader = start_ready(&cluster).await;
    cluster
        .create(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .await;
    cluster.create(deployment("web", 3, "a")).await;
    let ready = |c: &Cluster| {
        let slices = c.registry.cache().list(&kinds::ENDPOINT_SLICE, Some("default"));
        let slices: Vec<_> = slices.iter().map(|slice| slice.value()).collect();
        let endpoints =
            slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        endpoints.filter(|e| e["conditions"]["ready"] == json!(true)).count()
    };
    cluster.until("three endpoints", |c| ready(c) == 3).await;
    cluster.scale("web", 1).await;
    cluster.until("one endpoint", |c| ready(c) == 1).await;
    let cidrs = |c: &Cluster| -> HashSet<String> {
        let nodes = c.registry.cache().list(&kinds::NODE, None);
        nodes
            .iter()
            .filter_map(|n| n.value()["spec"]["podCIDR"].as_str().map(str::to_owned))
            .collect()
    };
    cluster.until("four parts", |c| cidrs(c).len() == 4).await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_changes_nothing_and_ends() {
    let cluster = Cluster::new(1).await;
    let mut old = start(&cluster);
    cluster.create(deployment("web", 1, "a")).await;
    cluster.until("it is ready", |c| c.ready() == 1).await;
    let term = cluster.term();
    cluster.store.set_term(term + 1);
    // Nobody told the old one. What it tries now is refused, and it notices.
    cluster.scale("web", 3).await;
    tokio::time::timeout(PATIENCE, old.ended()).await.unwrap().unwrap();
    cluster.settle().await;
    assert_eq!(cluster.active().len(), 1);
    let new = start(&cluster);
    cluster.until("the new one scales", |c| c.ready() == 3).await;
    new.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lead_follows_leadership() {
    let cluster = Cluster::new(1).await;
    let cancel = CancellationToken::new();
    let task = tokio::spawn(lead(
        cluster.store.leadership(),
        cluster.registry.clone(),
        options(),
        cancel.clone(),
    ));
    cluster.create(deployment("web", 1, "a")).await;
    cluster.until("it is ready", |c| c.ready() == 1).await;
    cluster.store.step_down();
    cluster.store.set_term(7);
    cluster.scale("web", 2).await;
    cluster.until("it is scaled in term 7", |c| c.ready() == 2).await;
    cancel.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Leaders come and go at any moment while it is scaled: the end is exactly as many pods as
    /// wanted, and never has a ReplicaSet created more than it was told.
    #[test]
    fn no_double_creation_across_leaders(
        steps in prop::collection::vec((1..12_i64, 0..60_u64, any::<bool>()), 2..7),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let cluster = Cluster::new(2).await;
            cluster.create(deployment("web", 3, "a")).await;
            let mut leader = start(&cluster);
            let highest = steps.iter().map(|(n, _, _)| *n).max().unwrap_or(3).max(3);
            for (replicas, pause, killed) in &steps {
                cluster.scale("web", *replicas).await;
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                let present = i64::try_from(cluster.active().len()).unwrap();
                assert!(present <= highest, "{present} pods, never more than {highest} wanted");
                cluster.store.set_term(cluster.term() + 1);
                let next = start(&cluster);
                let old = std::mem::replace(&mut leader, next);
                if *killed {
                    // It goes on beside the new one until it notices by itself.
                    std::mem::forget(old);
                } else {
                    old.stop().await.unwrap();
                }
            }
            let wanted = usize::try_from(steps.last().unwrap().0).unwrap();
            let all = |c: &Cluster| c.registry.cache().list(&kinds::POD, None).len();
            cluster.until("exactly as many as wanted", |c| c.ready() == wanted && all(c) == wanted).await;
            leader.stop().await.unwrap();
        });
    }
}
