#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Schema;
use crate::error::Errors;

fn schema() -> Schema {
    Schema::new(json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object", "required": ["cron"],
                "properties": {
                    "cron": {"type": "string", "pattern": "^[0-9* ]+$", "maxLength": 20},
                    "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                    "mode": {"type": "string", "enum": ["Allow", "Forbid"], "default": "Allow"},
                    "port": {"x-kubernetes-int-or-string": true},
                    "since": {"type": "string", "format": "date-time", "nullable": true},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "rules": {
                        "type": "array", "maxItems": 2,
                        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "id": {"type": "integer"},
                                "weight": {"type": "number", "default": 1.5},
                            },
                        },
                    },
                    "either": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                               "type": "object",
                               "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
                },
            },
        },
    }))
    .unwrap()
}

fn wrong(spec: Value) -> Vec<String> {
    let mut errors = Errors::default();
    let object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {}, "spec": spec});
    schema().validate(&object, &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn errors_are_kubernetes() {
    let with = |field: &str, value: Value| {
        let mut spec = json!({"cron": "* * *"});
        spec[field] = value;
        wrong(spec)
    };
    assert_eq!(with("replicas", json!(3)), Vec::<String>::new());
    assert_eq!(wrong(json!({})), ["spec.cron: Required value"]);
    for (field, value, want) in [
        (
            "replicas",
            json!("3"),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type \
             integer: \"string\"",
        ),
        (
            "replicas",
            json!(0),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or \
             equal to 1",
        ),
        (
            "cron",
            json!("daily"),
            "spec.cron: Invalid value: \"daily\": spec.cron in body should match '^[0-9* ]+$'",
        ),
        (
            "mode",
            json!("Maybe"),
            "spec.mode: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\"",
        ),
        ("rules", json!([{"id": 1}, {"id": 1}]), "spec.rules[1]: Duplicate value: {\"id\":1}"),
        (
            "since",
            json!("yesterday"),
            "spec.since: Invalid value: \"yesterday\": spec.since in body must be of type \
             date-time: \"yesterday\"",
        ),
        (
            "either",
            json!({"a": "x", "b": "y"}),
            "spec.either: Invalid value: {\"a\":\"x\",\"b\":\"y\"}: spec.either in body must \
             validate one and only one schema (oneOf)",
        ),
        (
            "labels",
            json!({"a": 1}),
            "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type \
             string: \"integer\"",
        ),
    ] {
        assert_eq!(with(field, value), [want]);
    }
    for (field, fine) in [
        ("port", json!(80)),
        ("port", json!("http")),
        ("since", Value::Null),
        ("since", json!("2026-01-01T00:00:00Z")),
        ("either", json!({"a": "x"})),
        ("free", json!({"x": [1, {"y": null}]})),
    ] {
        assert_eq!(with(field, fine), Vec::<String>::new(), "{field}");
    }
    assert_eq!(with("port", json!(1.5)).len(), 1);
}

#[test]
fn unknown_fields_go_and_defaults_come() {
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "extra": 1,
        "spec": {
            "cron": "*", "crom": "*", "replicas": null,
            "free": {"any": {"thing": 1}}, "labels": {"a": "b"},
            "rules": [{"id": 1, "colour": "red"}],
        },
    });
    schema().prune(&mut object);
    schema().default(&mut object);
    assert_eq!(
        object,
        json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {
                "cron": "*", "replicas": 1, "mode": "Allow",
                "free": {"any": {"thing": 1}}, "labels": {"a": "b"},
                "rules": [{"id": 1, "weight": 1.5}],
            },
        })
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z*]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("cron|rules|spec|free|id|a|x", inner, 0..4)
                .prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes: no panic, and pruning or filling in twice is the same as once.
    #[test]
    fn pruning_and_defaults_settle(spec in any_json()) {
        let mut object = json!({"spec": spec});
        schema().prune(&mut object);
        schema().default(&mut object);
        let once = object.clone();
        schema().prune(&mut object);
        schema().default(&mut object);
        prop_assert_eq!(&object, &once);
        schema().validate(&object, &mut Errors::default());
    }
}
