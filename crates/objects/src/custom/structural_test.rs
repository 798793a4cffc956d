#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::check;
use crate::error::Errors;

fn wrong(properties: Value) -> Vec<String> {
    let mut errors = Errors::default();
    check(&json!({"type": "object", "properties": properties}), "s", &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_structural_is_taken() {
    let none = Vec::<String>::new();
    assert_eq!(
        wrong(json!({
            "metadata": {"type": "object", "properties": {"name": {"maxLength": 5}}},
            "spec": {
                "type": "object",
                "properties": {
                    "port": {
                        "x-kubernetes-int-or-string": true,
                        "anyOf": [{"type": "integer"}, {"type": "string"}],
                    },
                    "free": {"x-kubernetes-preserve-unknown-fields": true},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                    "list": {
                        "type": "array",
                        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                        "items": {
                            "type": "object", "required": ["id"],
                            "properties": {"id": {"type": "string", "pattern": "^a"}},
                        },
                        "default": [{"id": "a1"}],
                    },
                },
                "oneOf": [{"required": ["port"]}, {"properties": {"free": {"minLength": 1}}}],
            },
        })),
        none
    );
}

#[test]
fn what_is_not_says_where() {
    for (properties, want) in [
        (
            json!({"a": {}}),
            "s.properties[a].type: Required value: must not be empty for specified \
                            object fields",
        ),
        (
            json!({"a": {"type": "text"}}),
            "s.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \
             \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"a": {"type": "array"}}),
            "s.properties[a].items: Required value: must be specified",
        ),
        (
            json!({"a": {"type": "object", "properties": {"b": {"type": "string"}},
                         "additionalProperties": {"type": "string"}}}),
            "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties \
             are mutual exclusive",
        ),
        (
            json!({"a": {"type": "string", "pattern": "["}}),
            "s.properties[a].pattern: Invalid value: \"\": must be a valid regular expression: \
             error: unclosed character class",
        ),
        (
            json!({"a": {"type": "integer", "minimum": 3, "default": 1}}),
            "s.properties[a].default: Invalid value: 1: s.properties[a].default in body should be \
             greater than or equal to 3",
        ),
        (
            json!({"a": {"type": "object", "anyOf": [{"type": "string"}]}}),
            "s.properties[a].anyOf[0].type: Forbidden: must not be set within allOf, anyOf, oneOf \
             and not",
        ),
        (
            json!({"a": {"type": "array", "items": {"type": "string"},
                         "x-kubernetes-list-type": "map"}}),
            "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if \
             x-kubernetes-list-type is map",
        ),
        (
            json!({"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}}),
            "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the \
             runtime complexity becomes quadratic",
        ),
        (
            json!({"a": {"$ref": "#/x", "type": "string"}}),
            "s.properties[a].$ref: Forbidden: is not supported",
        ),
    ] {
        assert_eq!(wrong(properties), [want]);
    }
}

#[test]
fn limits_are_said() {
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "object", "properties": {"x": deep}});
    }
    assert!(wrong(json!({"a": deep}))[0].ends_with("schemas may be nested 64 deep"));
    let many: serde_json::Map<String, Value> =
        (0..25_000).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
    assert_eq!(
        wrong(many.into()).last().unwrap().split(": ").last(),
        Some("has more than 20000 schemas inside")
    );
    let long = "x".repeat(1024 * 1024);
    assert!(wrong(json!({"a": {"type": "string", "description": long}}))[0].contains("Too long"));
    let costly = wrong(json!({"a": {"type": "string", "pattern": "(a{1000}){1000}"}}));
    assert!(costly[0].contains("must be a valid regular expression"), "{costly:?}");
}
