use quorate_registry::Object;
use serde_json::{Value, json};

use super::*;

/// What a pod refers to, as `Kind/name`.
fn refers(spec: &Value, hollow: bool) -> Vec<String> {
    let mut spec = spec.clone();
    spec["containers"].as_array_mut().unwrap().first_mut().unwrap()["name"] = json!("main");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": "p", "namespace": "default", "uid": "u"}});
    let object = Object::from_value(&kinds::POD, pod, 1).unwrap();
    let found = references(&object, hollow);
    found.into_iter().map(|key| format!("{}/{}", key.kind.kind, key.name)).collect()
}

/// A pod with such a volume.
fn volume(source: &Value) -> Value {
    let mut volume = source.clone();
    volume["name"] = json!("v");
    json!({"containers": [{}], "volumes": [volume]})
}

#[test]
fn a_pod_without_references_needs_the_certificate_unless_it_is_hollow_or_refuses_it() {
    let plain = json!({"containers": [{"image": "a"}]});
    assert_eq!(refers(&plain, false), ["ConfigMap/kube-root-ca.crt"]);
    assert_eq!(refers(&plain, true), Vec::<String>::new());
    let refusing = json!({"containers": [{}], "automountServiceAccountToken": false});
    assert_eq!(refers(&refusing, false), Vec::<String>::new());
}

/// Each way to refer to something, alone: what is decided from the text alone misses none.
#[test]
fn every_reference_is_found() {
    let env =
        |source: Value| json!({"containers": [{"env": [{"name": "E", "valueFrom": source}]}]});
    let key = json!({"name": "x", "key": "k"});
    let cases = [
        (volume(&json!({"configMap": {"name": "x"}})), "ConfigMap/x"),
        (volume(&json!({"secret": {"secretName": "x"}})), "Secret/x"),
        (volume(&json!({"projected": {"sources": [{"secret": {"name": "x"}}]}})), "Secret/x"),
        (volume(&json!({"projected": {"sources": [{"configMap": {"name": "x"}}]}})), "ConfigMap/x"),
        (volume(&json!({"persistentVolumeClaim": {"claimName": "x"}})), "PersistentVolumeClaim/x"),
        (volume(&json!({"ephemeral": {}})), "PersistentVolumeClaim/p-v"),
        (json!({"containers": [{}], "imagePullSecrets": [{"name": "x"}]}), "Secret/x"),
        (json!({"containers": [{"envFrom": [{"configMapRef": {"name": "x"}}]}]}), "ConfigMap/x"),
        (json!({"containers": [{"envFrom": [{"secretRef": {"name": "x"}}]}]}), "Secret/x"),
        (
            json!({"containers": [{}],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
            "Secret/x",
        ),
        (env(json!({"configMapKeyRef": key})), "ConfigMap/x"),
        (env(json!({"secretKeyRef": key})), "Secret/x"),
    ];
    for (spec, wanted) in cases {
        assert_eq!(refers(&spec, true), [wanted], "{spec}");
    }
}
