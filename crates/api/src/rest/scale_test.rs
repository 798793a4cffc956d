use quorate_objects::kinds;

use super::*;

#[test]
fn a_scale_is_made_of_an_object() {
    let value = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "labels": {"x": "y"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"replicas": 2},
    });
    let object = Object::from_value(&kinds::DEPLOYMENT, value, 7).unwrap();
    let scale = scale_of(&object, ScalePaths::APPS);
    assert_eq!(scale["spec"]["replicas"], 3);
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
    assert_eq!(scale["metadata"]["resourceVersion"], "7");
    assert!(scale["metadata"].get("labels").is_none());
}

#[test]
fn paths_may_be_deep() {
    assert_eq!(nested(".spec.a.b", 1.into()), json!({"spec": {"a": {"b": 1}}}));
    assert_eq!(at(&json!({"spec": {"a": 1}}), ".spec.a"), &json!(1));
}
