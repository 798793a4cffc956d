use std::collections::HashMap;

use serde_json::json;

use super::*;
use crate::fixtures::{as_node, as_pod, node, pod};

#[test]
fn without_nodes() {
    let decision =
        decide(&mut ClusterSnapshot::new(), &Policy::default(), &as_pod(&pod("p", "1", "1Gi")));
    let Outcome::Unschedulable(why) = decision.outcome else { panic!("there is no node") };
    assert_eq!(why.to_string(), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_per_node_in_the_words_of_kubernetes() {
    let policy = Policy::default();
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("n1", "1", "1Gi")));
    let mut tainted = node("n2", "8", "8Gi");
    tainted["spec"]["taints"] =
        json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
    snapshot.set_node(&as_node(&tainted));
    let decision = decide(&mut snapshot, &policy, &as_pod(&pod("p", "2", "1Gi")));
    let Outcome::Unschedulable(why) = &decision.outcome else { panic!("nothing fits") };
    assert_eq!(
        why.to_string(),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}."
    );
    assert_eq!(decision.trace.removed[&Filter::NodeResourcesFit].examples, ["n1".into()]);
    assert_eq!(decision.trace.removed[&Filter::TaintToleration].nodes, 1);
}

#[test]
fn replicas_are_spread_evenly() {
    let policy = Policy { seed: 7, ..Policy::default() };
    let mut snapshot = ClusterSnapshot::new();
    for name in ["n1", "n2", "n3"] {
        snapshot.set_node(&as_node(&node(name, "16", "64Gi")));
    }
    let mut per_node = HashMap::<String, u32>::new();
    for n in 0..12 {
        let mut p = pod(&format!("p{n}"), "100m", "64Mi");
        p["metadata"]["labels"] = json!({"app": "web"});
        let p = as_pod(&p);
        let chosen = decide(&mut snapshot, &policy, &p).node().expect("there is room").to_owned();
        let class = snapshot.class_of(&p);
        snapshot.assume(PodKey::of(&p), &class, &chosen);
        *per_node.entry(chosen).or_default() += 1;
    }
    assert_eq!(per_node.values().copied().collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn a_large_cluster_is_not_searched_to_the_end() {
    let policy = Policy { seed: 7, ..Policy::default() };
    let mut snapshot = ClusterSnapshot::new();
    for n in 0..1_000 {
        snapshot.set_node(&as_node(&node(&format!("n{n}"), "4", "8Gi")));
    }
    let decision = decide(&mut snapshot, &policy, &as_pod(&pod("p", "100m", "64Mi")));
    assert_eq!(decision.trace.examined, policy.enough_nodes);
    assert_eq!(decision.trace.scores.len(), SCORES);
    // Traces are kept: without the room that all nodes took.
    assert_eq!(decision.trace.scores.capacity(), SCORES);
    // But a pod that only one node can take finds it.
    snapshot.set_node(&as_node(&node("big", "64", "8Gi")));
    assert_eq!(
        decide(&mut snapshot, &policy, &as_pod(&pod("p", "32", "64Mi"))).node(),
        Some("big")
    );
}

/// What is remembered of a node holds until it changes, whether few or many changes followed.
#[test]
fn a_node_that_has_room_again_is_found_whatever_changed_after_it() {
    let policy = Policy::default();
    for later in [0, 10, 5_000] {
        let mut snapshot = ClusterSnapshot::new();
        let small = |cordoned: bool| {
            let mut small = node("small", "1", "8Gi");
            small["spec"]["unschedulable"] = json!(cordoned);
            as_node(&small)
        };
        snapshot.set_node(&small(false));
        snapshot.set_node(&as_node(&node("full", "4", "8Gi")));
        let mut resident = pod("resident", "3", "64Mi");
        resident["spec"]["nodeName"] = json!("full");
        let resident = as_pod(&resident);
        snapshot.set_pod(&resident);
        let wanted = as_pod(&pod("p", "2", "64Mi"));
        for _ in 0..2 {
            let decision = decide(&mut snapshot, &policy, &wanted);
            assert_eq!((decision.node(), decision.trace.examined), (None, 2));
        }
        snapshot.remove_pod(&PodKey::of(&resident));
        for n in 0..later {
            snapshot.set_node(&small(n % 2 == 0));
        }
        let decision = decide(&mut snapshot, &policy, &wanted);
        assert_eq!(decision.node(), Some("full"), "after {later} changes");
        assert_eq!(decision.trace.removed[&Filter::NodeResourcesFit].examples, ["small".into()]);
    }
}
