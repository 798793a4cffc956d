#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds;
use crate::kinds_test::{ready, with, wrong, wrong_update};

fn role(rule: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "system:reader", "namespace": "default"},
        "rules": [rule],
    })
}

fn binding(subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "read", "namespace": "default"},
        "roleRef": {"kind": "Role", "name": "system:reader"},
        "subjects": [subject],
    })
}

#[test]
fn rules_of_roles() {
    let good = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    assert_eq!(wrong(role(good.clone())), Vec::<String>::new());
    for (rule, want) in [
        (
            with(good.clone(), "/verbs", json!([])),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            with(good.clone(), "/apiGroups", json!([])),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            with(good.clone(), "/resources", json!([])),
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ),
        (
            json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]}),
            "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot \
             apply to non-resource URLs",
        ),
    ] {
        assert_eq!(wrong(role(rule)), [want]);
    }
    let named = with(role(good), "/metadata/name", json!("a/b"));
    assert_eq!(wrong(named), ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]);
}

#[test]
fn subjects_of_bindings() {
    let user = binding(json!({"kind": "User", "name": "jane"}));
    let bound = ready(user.clone());
    assert_eq!(bound["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(bound["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(wrong(user.clone()), Vec::<String>::new());
    for (subject, want) in [
        (
            json!({"kind": "ServiceAccount", "name": "robot"}),
            "subjects[0].namespace: Required value",
        ),
        (json!({"kind": "User", "name": ""}), "subjects[0].name: Required value"),
        (
            json!({"kind": "Robot", "name": "r"}),
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \
             \"ServiceAccount\", \"User\"",
        ),
    ] {
        assert_eq!(wrong(binding(subject)), [want]);
    }
    let other = with(user.clone(), "/roleRef/name", json!("other"));
    let errors = wrong_update(other, user);
    assert!(errors[0].ends_with("cannot change roleRef"), "{errors:?}");
    let row = kinds::ROLE_BINDING.row(
        &ready(binding(json!({"kind": "ServiceAccount", "name": "robot", "namespace": "ci"}))),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(row[1], "Role/system:reader");
    assert_eq!(row[5], "ci/robot");
}

#[test]
fn aggregation_needs_selectors() {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "all"}, "aggregationRule": {},
    });
    assert_eq!(wrong(role).len(), 1);
}
