#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::KIND;
use crate::kinds_test::{ready, with, wrong};

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"port": 5432}],
            }],
        },
    })
}

#[test]
fn defaults() {
    let value = ready(policy());
    assert_eq!(value["spec"]["policyTypes"], json!(["Ingress"]));
    assert_eq!(value["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
    let both = ready(with(policy(), "/spec/egress", json!([{}])));
    assert_eq!(both["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(KIND.row(&value, Timestamp::UNIX_EPOCH)[1], "app=db");
}

#[test]
fn rules() {
    assert_eq!(wrong(policy()), Vec::<String>::new());
    for (pointer, value, want) in [
        (
            "/spec/policyTypes",
            json!(["Sideways"]),
            "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Egress\", \
             \"Ingress\"",
        ),
        (
            "/spec/ingress/0/from/0",
            json!({}),
            "spec.ingress[0].from[0]: Required value: must specify a peer",
        ),
        (
            "/spec/ingress/0/from/0/ipBlock/cidr",
            json!("10.0.0.0/64"),
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0/64\": must be a \
             valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
        (
            "/spec/ingress/0/ports/0/endPort",
            json!(80),
            "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal \
             to `port`",
        ),
    ] {
        let value = match pointer.rsplit_once('/') {
            // An item of a list is replaced as a whole.
            Some((_, "0")) => {
                let mut policy = policy();
                *policy.pointer_mut(pointer).unwrap() = value;
                policy
            }
            _ => with(policy(), pointer, value),
        };
        assert_eq!(wrong(value), [want]);
    }
}
