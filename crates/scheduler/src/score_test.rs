use serde_json::json;

use super::*;
use crate::fixtures::{as_node, as_pod, node, pod};
use crate::snapshot::ClusterSnapshot;

fn scored(snapshot: &ClusterSnapshot, needs: &Needs, name: &str) -> NodeScore {
    score(needs, snapshot.node(name).expect("the node exists"))
}

#[test]
fn replicas_on_a_node_cost_more_than_any_load() {
    let mut snapshot = ClusterSnapshot::new(1);
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
    let needs = Needs::of(&owned("d", "", "mine"));
    let (busy, used) = (scored(&snapshot, &needs, "busy"), scored(&snapshot, &needs, "used"));
    assert!(busy.least_allocated < used.least_allocated);
    assert_eq!(used.spread, -1_000);
    assert!(busy.total() > used.total());
}

#[test]
fn the_emptier_node_is_better() {
    let mut snapshot = ClusterSnapshot::new(1);
    snapshot.set_node(&as_node(&node("small", "2", "2Gi")));
    snapshot.set_node(&as_node(&node("large", "8", "8Gi")));
    let needs = Needs::of(&as_pod(&pod("p", "1", "1Gi")));
    let (small, large) = (scored(&snapshot, &needs, "small"), scored(&snapshot, &needs, "large"));
    assert_eq!(small.least_allocated, 50);
    assert!(large.least_allocated > small.least_allocated);
}

#[test]
fn equal_shares_of_processor_and_memory_are_better() {
    let mut snapshot = ClusterSnapshot::new(1);
    snapshot.set_node(&as_node(&node("even", "4", "4Gi")));
    snapshot.set_node(&as_node(&node("skewed", "4", "64Gi")));
    let needs = Needs::of(&as_pod(&pod("p", "2", "2Gi")));
    assert_eq!(scored(&snapshot, &needs, "even").balance, 100);
    assert!(scored(&snapshot, &needs, "skewed").balance < 60);
}

#[test]
fn preferences() {
    let mut tainted = node("tainted", "4", "4Gi");
    tainted["spec"]["taints"] = json!([{"key": "slow", "effect": "PreferNoSchedule"}]);
    tainted["metadata"]["labels"] = json!({"disk": "ssd"});
    let mut snapshot = ClusterSnapshot::new(1);
    snapshot.set_node(&as_node(&tainted));
    let mut p = pod("p", "0", "0");
    p["spec"]["affinity"]["nodeAffinity"] = json!({
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": {
            "matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}],
        }}],
    });
    let points = scored(&snapshot, &Needs::of(&as_pod(&p)), "tainted");
    assert_eq!((points.taints, points.affinity), (-2_000, 500));
}

#[test]
fn ties_fall_by_seed_and_pod() {
    assert_eq!(tie_break(1, "a", "n"), tie_break(1, "a", "n"));
    assert_ne!(tie_break(1, "a", "n"), tie_break(2, "a", "n"));
    assert_ne!(tie_break(1, "a", "n"), tie_break(1, "b", "n"));
}
