use serde_json::{Value, json};

use super::*;
use crate::fixtures::{as_node, as_pod, node, pod};
use crate::snapshot::ClusterSnapshot;

/// The reasons for which a pod may not run on a node; empty when it may.
fn reasons(on: &Value, of: &Value) -> Vec<String> {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(on));
    match check(&Needs::of(&as_pod(of)), NodeView::of(&snapshot, 0), None) {
        Ok(()) => Vec::new(),
        Err(reason) => reason.words(),
    }
}

fn reason(on: &Value, of: &Value) -> String {
    reasons(on, of).join("; ")
}

#[test]
fn a_plain_pod_runs_on_a_plain_node() {
    assert_eq!(reason(&node("n1", "2", "4Gi"), &pod("p", "1", "1Gi")), "");
}

#[test]
fn resources() {
    let n1 = node("n1", "1", "1Gi");
    assert_eq!(reason(&n1, &pod("p", "1", "1Gi")), "");
    assert_eq!(reason(&n1, &pod("p", "1001m", "1Gi")), "Insufficient cpu");
    assert_eq!(reason(&n1, &pod("p", "2", "2Gi")), "Insufficient cpu; Insufficient memory");
    let mut full = n1.clone();
    full["status"]["allocatable"]["pods"] = json!("0");
    assert_eq!(reason(&full, &pod("p", "0", "0")), "Too many pods");
    let mut special = n1.clone();
    special["status"]["allocatable"]["ephemeral-storage"] = json!("1Gi");
    special["status"]["capacity"] = json!({"example.com/gpu": "2"});
    let mut p = pod("p", "1", "1Gi");
    p["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi");
    p["spec"]["containers"][0]["resources"]["limits"] = json!({"example.com/gpu": "2"});
    assert_eq!(reason(&special, &p), "");
    assert_eq!(reason(&n1, &p), "Insufficient example.com/gpu");
    p["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("2Gi");
    p["spec"]["containers"][0]["resources"]["limits"] = json!({"example.com/gpu": "3"});
    assert_eq!(
        reason(&special, &p),
        "Insufficient ephemeral-storage; Insufficient example.com/gpu"
    );
}

#[test]
fn a_cordoned_node_takes_only_pods_that_tolerate_it() {
    let mut n1 = node("n1", "1", "1Gi");
    n1["spec"]["unschedulable"] = json!(true);
    let mut p = pod("p", "0", "0");
    assert_eq!(reason(&n1, &p), "node(s) were unschedulable");
    p["spec"]["tolerations"] =
        json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
    assert_eq!(reason(&n1, &p), "");
}

#[test]
fn a_node_that_is_not_ready_takes_only_pods_that_tolerate_it() {
    let mut n1 = node("n1", "1", "1Gi");
    n1["status"]["conditions"][0]["status"] = json!("Unknown");
    let mut p = pod("p", "0", "0");
    assert_eq!(reason(&n1, &p), "node(s) were not ready");
    p["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(reason(&n1, &p), "");
}

#[test]
fn taints_and_tolerations() {
    let mut n1 = node("n1", "1", "1Gi");
    n1["spec"]["taints"] = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
    let mut p = pod("p", "0", "0");
    assert_eq!(reason(&n1, &p), "node(s) had untolerated taint {gpu: yes}");
    for (toleration, tolerated) in [
        (json!({"key": "gpu", "value": "yes"}), true),
        (json!({"key": "gpu", "operator": "Equal", "value": "no"}), false),
        (json!({"key": "gpu", "operator": "Exists"}), true),
        (json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), false),
        (json!({"key": "other", "operator": "Exists"}), false),
        (json!({"operator": "Exists"}), true),
    ] {
        p["spec"]["tolerations"] = json!([toleration]);
        assert_eq!(reason(&n1, &p).is_empty(), tolerated, "{toleration}");
    }
    n1["spec"]["taints"][0]["effect"] = json!("PreferNoSchedule");
    p["spec"]["tolerations"] = json!([]);
    assert_eq!(reason(&n1, &p), "");
}

#[test]
fn node_name_and_selector() {
    let n1 = node("n1", "1", "1Gi");
    let mut p = pod("p", "0", "0");
    p["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "n1"});
    assert_eq!(reason(&n1, &p), "");
    p["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "n2"});
    assert_eq!(reason(&n1, &p), "node(s) didn't match Pod's node affinity/selector");
    p["spec"]["nodeSelector"] = json!({});
    p["spec"]["nodeName"] = json!("n2");
    assert_eq!(reason(&n1, &p), "node(s) didn't match the requested node name");
}

#[test]
fn required_affinity_with_every_operator() {
    let mut n1 = node("n1", "1", "1Gi");
    n1["metadata"]["labels"] = json!({"zone": "a", "cores": "8"});
    for (key, operator, values, matched) in [
        ("zone", "In", json!(["a", "b"]), true),
        ("zone", "In", json!(["b"]), false),
        ("zone", "NotIn", json!(["b"]), true),
        ("zone", "NotIn", json!(["a"]), false),
        ("disk", "NotIn", json!(["ssd"]), true),
        ("zone", "Exists", json!([]), true),
        ("disk", "Exists", json!([]), false),
        ("disk", "DoesNotExist", json!([]), true),
        ("cores", "Gt", json!(["7"]), true),
        ("cores", "Gt", json!(["8"]), false),
        ("cores", "Lt", json!(["9"]), true),
        ("zone", "Lt", json!(["9"]), false),
    ] {
        let mut p = pod("p", "0", "0");
        p["spec"]["affinity"]["nodeAffinity"] = json!({
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]},
            ]},
        });
        assert_eq!(reason(&n1, &p).is_empty(), matched, "{key} {operator} {values}");
    }
}

#[test]
fn terms_are_alternatives_and_an_empty_one_matches_nothing() {
    let n1 = node("n1", "1", "1Gi");
    let mut p = pod("p", "0", "0");
    let name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
    let required = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    p["spec"]["affinity"] = required(json!([name("n2"), name("n1")]));
    assert_eq!(reason(&n1, &p), "");
    p["spec"]["affinity"] = required(json!([{}]));
    assert!(!reason(&n1, &p).is_empty());
}

#[test]
fn host_ports() {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("n1", "1", "1Gi")));
    let with_port = |name: &str, protocol: &str, ip: &str| {
        let mut p = pod(name, "0", "0");
        p["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 80, "hostPort": 8080, "protocol": protocol, "hostIP": ip}]);
        p
    };
    let mut first = with_port("first", "TCP", "127.0.0.1");
    first["spec"]["nodeName"] = json!("n1");
    snapshot.set_pod(&as_pod(&first));
    for (protocol, ip, free) in [
        ("TCP", "", false),
        ("TCP", "127.0.0.1", false),
        ("TCP", "127.0.0.2", true),
        ("UDP", "", true),
    ] {
        let needs = Needs::of(&as_pod(&with_port("second", protocol, ip)));
        let view = NodeView::of(&snapshot, 0);
        assert_eq!(check(&needs, view, None).is_ok(), free, "{protocol} {ip}");
    }
}
