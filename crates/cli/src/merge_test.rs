use super::*;

/// Applies `modified` to `current` as a master would.
fn applied(current: &Value, modified: &Value) -> Option<Value> {
    let patch = three_way(current, modified)?;
    let mut result = current.clone();
    apply(&mut result, &patch);
    Some(result)
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec})
}

#[test]
fn the_same_again_changes_nothing() {
    let wanted = object(json!({"replicas": 3, "list": [{"name": "a", "image": "i"}]}));
    let mut current = annotated(&wanted);
    current["spec"]["defaulted"] = json!(true);
    current["spec"]["list"][0]["pullPolicy"] = json!("Always");
    current["status"] = json!({"ready": 1});
    current["metadata"]["uid"] = json!("u");
    assert_eq!(three_way(&current, &wanted), None);
}

#[test]
fn changes_additions_and_removals() {
    let first = object(json!({"a": 1, "gone": 2, "map": {"x": 1, "y": 2}}));
    let mut current = annotated(&first);
    current["spec"]["foreign"] = json!("stays");
    let second = object(json!({"a": 5, "new": 3, "map": {"x": 1}}));
    let result = applied(&current, &second).unwrap();
    assert_eq!(result["spec"], json!({"a": 5, "new": 3, "map": {"x": 1}, "foreign": "stays"}));
    assert_eq!(three_way(&result, &second), None, "then nothing is left to do");
}

#[test]
fn a_value_that_others_changed_comes_back() {
    let wanted = object(json!({"replicas": 3}));
    let mut current = annotated(&wanted);
    current["spec"]["replicas"] = json!(7);
    assert_eq!(applied(&current, &wanted).unwrap()["spec"]["replicas"], 3);
}

#[test]
fn a_value_that_the_user_never_wrote_is_left_alone() {
    let wanted = object(json!({"image": "a"}));
    let mut current = annotated(&wanted);
    current["spec"]["replicas"] = json!(7);
    let result = applied(&current, &object(json!({"image": "b"}))).unwrap();
    assert_eq!(result["spec"], json!({"image": "b", "replicas": 7}));
}

#[test]
fn lists_with_keys_are_merged() {
    let first = object(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}));
    let mut current = annotated(&first);
    current["spec"]["containers"][0]["policy"] = json!("default");
    current["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "sidecar"}));
    let second = object(json!({"containers": [{"name": "a", "image": "2"}]}));
    let result = applied(&current, &second).unwrap();
    assert_eq!(
        result["spec"]["containers"],
        json!([{"name": "a", "image": "2", "policy": "default"}, {"name": "sidecar"}])
    );
}

#[test]
fn lists_without_keys_are_replaced() {
    let first = object(json!({"args": ["a", "b"]}));
    let second = object(json!({"args": ["b"]}));
    let result = applied(&annotated(&first), &second).unwrap();
    assert_eq!(result["spec"]["args"], json!(["b"]));
}

#[test]
fn an_object_that_was_created_without_apply_is_taken_over() {
    let current = object(json!({"a": 1, "b": 2}));
    let result = applied(&current, &object(json!({"a": 1}))).unwrap();
    assert_eq!(result["spec"], json!({"a": 1, "b": 2}));
    assert!(result["metadata"]["annotations"][LAST_APPLIED].is_string());
}

#[test]
fn numbers_and_their_texts_are_the_same_quantity() {
    let wanted = object(json!({"cpu": 1, "nothing": {}}));
    let mut current = annotated(&wanted);
    current["spec"] = json!({"cpu": "1"});
    assert_eq!(three_way(&current, &wanted), None);
}
