//! Whatever a patch is, it ends in an object or in an error, and what is stored can be read.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use quorate_objects::{FieldValidation, kinds};
use serde_json::json;

use super::*;
use crate::registry_test::fixture;
use crate::{ApplyOptions, Code, Consistency};

/// What patches are made of: fields that are there, directives, and others.
const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "containers",
    "template",
    "ports",
    "containerPort",
    "protocol",
    "env",
    "selector",
    "replicas",
    "apiVersion",
    "kind",
    "fieldsV1",
    "manager",
    "creationTimestamp",
    "$patch",
    "$retainKeys",
    "delete",
    "replace",
    "merge",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "web",
    "",
    "0",
    "-",
    "~",
    "a/b",
    "f:x",
    "k:{}",
    "v:1",
    ".",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => prop::sample::select(WORDS).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn pointer() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 0..5).prop_map(|words| {
        words.iter().map(|word| format!("/{}", word.replace('/', "~1"))).collect()
    })
}

fn operations() -> impl Strategy<Value = Value> {
    let names =
        prop::sample::select(&["add", "remove", "replace", "move", "copy", "test", "x"][..]);
    let operation = (names, pointer(), pointer(), value()).prop_map(
        |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
    );
    prop::collection::vec(operation, 0..6).prop_map(Value::from)
}

/// Random bytes, random values, and values that begin like the object.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let inside = value().prop_map(|inner| json!({"metadata": {"name": "web"}, "spec": inner}));
    let deeper = value().prop_map(|inner| json!({"spec": {"template": {"spec": inner}}}));
    let text = |value: Value| value.to_string().into_bytes();
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..40),
        4 => value().prop_map(text),
        4 => operations().prop_map(text),
        2 => inside.prop_map(text),
        2 => deeper.prop_map(text),
    ]
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "default", "finalizers": ["a/b"], "labels": {"a": "b"},
        },
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]},
                ]},
            },
        },
    })
}

#[test]
fn any_patch_has_an_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let f = runtime.block_on(fixture());
    let options = WriteOptions::default();
    runtime.block_on(f.registry.create(deployment(), &options)).unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) };
    let kinds =
        prop::sample::select(&[PatchKind::Json, PatchKind::Merge, PatchKind::Strategic][..]);
    let parts = prop::sample::select(&[Subresource::Main, Subresource::Status][..]);
    let case = (prop::option::of(kinds), parts, any::<bool>(), body());
    TestRunner::new(config)
        .run(&case, |(how, part, strict, body)| {
            runtime.block_on(async {
                let write = WriteOptions {
                    field_validation: if strict {
                        FieldValidation::Strict
                    } else {
                        FieldValidation::Ignore
                    },
                    field_manager: Some("m".into()),
                    ..WriteOptions::default()
                };
                let (kind, registry) = (&kinds::DEPLOYMENT, &f.registry);
                let done = match how {
                    Some(how) => {
                        registry.patch(kind, "default", "web", how, &body, part, &write).await
                    }
                    None => {
                        let Ok(applied) = serde_json::from_slice::<Value>(&body) else {
                            return Ok(());
                        };
                        let options = ApplyOptions { manager: "a".into(), force: true, write };
                        let done =
                            registry.apply(kind, "default", "web", &applied, part, &options).await;
                        done.map(|applied| applied.object)
                    }
                };
                if let Err(error) = &done {
                    prop_assert!(!matches!(error, RegistryError::Internal(_)), "{error}");
                }
                let consistency = Consistency::Linearizable;
                let found = registry.get(kind, "default", "web", consistency).await.unwrap();
                prop_assert!(found.typed::<Deployment>().is_ok());
                Ok(())
            })
        })
        .unwrap();
}

fn apply_to(value: Value, patch: Value) -> Result<Value, RegistryError> {
    apply(&ObjectKey::new(&kinds::CONFIG_MAP, "default", "m"), PatchKind::Json, &patch, value)
}

#[test]
fn copies_are_bounded() {
    let start = || json!({"metadata": {}, "x": "0123456789"});
    let copy = |path: &str| json!({"op": "copy", "from": "", "path": path});
    // Each doubles the whole.
    let bomb: Vec<Value> = (0..40).map(|number| copy(&format!("/c{number}"))).collect();
    let text = apply_to(start(), bomb.into()).unwrap_err().to_string();
    assert!(text.contains("its copies are more than 3145728 bytes"), "{text}");
    // Each nests the whole once more; no stack is deep enough for what a body can ask for.
    let deep: Vec<Value> = (0..200).map(|number| copy(&"/a".repeat(number + 1))).collect();
    let text = apply_to(start(), deep.into()).unwrap_err().to_string();
    assert!(text.contains("nests deeper than 100 levels"), "{text}");
    let many: Vec<Value> =
        (0..10_001).map(|_| json!({"op": "test", "path": "/x", "value": "0123456789"})).collect();
    let text = apply_to(start(), many.into()).unwrap_err().to_string();
    assert!(text.contains("maximum operations in a JSON patch is 10000, got 10001"), "{text}");
    let fine = apply_to(start(), json!([copy("/c")])).unwrap();
    assert_eq!(fine["c"]["x"], "0123456789");
}

