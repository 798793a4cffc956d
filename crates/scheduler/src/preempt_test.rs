use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::decide::{Decision, Policy, decide};
use crate::fixtures::{as_node, as_pod, node, pod};
use crate::snapshot::ClusterSnapshot;

fn on(name: &str, cpu: &str, priority: i32, node: &str) -> Value {
    let mut p = pod(name, cpu, "0");
    p["spec"]["priority"] = json!(priority);
    p["spec"]["nodeName"] = json!(node);
    p["metadata"]["labels"] = json!({"app": name});
    p
}

fn cluster(nodes: &[&str], pods: &[Value]) -> ClusterSnapshot {
    let mut snapshot = ClusterSnapshot::new();
    for name in nodes {
        snapshot.set_node(&as_node(&node(name, "4", "4Gi")));
    }
    for pod in pods {
        snapshot.set_pod(&as_pod(pod));
    }
    snapshot
}

fn urgent(cpu: &str) -> Value {
    let mut p = pod("urgent", cpu, "0");
    p["spec"]["priority"] = json!(100);
    p
}

fn decided(snapshot: &mut ClusterSnapshot, pod: &Value) -> Decision {
    decide(snapshot, &Policy::default(), &as_pod(pod))
}

/// The node and the victims' names, in order.
fn victims(snapshot: &mut ClusterSnapshot, pod: &Value) -> Option<(String, Vec<String>)> {
    let preemption = decided(snapshot, pod).preemption?;
    let mut names: Vec<_> = preemption.victims.into_iter().map(|victim| victim.name).collect();
    names.sort();
    Some((preemption.node, names))
}

#[test]
fn as_few_and_as_unimportant_pods_as_possible_leave() {
    let mut snapshot = cluster(
        &["n1"],
        &[on("low", "1", 1, "n1"), on("mid", "1", 5, "n1"), on("big", "2", 3, "n1")],
    );
    let one = victims(&mut snapshot, &urgent("1"));
    assert_eq!(one, Some(("n1".into(), vec!["low".into()])));
    let three = victims(&mut snapshot, &urgent("3"));
    assert_eq!(three, Some(("n1".into(), vec!["big".into(), "low".into()])));
}

#[test]
fn the_node_with_the_least_important_victims_is_chosen() {
    let mut snapshot = cluster(
        &["n1", "n2", "n3"],
        &[on("a", "4", 5, "n1"), on("b", "4", 2, "n2"), on("c", "4", 200, "n3")],
    );
    assert_eq!(victims(&mut snapshot, &urgent("1")), Some(("n2".into(), vec!["b".into()])));
}

#[test]
fn nobody_leaves_for_what_would_not_fit_or_must_not_preempt() {
    let mut snapshot = cluster(&["n1"], &[on("equal", "3", 100, "n1"), on("low", "1", 0, "n1")]);
    assert_eq!(victims(&mut snapshot, &urgent("2")), None);
    assert!(victims(&mut snapshot, &urgent("1")).is_some());
    let mut polite = urgent("1");
    polite["spec"]["preemptionPolicy"] = json!("Never");
    assert_eq!(victims(&mut snapshot, &polite), None);
    let mut elsewhere = urgent("1");
    elsewhere["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    assert_eq!(victims(&mut snapshot, &elsewhere), None);
}

#[test]
fn disruption_budgets_are_respected_where_that_is_possible() {
    let budget = |allowed: i32| -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "b"},
            "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                       "expectedPods": 1},
        }))
        .expect("a budget")
    };
    let pods = [on("guarded", "4", 1, "n1"), on("other", "4", 50, "n2")];
    let mut snapshot = cluster(&["n1", "n2"], &pods);
    snapshot.budgets.set(&budget(0));
    assert_eq!(victims(&mut snapshot, &urgent("1")), Some(("n2".into(), vec!["other".into()])));
    snapshot.budgets.set(&budget(1));
    assert_eq!(victims(&mut snapshot, &urgent("1")), Some(("n1".into(), vec!["guarded".into()])));
    // When it cannot be respected, that is said.
    let mut snapshot = cluster(&["n1"], &pods[..1]);
    snapshot.budgets.set(&budget(0));
    let preemption = decided(&mut snapshot, &urgent("1")).preemption.expect("possible");
    assert_eq!(preemption.violations, 1);
}

#[test]
fn room_that_is_being_made_is_kept_and_made_once() {
    let mut snapshot = cluster(&["n1"], &[on("a", "2", 1, "n1"), on("b", "2", 1, "n1")]);
    let first = as_pod(&urgent("2"));
    let preemption = decided(&mut snapshot, &urgent("2")).preemption.expect("possible");
    let class = snapshot.class_of(&first);
    let key = crate::snapshot::PodKey::of(&first);
    snapshot.preempt(&key, &class, &preemption);
    // Asked again, the pod waits for who leaves already.
    let again = decided(&mut snapshot, &urgent("2")).preemption.expect("it still waits");
    assert_eq!((again.node.as_str(), again.victims.len()), ("n1", 0));
    // Another one does not count on that room …
    let mut second = urgent("2");
    second["metadata"]["name"] = json!("second");
    second["metadata"]["uid"] = json!("uid-second");
    let other = decided(&mut snapshot, &second).preemption.expect("possible");
    assert_eq!(other.victims.len(), 1);
    assert_ne!(other.victims, preemption.victims);
    // … nor does a pod of lower priority, when it is free.
    snapshot.remove_pod(&preemption.victims[0]);
    let lower = pod("lower", "2", "0");
    assert_eq!(decided(&mut snapshot, &lower).node(), None);
    assert_eq!(decided(&mut snapshot, &urgent("2")).node(), Some("n1"));
}

#[test]
fn who_must_not_be_near_leaves() {
    let mut shy = on("shy", "1", 1, "n1");
    shy["spec"]["affinity"]["podAntiAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "urgent"}},
        }],
    });
    let mut snapshot = cluster(&["n1"], &[shy, on("calm", "1", 1, "n1")]);
    let mut p = urgent("1");
    p["metadata"]["labels"] = json!({"app": "urgent"});
    assert_eq!(victims(&mut snapshot, &p), Some(("n1".into(), vec!["shy".into()])));
    // And whom the pod itself must not be near.
    let mut p = urgent("1");
    p["spec"]["affinity"]["podAntiAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "calm"}},
        }],
    });
    assert_eq!(victims(&mut snapshot, &p), Some(("n1".into(), vec!["calm".into()])));
}
