use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures::{as_node, as_pod, node, pod};

#[test]
fn without_nodes() {
    let decision = decide(&ClusterSnapshot::new(1), &as_pod(&pod("p", "1", "1Gi")));
    let Outcome::Unschedulable(why) = decision.outcome else { panic!("there is no node") };
    assert_eq!(why.to_string(), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_per_node_in_the_words_of_kubernetes() {
    let mut snapshot = ClusterSnapshot::new(1);
    snapshot.set_node(&as_node(&node("n1", "1", "1Gi")));
    let mut tainted = node("n2", "8", "8Gi");
    tainted["spec"]["taints"] =
        json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
    snapshot.set_node(&as_node(&tainted));
    let decision = decide(&snapshot, &as_pod(&pod("p", "2", "1Gi")));
    let Outcome::Unschedulable(why) = &decision.outcome else { panic!("nothing fits") };
    assert_eq!(
        why.to_string(),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}."
    );
    assert_eq!(decision.trace.removed[&Filter::NodeResourcesFit].examples, ["n1"]);
    assert_eq!(decision.trace.removed[&Filter::TaintToleration].nodes, 1);
}

#[test]
fn replicas_are_spread_evenly() {
    let mut snapshot = ClusterSnapshot::new(7);
    for name in ["n1", "n2", "n3"] {
        snapshot.set_node(&as_node(&node(name, "16", "64Gi")));
    }
    let mut per_node = HashMap::<String, u32>::new();
    for n in 0..12 {
        let mut p = pod(&format!("p{n}"), "100m", "64Mi");
        p["metadata"]["labels"] = json!({"app": "web"});
        let p = as_pod(&p);
        let chosen = decide(&snapshot, &p).node().expect("there is room").to_owned();
        snapshot.assume(PodKey::of(&p), &Needs::of(&p), &chosen);
        *per_node.entry(chosen).or_default() += 1;
    }
    assert_eq!(per_node.values().copied().collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn a_large_cluster_is_not_searched_to_the_end() {
    let mut snapshot = ClusterSnapshot::new(7);
    for n in 0..1_000 {
        snapshot.set_node(&as_node(&node(&format!("n{n}"), "4", "8Gi")));
    }
    let decision = decide(&snapshot, &as_pod(&pod("p", "100m", "64Mi")));
    assert_eq!(decision.trace.examined, ENOUGH_NODES);
    assert_eq!(decision.trace.scores.len(), SCORES);
    // But a pod that only one node can take finds it.
    snapshot.set_node(&as_node(&node("big", "64", "8Gi")));
    assert_eq!(decide(&snapshot, &as_pod(&pod("p", "32", "64Mi"))).node(), Some("big"));
}

proptest! {
    /// Whatever is placed, no node is overcommitted, and the sums are right at the end.
    #[test]
    fn never_overcommits(
        seed: u64,
        sizes in prop::collection::vec((1..1500_i64, 1..1500_i64), 1..40),
        removals in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut snapshot = ClusterSnapshot::new(seed);
        for name in ["n1", "n2", "n3"] {
            snapshot.set_node(&as_node(&node(name, "4", "4Gi")));
        }
        let mut placed = Vec::new();
        for (n, (cpu, memory)) in sizes.iter().enumerate() {
            let mut p = pod(&format!("p{n}"), &format!("{cpu}m"), &format!("{memory}Mi"));
            let first = decide(&snapshot, &as_pod(&p));
            prop_assert_eq!(&first, &decide(&snapshot, &as_pod(&p)), "deterministic");
            if let Some(chosen) = first.node() {
                let object = as_pod(&p);
                snapshot.assume(PodKey::of(&object), &Needs::of(&object), chosen);
                // The cache shows it later; it must not count twice.
                p["spec"]["nodeName"] = json!(chosen);
                snapshot.set_pod(&as_pod(&p));
                snapshot.forget(&PodKey::of(&object));
                placed.push(object);
            }
            for node in snapshot.nodes() {
                let free = node.free();
                prop_assert!(free.cpu_millis >= 0 && free.memory_bytes >= 0 && free.pods >= 0);
            }
        }
        for index in removals {
            if !placed.is_empty() {
                let gone = placed.swap_remove(index.index(placed.len()));
                snapshot.remove_pod(&PodKey::of(&gone));
            }
        }
        let sum: i64 = snapshot.nodes().iter().map(|n| n.allocated.cpu_millis).sum();
        let expected: i64 = placed.iter().map(|p| Needs::of(p).requests.cpu_millis).sum();
        prop_assert_eq!(sum, expected);
        prop_assert_eq!(snapshot.pod_count(), placed.len());
    }
}