#[test]
fn what_is_patched_stays_an_object_with_metadata() {
    for path in ["", "/metadata"] {
        for value in [json!(5), json!("x"), json!([]), Value::Null] {
            let patch = json!([{"op": "replace", "path": path, "value": value}]);
            let error = apply_to(json!({"metadata": {"name": "m"}}), patch).unwrap_err();
            assert!(matches!(error, RegistryError::Invalid(_)), "{error}");
        }
    }
    let key = ObjectKey::new(&kinds::CONFIG_MAP, "default", "m");
    for how in [PatchKind::Merge, PatchKind::Strategic] {
        let patch = json!({"metadata": "x"});
        assert!(apply(&key, how, &patch, json!({"metadata": {"name": "m"}})).is_err());
    }
}

/// A list as long as a request can carry is not compared item by item with itself.
#[test]
fn long_lists_are_merged_quickly() {
    let list = |count: usize| -> Value {
        (0..count).map(|number| json!({"name": format!("c{number}"), "image": "i"})).collect()
    };
    let pod = |count| json!({"metadata": {}, "spec": {"containers": list(count)}});
    let start = Instant::now();
    let key = ObjectKey::new(&kinds::POD, "default", "p");
    let merged = apply(&key, PatchKind::Strategic, &pod(30_000), pod(30_000)).unwrap();
    assert_eq!(merged["spec"]["containers"].as_array().unwrap().len(), 30_000);
    // Item by item it takes minutes.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// A patch may say which object it is of, and at which revision, as every kind of patch can.
#[tokio::test]
async fn patches_are_of_the_object_that_is_meant() {
    let f = fixture().await;
    let options = WriteOptions::default();
    let map = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": value},
            "metadata": {"name": "a", "namespace": "default"}})
    };
    let old = f.registry.create(map("1"), &options).await.unwrap();
    let changed = f.registry.update(map("2"), &options).await.unwrap();
    assert!(changed.revision > old.revision);
    let patch = async |kind: PatchKind, body: Value| {
        let (body, of, main) = (body.to_string(), &kinds::CONFIG_MAP, Subresource::Main);
        f.registry.patch(of, "default", "a", kind, body.as_bytes(), main, &options).await
    };
    let fields = |field: &str, value: Value| {
        let merge = json!({"metadata": {field: value}, "data": {"new": "x"}});
        let path = format!("/metadata/{field}");
        let operations = json!([{"op": "add", "path": path, "value": value}]);
        [
            (PatchKind::Merge, merge.clone()),
            (PatchKind::Strategic, merge),
            (PatchKind::Json, operations),
        ]
    };
    for (kind, body) in fields("uid", json!("other")) {
        let error = patch(kind, body).await.unwrap_err();
        let text = "metadata.uid: Invalid value: \"other\": field is immutable";
        assert_eq!(error.fields()[0].to_string(), text, "{kind:?}");
    }
    for (kind, body) in fields("resourceVersion", json!(old.revision.to_string())) {
        assert!(patch(kind, body).await.unwrap_err().is_conflict(), "{kind:?}");
    }
    for (kind, body) in fields("resourceVersion", json!("old")) {
        assert_eq!(patch(kind, body).await.unwrap_err().code(), Code::Invalid, "{kind:?}");
    }
    for (kind, body) in fields("uid", json!(old.uid())) {
        patch(kind, body).await.unwrap();
    }
    for (kind, body) in fields("uid", Value::Null) {
        assert_eq!(patch(kind, body).await.unwrap().uid(), old.uid(), "{kind:?}");
    }
    let of = Consistency::Linearizable;
    let now = f.registry.get(&kinds::CONFIG_MAP, "default", "a", of).await.unwrap().revision;
    let body = json!({"metadata": {"resourceVersion": now.to_string()}, "data": {"key": "3"}});
    assert!(patch(PatchKind::Merge, body.clone()).await.unwrap().revision > now);
    assert!(patch(PatchKind::Merge, body).await.unwrap_err().is_conflict());
}
