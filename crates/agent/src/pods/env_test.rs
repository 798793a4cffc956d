#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

struct Fixed;

impl Lookup for Fixed {
    fn config_map(&self, _namespace: &str, name: &str) -> Option<ConfigMap> {
        (name == "cm").then(|| serde_json::from_value(json!({"data": {"K": "v"}})).unwrap())
    }
    fn secret(&self, _namespace: &str, _name: &str) -> Option<Secret> {
        None
    }
    fn claim(&self, _namespace: &str, _name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        None
    }
    fn volume(&self, _name: &str) -> Option<Arc<PersistentVolume>> {
        None
    }
    fn services(&self, namespace: &str) -> Vec<Service> {
        let service = json!({
            "metadata": {"name": "my-db", "namespace": namespace},
            "spec": {"clusterIP": "10.9.0.7", "ports": [{"name": "sql", "port": 5432}]},
        });
        vec![serde_json::from_value(service).unwrap()]
    }
}

fn resolve(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "d", "labels": {"app": "x"}}
    }))
    .unwrap();
    let container = serde_json::from_value(container).unwrap();
    let node = NodeValues { pod_ip: "10.1.0.2".into(), ..Default::default() };
    variables(&pod, &container, &Fixed, &node)
}

#[test]
fn services_config_maps_fields_and_references_become_variables() {
    let all = resolve(json!({
        "name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
        "env": [
            {"name": "A", "value": "$(P_K)-$(NO)-$$(A)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "K"}}},
            {"name": "O", "valueFrom": {
                "secretKeyRef": {"name": "none", "key": "K", "optional": true}}},
        ],
    }))
    .unwrap();
    for (name, value) in [
        ("MY_DB_SERVICE_HOST", "10.9.0.7"),
        ("MY_DB_SERVICE_PORT", "5432"),
        ("MY_DB_SERVICE_PORT_SQL", "5432"),
        ("P_K", "v"),
        ("A", "v-$(NO)-$(A)"),
        ("IP", "10.1.0.2"),
        ("L", "x"),
        ("C", "v"),
    ] {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!all.contains_key("O"));
}

#[test]
fn a_missing_reference_is_named() {
    let error = resolve(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}));
    assert_eq!(error.unwrap_err(), "configmap \"no\" not found");
    let key = json!({"configMapKeyRef": {"name": "cm", "key": "no"}});
    let error = resolve(json!({"name": "c", "env": [{"name": "A", "valueFrom": key}]}));
    assert_eq!(error.unwrap_err(), "no key \"no\" in configmap \"cm\"");
}
