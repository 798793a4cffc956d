#![allow(clippy::unwrap_used)]

use quorate_objects::{FieldSelector, kinds};
use serde_json::json;

use super::*;
use crate::Object;

fn fields(kind: &'static Kind, value: &Value) -> Fields {
    look(kind, value.to_string().as_bytes()).unwrap().unwrap().fields
}

#[test]
fn the_place_for_the_resource_version_is_inside_the_metadata_of_the_object_itself() {
    // "data" comes first in the text, and looks like metadata.
    let data = json!({"metadata": "\"metadata\":{", "nested": "x"});
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                       "metadata": {"name": "a", "labels": {"metadata": "{"}}});
    let text = value.to_string();
    let stored = look(&kinds::CONFIG_MAP, text.as_bytes()).unwrap().unwrap();
    assert_eq!(stored.meta.name.as_deref(), Some("a"));
    let inside = stored.inside.unwrap();
    assert_eq!(&text[inside - 12..inside], "\"metadata\":{");
    assert!(text[inside..].starts_with("\"labels\""), "{}", &text[inside..]);
}

#[test]
fn text_that_others_have_written_has_no_known_place() {
    let text = br#"{ "metadata" : { "name": "a" } }"#;
    assert_eq!(look(&kinds::CONFIG_MAP, text).unwrap().unwrap().inside, None);
    let text = br#"{"metad\u0061ta":{"name":"a"}}"#;
    let stored = look(&kinds::CONFIG_MAP, text).unwrap().unwrap();
    assert_eq!((stored.inside, stored.meta.name.as_deref()), (None, Some("a")));
    assert!(look(&kinds::CONFIG_MAP, b"{}").unwrap().is_none());
    assert!(look(&kinds::CONFIG_MAP, b"{\"metadata\":7}").is_err());
    assert!(look(&kinds::CONFIG_MAP, b"{\"metadata\":{}} x").is_err());
    assert!(look(&kinds::CONFIG_MAP, b"[]").is_err());
}

#[test]
fn fields_are_found_where_selectors_say_whatever_is_around_them() {
    let pod = json!({"metadata": {"name": "a"}, "spec": {
        "containers": [{"nodeName": "no", "restartPolicy": ["no"]}], "hostNetwork": true,
        "nodeName": "n1", "priority": -1, "x": 1.5, "y": null, "schedulerName": null,
    }, "status": "none"});
    assert_eq!(fields(&kinds::POD, &pod), [("spec.nodeName", "n1".to_owned())]);
    let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}});
    assert_eq!(fields(&kinds::NODE, &node), [("spec.unschedulable", "true".to_owned())]);
    let event = json!({"metadata": {"name": "e"}, "reason": "Killed", "source": {
        "component": "agent", "host": "n1"}, "involvedObject": {"kind": "Pod", "name": "p"}});
    let mut found = fields(&kinds::EVENT, &event);
    found.sort_unstable();
    let text = |path, text: &str| (path, text.to_owned());
    assert_eq!(
        found,
        [
            text("involvedObject.kind", "Pod"),
            text("involvedObject.name", "p"),
            text("reason", "Killed"),
            text("source", "agent"),
        ]
    );
}

/// Numbers and truth values that are not set are 0 and false to selectors, and never empty.
#[test]
fn what_is_not_set_can_be_selected() {
    let matches = |kind: &'static Kind, rest: Value, selector: &str| {
        let mut value = rest;
        value["metadata"] = json!({"name": "a"});
        let object = Object::from_value(kind, value, 1).unwrap();
        object.matches_fields(&FieldSelector::parse(selector).unwrap())
    };
    let done = json!({"status": {"succeeded": 1}});
    for (kind, value, selector, other) in [
        (
            &kinds::NODE,
            json!({"spec": {}}),
            "spec.unschedulable=false",
            "spec.unschedulable!=false",
        ),
        (&kinds::NODE, json!({}), "spec.unschedulable!=true", "spec.unschedulable=true"),
        (&kinds::JOB, done.clone(), "status.successful=1", "status.successful!=1"),
        (&kinds::JOB, done, "status.successful!=0", "status.successful=0"),
        (&kinds::JOB, json!({}), "status.successful=0", "status.successful=1"),
        (&kinds::REPLICA_SET, json!({}), "status.replicas=0", "status.replicas!=0"),
        (&kinds::POD, json!({}), "spec.nodeName=", "spec.nodeName!="),
    ] {
        assert!(matches(kind, value.clone(), selector), "{kind} {value} {selector}");
        assert!(!matches(kind, value.clone(), other), "{kind} {value} {other}");
    }
}
