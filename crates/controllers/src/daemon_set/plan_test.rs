#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn set(change: impl FnOnce(&mut Value)) -> DaemonSet {
    let mut value = json!({
        "metadata": {"name": "log", "namespace": "default", "uid": "u"},
        "spec": {"selector": {}, "template": {"spec": {"containers": []}},
            "updateStrategy": {"type": "RollingUpdate"}},
    });
    change(&mut value["spec"]);
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, spec: Value) -> Arc<Node> {
    let meta = json!({"name": name, "labels": {"disk": "ssd"}});
    Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap())
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (1..=count).map(|n| node(&format!("n{n}"), json!({}))).collect()
}

/// `(node, revision, state)`: state is `ready`, `unready`, `going` or `failed`.
fn pods(list: &[(&str, &str, &str)]) -> Vec<Arc<Pod>> {
    let one = |(place, (node, revision, state)): (usize, &(&str, &str, &str))| {
        let ready = if *state == "ready" { "True" } else { "False" };
        let mut value = json!({
            "metadata": {"name": format!("{node}-{revision}-{place}"),
                "creationTimestamp": format!("2026-01-01T00:00:0{place}Z"),
                "labels": {"controller-revision-hash": revision}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": if *state == "failed" { "Failed" } else { "Running" },
                "conditions": [{"type": "Ready", "status": ready}]},
        });
        if *state == "going" {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(value).unwrap())
    };
    list.iter().enumerate().map(one).collect()
}

fn planned(set: &DaemonSet, nodes: &[Arc<Node>], list: &[(&str, &str, &str)]) -> Plan {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    plan(&State { set, nodes, pods: pods(list), update: "new", now })
}

fn deleted(plan: &Plan) -> Vec<&str> {
    plan.delete.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

#[test]
fn one_pod_on_every_node() {
    let set = set(|_| {});
    assert_eq!(planned(&set, &nodes(3), &[]).create, ["n1", "n2", "n3"]);
    let pods = [("n1", "new", "ready"), ("n2", "new", "going")];
    let plan = planned(&set, &nodes(3), &pods);
    assert_eq!(plan.create, ["n3"], "one that goes holds the place until it is gone");
    let twice = [("n1", "new", "ready"), ("n1", "new", "ready")];
    assert_eq!(deleted(&planned(&set, &nodes(1), &twice)), ["n1-new-1"], "the elder stays");
    let failed = planned(&set, &nodes(1), &[("n1", "new", "failed")]);
    assert_eq!((deleted(&failed), failed.create.len()), (vec!["n1-new-0"], 0));
}

#[test]
fn only_where_the_template_allows() {
    let everywhere = set(|_| {});
    let taint =
        |key: &str, effect: &str| node("n1", json!({"taints": [{"key": key, "effect": effect}]}));
    let count = |set: &DaemonSet, node: Arc<Node>| planned(set, &[node], &[]).create.len();
    assert_eq!(count(&everywhere, taint("gpu", "NoSchedule")), 0);
    assert_eq!(count(&everywhere, node("n1", json!({"unschedulable": true}))), 1, "cordoned");
    let unreachable = "node.kubernetes.io/unreachable";
    assert_eq!(count(&everywhere, taint(unreachable, "NoExecute")), 1);
    let tolerant = set(|spec| {
        spec["template"]["spec"]["tolerations"] = json!([{"key": "gpu", "operator": "Exists"}]);
    });
    assert_eq!(count(&tolerant, taint("gpu", "NoSchedule")), 1);
    let selective = |value: &str| {
        let selector = json!({"disk": value});
        set(move |spec| spec["template"]["spec"]["nodeSelector"] = selector)
    };
    assert_eq!(count(&selective("ssd"), node("n1", json!({}))), 1);
    assert_eq!(count(&selective("hdd"), node("n1", json!({}))), 0);
    // A pod that is there: NoSchedule lets it stay, NoExecute does not.
    let ready = [("n1", "new", "ready")];
    assert!(planned(&everywhere, &[taint("gpu", "NoSchedule")], &ready).delete.is_empty());
    assert_eq!(planned(&everywhere, &[taint("gpu", "NoExecute")], &ready).delete.len(), 1);
    assert_eq!(planned(&selective("hdd"), &nodes(1), &ready).delete.len(), 1);
}

#[test]
fn a_rolling_update_takes_away_no_more_than_allowed() {
    let old = [("n1", "old", "ready"), ("n2", "old", "ready"), ("n3", "old", "ready")];
    assert_eq!(deleted(&planned(&set(|_| {}), &nodes(3), &old)), ["n1-old-0"]);
    let one_down = [("n1", "new", "unready"), ("n2", "old", "ready"), ("n3", "old", "ready")];
    assert!(planned(&set(|_| {}), &nodes(3), &one_down).delete.is_empty());
    let broken = [("n1", "old", "unready"), ("n2", "old", "ready")];
    assert_eq!(deleted(&planned(&set(|_| {}), &nodes(2), &broken)), ["n1-old-0"], "no loss");
    let half =
        set(|spec| spec["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": "50%"}));
    assert_eq!(planned(&half, &nodes(3), &old).delete.len(), 2);
    let manual = set(|spec| spec["updateStrategy"] = json!({"type": "OnDelete"}));
    assert!(planned(&manual, &nodes(3), &old).delete.is_empty());
}

