#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn service(target: serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "12345678-0"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": target}]},
    }))
    .unwrap()
}

fn pod(name: &str, port: i32, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": port}]},
            ]},
            "status": {"podIP": format!("10.0.0.{port}"), "phase": "Running",
                       "conditions": [{"type": "Ready", "status": status}]},
        }))
        .unwrap(),
    )
}

fn shape(slices: &[EndpointSlice]) -> Vec<(Option<i32>, usize)> {
    let shape = slices.iter().map(|slice| {
        let port = slice.ports.as_ref().unwrap().first().and_then(|port| port.port);
        let ready = |e: &&Endpoint| e.conditions.as_ref().unwrap().ready == Some(true);
        (port, slice.endpoints.as_ref().unwrap().iter().filter(ready).count())
    });
    shape.collect()
}

#[test]
fn ports_by_number_and_by_name() {
    let pods = [pod("a", 1, true), pod("b", 2, true), pod("c", 2, false)];
    let by_number = slices(&service(json!(8080)), &pods, |_| false);
    assert_eq!(shape(&by_number), [(Some(8080), 2)]);
    let by_name = slices(&service(json!("web")), &pods, |_| false);
    assert_eq!(shape(&by_name), [(Some(1), 1), (Some(2), 1)]);
    assert_eq!(shape(&slices(&service(json!(80)), &[], |_| false)), [(None, 0)]);
}

#[test]
fn pods_of_lost_nodes_and_pods_that_go_are_not_ready() {
    let mut going = Pod::clone(&pod("a", 1, true));
    going.metadata.deletion_timestamp = Some(quorate_objects::time::now());
    let pods = [Arc::new(going), pod("b", 2, true)];
    assert_eq!(shape(&slices(&service(json!(80)), &pods, |_| false)), [(Some(80), 1)]);
    assert_eq!(shape(&slices(&service(json!(80)), &pods, |node| node == "n1")), [(Some(80), 0)]);
}

#[test]
fn many_endpoints_are_cut_into_slices_with_different_names() {
    let pods: Vec<_> = (0..250).map(|n| pod(&format!("p{n}"), n, true)).collect();
    let slices = slices(&service(json!(80)), &pods, |_| false);
    assert_eq!(shape(&slices).iter().map(|(_, n)| *n).collect::<Vec<_>>(), [100, 100, 50]);
    let names: HashSet<_> = slices.iter().map(|slice| slice.metadata.name.clone()).collect();
    assert_eq!(names.len(), 3);
}
