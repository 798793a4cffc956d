//! Nodes and pods for tests.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

/// A ready node with this much processor and memory.
pub fn node(name: &str, cpu: &str, memory: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A pod with these requests and no node.
pub fn pod(name: &str, cpu: &str, memory: &str) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
        "spec": {"containers": [{
            "name": "c",
            "image": "i",
            "resources": {"requests": {"cpu": cpu, "memory": memory}},
        }]},
    })
}

/// Decodes a node.
pub fn as_node(value: &Value) -> Node {
    serde_json::from_value(value.clone()).unwrap()
}

/// Decodes a pod.
pub fn as_pod(value: &Value) -> Pod {
    serde_json::from_value(value.clone()).unwrap()
}
