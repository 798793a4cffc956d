#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::{other_versions, register, unregister};
use crate::kinds_test::{ready, with, wrong, wrong_update};
use crate::{FieldValidation, Kind, decode, decode_with};

/// Each test has a group of its own: the table is the process's.
fn definition(group: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("crontabs.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [
                {
                    "name": "v1beta1", "served": true, "storage": false,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    }},
                },
                {
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {
                                "cron": {"type": "string"},
                                "replicas": {"type": "integer", "default": 1},
                            }},
                            "status": {"type": "object", "properties": {
                                "replicas": {"type": "integer"},
                            }},
                        },
                    }},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.replicas",
                                  "statusReplicasPath": ".status.replicas"},
                    },
                    "additionalPrinterColumns": [
                        {"name": "Cron", "type": "string", "jsonPath": ".spec.cron"},
                        {"name": "Age", "type": "date", "priority": 1,
                         "jsonPath": ".metadata.creationTimestamp"},
                    ],
                },
            ],
        },
    })
}

/// Serves a definition as the controller accepts it.
fn serve(value: &Value) {
    let established = json!([{"type": "Established", "status": "True"}]);
    let mut value = value.clone();
    value["status"]["conditions"] = established;
    let typed: CustomResourceDefinition = serde_json::from_str(&value.to_string()).unwrap();
    register(&typed);
}

fn tab(group: &str) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"), "kind": "CronTab",
        "metadata": {"name": "a", "namespace": "default",
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"cron": "* * *"},
    })
}

#[test]
fn a_definition_makes_a_kind() {
    let group = "life.example.com";
    assert_eq!(Kind::by_gvk("life.example.com/v1", "CronTab"), None);
    let value = ready(definition(group));
    assert_eq!(value["spec"]["names"]["singular"], "crontab");
    assert_eq!(value["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(value["status"]["storedVersions"], json!(["v1"]));
    let typed: CustomResourceDefinition = serde_json::from_str(&value.to_string()).unwrap();
    register(&typed);
    assert_eq!(Kind::by_gvk("life.example.com/v1", "CronTab"), None, "not before it is accepted");
    serve(&value);
    let kind = Kind::by_gvk("life.example.com/v1", "CronTab").unwrap();
    assert!(kind.namespaced && kind.has_status && kind.is_custom());
    assert_eq!(kind.scale().unwrap().spec_replicas, "spec.replicas");
    assert_eq!(Kind::by_resource("crontabs.life.example.com"), Some(kind));
    let others = other_versions();
    let other = others.iter().find(|other| other.stored == kind).unwrap();
    assert_eq!((other.kind.version, other.stored.version), ("v1beta1", "v1"));
    let defaulted = ready(tab(group));
    assert_eq!(defaulted["spec"]["replicas"], 1);
    let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
    assert_eq!(kind.row(&defaulted, now), ["a", "* * *", "5m"]);
    assert!(kind.columns[2].wide);
    // The same definition again is the same kind, and costs nothing.
    serve(&value);
    assert!(std::ptr::eq(Kind::by_gvk("life.example.com/v1", "CronTab").unwrap(), kind));
    unregister("crontabs.life.example.com");
    assert_eq!(Kind::by_gvk("life.example.com/v1", "CronTab"), None);
    serve(&value);
    assert!(std::ptr::eq(Kind::by_gvk("life.example.com/v1", "CronTab").unwrap(), kind));
}

#[test]
fn schemas_change_in_place() {
    let group = "change.example.com";
    let value = definition(group);
    serve(&value);
    let kind = Kind::by_gvk("change.example.com/v1", "CronTab").unwrap();
    let with_image = with(tab(group), "/spec/image", json!("x"));
    let text = decode(with_image.clone(), kind).unwrap_err().to_string();
    assert!(text.ends_with("unknown field \"spec.image\""), "{text}");
    let loose = decode_with(with_image.clone(), kind, FieldValidation::Ignore).unwrap();
    assert!(loose["spec"].get("image").is_none());
    let place = "/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/image";
    serve(&with(value, place, json!({"type": "string"})));
    assert!(decode(with_image, kind).is_ok());
    let bad = with(tab(group), "/spec/cron", json!(5));
    assert_eq!(
        wrong(bad),
        ["spec.cron: Invalid value: \"integer\": spec.cron in body must be of type string: \
          \"integer\""]
    );
    let moved = with(tab(group), "/metadata/name", json!("b"));
    assert!(wrong_update(moved, tab(group))[0].starts_with("metadata.name: Invalid value"));
}

#[test]
fn definitions_are_checked() {
    let group = "check.example.com";
    assert_eq!(wrong(definition(group)), Vec::<String>::new());
    for (pointer, value, want) in [
        ("/metadata/name", json!("tabs.check.example.com"), "must be spec.names.plural"),
        ("/spec/group", json!("example"), "should be a domain with at least one dot"),
        ("/spec/scope", json!("World"), "supported values: \"Cluster\", \"Namespaced\""),
        ("/spec/versions/0/storage", json!(true), "must have exactly one version marked"),
        ("/spec/versions/0/schema", json!({}), "schemas are required"),
        (
            "/spec/versions/1/schema/openAPIV3Schema/properties/spec/pattern",
            json!("["),
            "must be a valid regular expression",
        ),
        (
            "/spec/versions/1/additionalPrinterColumns/0/type",
            json!("colour"),
            "supported values: \"integer\"",
        ),
    ] {
        let errors = wrong(with(definition(group), pointer, value));
        assert!(errors.iter().any(|error| error.contains(want)), "{pointer}: {errors:?}");
    }
    let cluster = with(definition(group), "/spec/scope", json!("Cluster"));
    assert!(wrong_update(cluster, definition(group))[0].ends_with("field is immutable"));
}
