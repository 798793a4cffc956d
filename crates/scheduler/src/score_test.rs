use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::fixtures::{as_node, as_pod, node, pod};
use crate::snapshot::ClusterSnapshot;

/// The points of the nodes, among each other.
fn scored<const N: usize>(
    snapshot: &mut ClusterSnapshot,
    pod: &Pod,
    names: [&str; N],
) -> [NodeScore; N] {
    let class = snapshot.class_of(pod);
    let slots = names.map(|name| snapshot.slot_of(name).expect("the node exists"));
    let scores = score(snapshot, &class, &Weights::default(), &slots);
    scores.try_into().expect("one for each")
}

#[test]
fn replicas_on_a_node_cost_more_than_any_load() {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("busy", "4", "4Gi")));
    snapshot.set_node(&as_node(&node("used", "4", "4Gi")));
    let owned = |name: &str, on: &str, owner: &str| {
        let mut p = pod(name, "1900m", "1900Mi");
        p["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": owner, "controller": true}]);
        p["spec"]["nodeName"] = json!(on);
        as_pod(&p)
    };
    snapshot.set_pod(&owned("a", "busy", "other"));
    snapshot.set_pod(&owned("b", "busy", "other"));
    snapshot.set_pod(&owned("c", "used", "mine"));
    let [busy, used] = scored(&mut snapshot, &owned("d", "", "mine"), ["busy", "used"]);
    assert!(busy.least_allocated < used.least_allocated);
    assert_eq!((busy.spread, used.spread), (1_000, 0));
    assert!(busy.total() > used.total());
}

#[test]
fn the_emptier_node_is_better() {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("small", "2", "2Gi")));
    snapshot.set_node(&as_node(&node("large", "8", "8Gi")));
    let p = as_pod(&pod("p", "1", "1Gi"));
    let [small, large] = scored(&mut snapshot, &p, ["small", "large"]);
    assert_eq!(small.least_allocated, 50);
    assert!(large.least_allocated > small.least_allocated);
}

#[test]
fn equal_shares_of_processor_and_memory_are_better() {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("even", "4", "4Gi")));
    snapshot.set_node(&as_node(&node("skewed", "4", "64Gi")));
    let p = as_pod(&pod("p", "2", "2Gi"));
    let [even, skewed] = scored(&mut snapshot, &p, ["even", "skewed"]);
    assert_eq!(even.balance, 100);
    assert!(skewed.balance < 60);
}

#[test]
fn preferences() {
    let mut tainted = node("tainted", "4", "4Gi");
    tainted["spec"]["taints"] = json!([{"key": "slow", "effect": "PreferNoSchedule"}]);
    tainted["metadata"]["labels"] = json!({"disk": "ssd"});
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&tainted));
    snapshot.set_node(&as_node(&node("plain", "4", "4Gi")));
    let mut p = pod("p", "0", "0");
    p["spec"]["affinity"]["nodeAffinity"] = json!({
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": {
            "matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}],
        }}],
    });
    let [tainted, plain] = scored(&mut snapshot, &as_pod(&p), ["tainted", "plain"]);
    assert_eq!((tainted.taints, plain.taints), (0, 3_000));
    assert_eq!((tainted.node_affinity, plain.node_affinity), (2_000, 0));
}

#[test]
fn pods_are_liked_and_disliked_both_ways() {
    let mut snapshot = ClusterSnapshot::new();
    for name in ["near", "far", "none"] {
        snapshot.set_node(&as_node(&node(name, "4", "4Gi")));
    }
    let term = |app: &str| {
        json!({"weight": 50, "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}},
        }})
    };
    let mut cache = pod("cache", "0", "0");
    cache["metadata"]["labels"] = json!({"app": "cache"});
    cache["spec"]["nodeName"] = json!("near");
    let mut shy = pod("shy", "0", "0");
    shy["metadata"]["labels"] = json!({"app": "shy"});
    shy["spec"]["nodeName"] = json!("far");
    shy["spec"]["affinity"]["podAntiAffinity"] =
        json!({"preferredDuringSchedulingIgnoredDuringExecution": [term("web")]});
    snapshot.set_pod(&as_pod(&cache));
    snapshot.set_pod(&as_pod(&shy));
    let mut web = pod("web", "0", "0");
    web["metadata"]["labels"] = json!({"app": "web"});
    web["spec"]["affinity"]["podAffinity"] =
        json!({"preferredDuringSchedulingIgnoredDuringExecution": [term("cache")]});
    let [near, far, none] = scored(&mut snapshot, &as_pod(&web), ["near", "far", "none"]);
    assert_eq!((near.pod_affinity, none.pod_affinity, far.pod_affinity), (2_000, 1_000, 0));
}