#[test]
fn a_surge_puts_the_new_one_beside_the_old_one_first() {
    let surging = set(|spec| {
        spec["updateStrategy"]["rollingUpdate"] = json!({"maxSurge": 1, "maxUnavailable": 0});
    });
    let old = [("n1", "old", "ready"), ("n2", "old", "ready")];
    let plan = planned(&surging, &nodes(2), &old);
    assert_eq!((plan.create.clone(), plan.delete.len()), (vec!["n1".to_owned()], 0));
    let both = [("n1", "old", "ready"), ("n2", "old", "ready"), ("n1", "new", "unready")];
    let plan = planned(&surging, &nodes(2), &both);
    assert!(plan.create.is_empty() && plan.delete.is_empty());
    let done = [("n1", "old", "ready"), ("n2", "old", "ready"), ("n1", "new", "ready")];
    assert_eq!(deleted(&planned(&surging, &nodes(2), &done)), ["n1-old-0"]);
}

#[test]
fn the_status_counts_nodes() {
    let set = set(|_| {});
    let nodes =
        [nodes(2), vec![node("n3", json!({"taints": [{"key": "x", "effect": "NoSchedule"}]}))]]
            .concat();
    let list = [("n1", "new", "ready"), ("n2", "old", "unready"), ("n3", "new", "ready")];
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let state = State { set: &set, nodes: &nodes, pods: pods(&list), update: "new", now };
    let (status, _) = status(&state);
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (2, 2));
    assert_eq!((status.number_ready, status.number_misscheduled), (1, 1));
    assert_eq!((status.updated_number_scheduled, status.number_unavailable), (Some(1), Some(1)));
}

#[test]
fn a_pod_whose_node_went_before_it_was_bound_goes_too() {
    let set = set(|_| {});
    let unbound = |node: &str| {
        let mut object = new_pod(&set, "new", node);
        object.metadata.name = Some(format!("for-{node}"));
        Arc::new(object)
    };
    let mut list = vec![unbound("n1"), unbound("n9")];
    // What runs there, or what any node may get, is not decided here.
    list.extend(pods(&[("n9", "new", "ready"), ("", "new", "unready")]));
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let plan = plan(&State { set: &set, nodes: &nodes(1), pods: list, update: "new", now });
    assert_eq!((deleted(&plan), plan.create.len()), (vec!["for-n9"], 0));
}

#[test]
fn a_new_pod_says_which_node_it_belongs_to() {
    let set = set(|_| {});
    let pod = new_pod(&set, "h", "n2");
    assert_eq!((node_of(&pod), pod::node_name(&pod)), (Some("n2"), None), "the scheduler binds it");
    let labels: BTreeMap<String, String> = pod.metadata.labels.unwrap();
    assert_eq!(labels[HASH_LABEL], "h");
    let tolerations = pod.spec.unwrap().tolerations.unwrap();
    let lost = |t: &Toleration| t.key.as_deref() == Some("node.kubernetes.io/unreachable");
    assert!(tolerations.iter().any(|t| lost(t) && t.toleration_seconds.is_none()));
}
