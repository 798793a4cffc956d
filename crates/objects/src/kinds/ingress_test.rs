#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::KIND;
use crate::kinds_test::{ready, with, wrong};

fn ingress() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": "*.example.com", "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }]}}],
        },
    })
}

const PATH: &str = "/spec/rules/0/http/paths/0";

#[test]
fn rules() {
    assert_eq!(wrong(ingress()), Vec::<String>::new());
    let at = |field: &str| format!("{PATH}/{field}");
    let place = "spec.rules[0].http.paths[0]";
    for (value, want) in [
        (
            with(ingress(), "/spec/rules", json!([])),
            "spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified".into(),
        ),
        (
            with(ingress(), &at("path"), json!("x")),
            format!("{place}.path: Invalid value: \"x\": must be an absolute path"),
        ),
        (
            with(ingress(), &at("pathType"), json!("Regex")),
            format!(
                "{place}.pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \
                 \"ImplementationSpecific\", \"Prefix\""
            ),
        ),
        (
            with(ingress(), &at("backend"), json!({"service": {"name": "web"}})),
            format!(
                "{place}.backend.service.port: Required value: port name or number is required"
            ),
        ),
        (
            with(ingress(), "/spec/rules/0/host", json!("10.0.0.1")),
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP \
             address"
                .into(),
        ),
    ] {
        assert_eq!(wrong(value), [want]);
    }
}

#[test]
fn row() {
    let mut value = ready(ingress());
    value["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}});
    let row = KIND.row(&value, Timestamp::UNIX_EPOCH);
    assert_eq!(row[..5], ["web", "nginx", "*.example.com", "10.0.0.9", "80"]);
    value["spec"]["tls"] = json!([{"hosts": ["a.example.com"]}]);
    assert_eq!(KIND.row(&value, Timestamp::UNIX_EPOCH)[4], "80, 443");
}
