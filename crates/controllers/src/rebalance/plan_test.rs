#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn node(name: &str, spec: Value) -> Arc<Node> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
}

fn pods(owner: &str, node: &str, count: usize, change: impl Fn(&mut Value)) -> Vec<Arc<Pod>> {
    let one = |n: usize| {
        let mut value = json!({
            "metadata": {"name": format!("{owner}-{node}-{n}"), "annotations": {},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": owner, "uid": owner, "controller": true}]},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    };
    (0..count).map(one).collect()
}

fn planned(nodes: Vec<Arc<Node>>, pods: Vec<Vec<Arc<Pod>>>) -> Vec<(String, String)> {
    let moves = moves(&State { nodes, pods: pods.concat() });
    moves.into_iter().map(|m| (m.pod.metadata.name.clone().unwrap(), m.towards)).collect()
}

fn two() -> Vec<Arc<Node>> {
    vec![node("n1", json!({})), node("n2", json!({}))]
}

fn moved(pod: &str, node: &str) -> Vec<(String, String)> {
    vec![(pod.to_owned(), node.to_owned())]
}

#[test]
fn what_is_uneven_is_moved_one_by_one() {
    let plain = |owner, node, count| pods(owner, node, count, |_| {});
    assert_eq!(planned(two(), vec![plain("a", "n1", 2)]), moved("a-n1-0", "n2"));
    assert!(planned(two(), vec![plain("a", "n1", 1)]).is_empty(), "one is as good there");
    assert!(planned(two(), vec![plain("a", "n1", 2), plain("a", "n2", 1)]).is_empty());
    let owners = vec![plain("a", "n1", 2), plain("b", "n1", 4)];
    let order: Vec<_> = planned(two(), owners).into_iter().map(|(pod, _)| pod).collect();
    assert_eq!(order, ["b-n1-0", "a-n1-0"], "the worst first, one of each owner");
}

#[test]
fn single_pods_leave_a_crowded_node() {
    let singles = |count: usize| -> Vec<Vec<Arc<Pod>>> {
        (0..count).map(|n| pods(&format!("s{n}"), "n1", 1, |_| {})).collect()
    };
    assert!(planned(two(), singles(3)).is_empty());
    assert_eq!(planned(two(), singles(4)).len(), 4);
}

#[test]
fn what_stays_where_it_is() {
    let with = |change: fn(&mut Value)| planned(two(), vec![pods("a", "n1", 3, change)]);
    assert!(with(|v| v["metadata"]["annotations"][ANNOTATION] = json!("false")).is_empty());
    assert!(
        with(|v| v["metadata"]["ownerReferences"][0]["kind"] = json!("StatefulSet")).is_empty()
    );
    assert!(with(|v| v["status"]["conditions"][0]["status"] = json!("False")).is_empty());
    assert!(with(|v| v["spec"]["nodeSelector"] = json!({"disk": "ssd"})).is_empty());
    let claim = |v: &mut Value| {
        v["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]);
    };
    assert!(with(claim).is_empty());
    let tainted = json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]});
    let nodes = vec![node("n1", json!({})), node("n2", tainted)];
    assert!(planned(nodes, vec![pods("a", "n1", 3, |_| {})]).is_empty());
}
