#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn merged(mut target: Value, patch: Value) -> Value {
    merge(&mut target, &patch).unwrap();
    target
}

#[test]
fn containers_are_merged_by_name() {
    let target = json!({"spec": {"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:1"}]}});
    let patch = json!({"spec": {"containers": [
        {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]},
        {"name": "b", "$patch": "delete"},
        {"name": "c", "image": "c:1"}]}});
    let want = json!({"spec": {"containers": [
        {"name": "a", "image": "a:2",
         "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "c", "image": "c:1"}]}});
    assert_eq!(merged(target, patch), want);
}

#[test]
fn ports_have_the_key_of_their_place() {
    let service = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let want = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080, "targetPort": 8080}]}});
    assert_eq!(merged(service, patch), want);
    let slice = json!({"ports": [{"port": 80}]});
    assert_eq!(merged(slice, json!({"ports": [{"port": 81}]})), json!({"ports": [{"port": 81}]}));
}

#[test]
fn directives() {
    let target = json!({"a": {"x": 1, "y": 2}, "strategy": {"type": "R", "rollingUpdate": {}},
                        "metadata": {"finalizers": ["a/b", "c/d"]}, "gone": 1});
    let patch = json!({
        "a": {"$patch": "replace", "z": 3},
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"], "finalizers": ["e/f"]},
        "gone": null});
    let want = json!({"a": {"z": 3}, "strategy": {"type": "Recreate"},
                      "metadata": {"finalizers": ["c/d", "e/f"]}});
    assert_eq!(merged(target, patch), want);
    assert!(merge(&mut json!({}), &json!({"a": {"$patch": "shred"}})).is_err());
    assert!(merge(&mut json!({}), &json!({"env": [{"value": 1}]})).is_err());
}

#[test]
fn order_of_lists() {
    let target = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                       "containers": [{"name": "c"}]});
    let names: Vec<Value> = merged(target, patch)["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].clone())
        .collect();
    assert_eq!(names, ["c", "b", "s", "a"]);
}