#[test]
fn images_that_are_there_and_domains_with_few_pods() {
    let mut snapshot = ClusterSnapshot::new();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        let mut object = node(name, "4", "4Gi");
        object["metadata"]["labels"]["zone"] = json!(zone);
        if name == "a1" {
            let names = json!(["docker.io/library/i:latest", "i:latest"]);
            object["status"]["images"] = json!([{"names": names, "sizeBytes": 900_000_000}]);
        }
        snapshot.set_node(&as_node(&object));
    }
    let mut there = pod("there", "0", "0");
    there["metadata"]["labels"] = json!({"app": "web"});
    there["spec"]["nodeName"] = json!("a2");
    snapshot.set_pod(&as_pod(&there));
    let mut p = pod("p", "0", "0");
    p["metadata"]["labels"] = json!({"app": "web"});
    p["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]);
    let [a1, a2, b1] = scored(&mut snapshot, &as_pod(&p), ["a1", "a2", "b1"]);
    assert!(a1.image_locality > 0 && a2.image_locality == 0);
    assert_eq!((a1.topology_spread, a2.topology_spread, b1.topology_spread), (0, 0, 2_000));
}

#[test]
fn ties_fall_by_seed_and_pod() {
    assert_eq!(tie_break(ticket(1, "a"), 7), tie_break(ticket(1, "a"), 7));
    assert_ne!(tie_break(ticket(1, "a"), 7), tie_break(ticket(2, "a"), 7));
    assert_ne!(tie_break(ticket(1, "a"), 7), tie_break(ticket(1, "b"), 7));
    let logs: Vec<_> = [1, 2, 3, 4, 6, 1024].map(thousandths_of_log).into();
    assert_eq!(logs, [0, 693, 1_039, 1_386, 1_732, 6_930]);
}

#[test]
fn weights_are_read_by_the_names_of_the_scores() {
    let weights: Weights = "leastallocated=0, MostAllocated=5".parse().expect("weights");
    assert_eq!(weights, Weights { least_allocated: 0, most_allocated: 5, ..Weights::default() });
    assert_eq!("".parse(), Ok(Weights::default()));
    for (text, message) in [
        ("MostAllocated", "\"MostAllocated\" is not NAME=NUMBER, with a number from 0 to 1000"),
        ("MostAllocated=-1", "\"MostAllocated=-1\" is not NAME=NUMBER"),
        ("Most=1", "there is no score \"Most\"; the scores are TaintToleration, "),
    ] {
        let error = text.parse::<Weights>().expect_err(text).to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn with_other_weights_nodes_are_filled_one_after_the_other() {
    let mut snapshot = ClusterSnapshot::new();
    for name in ["n1", "n2"] {
        snapshot.set_node(&as_node(&node(name, "4", "4Gi")));
    }
    let mut there = pod("there", "1", "1Gi");
    there["spec"]["nodeName"] = json!("n2");
    snapshot.set_pod(&as_pod(&there));
    let weights = "LeastAllocated=0,MostAllocated=1".parse().expect("weights");
    for (weights, chosen) in [(Weights::default(), "n1"), (weights, "n2")] {
        let policy = crate::Policy { weights, ..crate::Policy::default() };
        let decision = crate::decide(&mut snapshot, &policy, &as_pod(&pod("p", "1", "1Gi")));
        assert_eq!(decision.node(), Some(chosen));
    }
}
