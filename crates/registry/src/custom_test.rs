//! Custom kinds, from their definition on, through the same code as the others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use quorate_objects::{Kind, kinds};
use quorate_store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    store: Arc<MemoryStore>,
    registry: Registry,
    _stop: DropGuard,
}

async fn fixture() -> Fixture {
    let store = MemoryStore::new();
    let registry = open(&store).await;
    registry.0.ensure_system_objects(Some(1)).await.unwrap();
    Fixture { store, registry: registry.0, _stop: registry.1 }
}

async fn open(store: &Arc<MemoryStore>) -> (Registry, DropGuard) {
    let cancel = CancellationToken::new();
    let options = RegistryOptions { request_timeout: PATIENCE, ..RegistryOptions::default() };
    let registry = Registry::start(Arc::clone(store) as _, options, cancel.clone());
    registry.wait_synced(PATIENCE).await.unwrap();
    (registry, cancel.drop_guard())
}

fn definition(group: &str, storage: &str) -> Value {
    let version = |name: &str| {
        json!({
            "name": name, "served": true, "storage": name == storage,
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "mode": {"type": "string", "default": "fast"},
                    }},
                    "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                },
            }},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [
                {"name": name, "type": "integer", "jsonPath": ".spec.size"},
            ],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("boxes.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
            "versions": [version("v1"), version("v2")],
        },
    })
}

fn custom(group: &str, name: &str, size: i64) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"), "kind": "Box",
        "metadata": {"name": name, "namespace": "default"}, "spec": {"size": size},
    })
}

impl Fixture {
    async fn create(&self, value: Value) -> Result<Arc<Object>, RegistryError> {
        self.registry.create(value, &WriteOptions::default()).await
    }

    /// Makes a definition and accepts it, as the controller does.
    async fn define(&self, group: &str) -> &'static Kind {
        let made = self.create(definition(group, "v1")).await.unwrap();
        assert_eq!(made.value()["status"], json!({"storedVersions": ["v1"]}));
        let refused = self.create(custom(group, "early", 1)).await.unwrap_err();
        assert!(refused.to_string().starts_with("no matches for kind \"Box\""), "{refused}");
        let mut accepted = made.value();
        accepted["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        accepted["status"]["acceptedNames"] = accepted["spec"]["names"].clone();
        self.registry.update_status(accepted, &WriteOptions::default()).await.unwrap();
        self.registry.freshen(Consistency::Linearizable).await.unwrap();
        Kind::by_gvk(&format!("{group}/v1"), "Box").unwrap()
    }
}

#[tokio::test]
async fn custom_objects_are_checked_and_kept() {
    let f = fixture().await;
    let group = "checked.example.com";
    let kind = f.define(group).await;
    let made = f.create(custom(group, "a", 2)).await.unwrap();
    assert_eq!(made.value()["spec"], json!({"size": 2, "mode": "fast"}));
    let wrong = f.create(custom(group, "b", 0)).await.unwrap_err().to_string();
    assert!(wrong.contains("spec.size in body should be greater than or equal to 1"), "{wrong}");
    let mut unknown = custom(group, "b", 1);
    unknown["spec"]["colour"] = "red".into();
    let text = f.create(unknown.clone()).await.unwrap_err().to_string();
    assert!(text.contains("unknown field \"spec.colour\""), "{text}");
    let loose = WriteOptions {
        field_validation: quorate_objects::FieldValidation::Ignore,
        ..WriteOptions::default()
    };
    let pruned = f.registry.create(unknown, &loose).await.unwrap();
    assert_eq!(pruned.value()["spec"], json!({"size": 1, "mode": "fast"}));

    // The spec counts for the generation, the status does not and cannot be written with it.
    let mut changed = made.value();
    changed["spec"]["size"] = 3.into();
    changed["status"] = json!({"size": 9});
    let changed = f.registry.update(changed, &WriteOptions::default()).await.unwrap();
    assert_eq!((changed.meta.generation, changed.value().get("status")), (Some(2), None));
    let mut with_status = changed.value();
    with_status["status"] = json!({"size": 9});
    with_status["spec"]["size"] = 4.into();
    let written = f.registry.update_status(with_status, &WriteOptions::default()).await.unwrap();
    let value = written.value();
    assert_eq!((&value["status"]["size"], &value["spec"]["size"]), (&json!(9), &json!(3)));
    assert_eq!(written.meta.generation, Some(2));
    let mut bad = written.value();
    bad["status"] = json!({"size": "large"});
    let bad = f.registry.update_status(bad, &WriteOptions::default()).await.unwrap_err();
    assert!(bad.to_string().contains("status.size in body must be of type integer"), "{bad}");
    // A second master reads it all, and knows the kind before it reads the objects.
    let (other, _stop) = open(&f.store).await;
    assert_eq!(other.cache().list(kind, None).len(), 2);
}

#[tokio::test]
async fn objects_follow_their_definition() {
    let f = fixture().await;
    let group = "follow.example.com";
    let kind = f.define(group).await;
    f.create(custom(group, "a", 2)).await.unwrap();
    let mut changed = definition(group, "v2");
    changed["spec"]["versions"][1]["selectableFields"] = json!([{"jsonPath": ".spec.mode"}]);
    f.registry.update(changed, &WriteOptions::default()).await.unwrap();
    f.registry.freshen(Consistency::Linearizable).await.unwrap();
    let now = Kind::by_gvk(&format!("{group}/v2"), "Box").unwrap();
    assert_eq!(kind, now, "the same kind, in another version");
    let shown = f.registry.cache().get(now, "default", "a").unwrap();
    assert_eq!(shown.value()["apiVersion"], format!("{group}/v2"));
    assert_eq!(shown.field("spec.mode"), Some("fast"));
    assert_eq!(shown.kind.columns[1].name, "V2");
    let mut value = shown.value();
    value["spec"]["size"] = 5.into();
    f.registry.update(value, &WriteOptions::default()).await.unwrap();
    let definition =
        f.registry.cache().get(&kinds::CUSTOM_RESOURCE_DEFINITION, "", "boxes.follow.example.com");
    assert_eq!(definition.unwrap().value()["status"]["storedVersions"], json!(["v1", "v2"]));
}

#[tokio::test]
async fn nothing_is_made_of_a_kind_that_ends() {
    let f = fixture().await;
    let group = "ends.example.com";
    f.define(group).await;
    f.create(custom(group, "a", 2)).await.unwrap();
    let (crd, name) = (&kinds::CUSTOM_RESOURCE_DEFINITION, "boxes.ends.example.com");
    let deleted = f.registry.delete(crd, "", name, &DeleteOptions::default()).await.unwrap();
    assert!(!deleted.gone, "its objects come first");
    let refused = f.create(custom(group, "b", 2)).await.unwrap_err().to_string();
    assert!(refused.contains("custom resource definition is terminating"), "{refused}");
}

#[tokio::test]
async fn lists_of_custom_kinds_merge_as_their_schema_says() {
    let f = fixture().await;
    let group = "merge.example.com";
    let kind = f.define(group).await;
    let mut changed = definition(group, "v1");
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["rules"] = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
        "items": {
            "type": "object", "required": ["id"],
            "properties": {"id": {"type": "string"}, "weight": {"type": "integer"}},
        },
    });
    f.registry.update(changed, &WriteOptions::default()).await.unwrap();
    f.registry.freshen(Consistency::Linearizable).await.unwrap();
    let apply = async |manager: &str, id: &str, weight: i64| {
        let mut value = custom(group, "a", 1);
        value["spec"]["rules"] = json!([{"id": id, "weight": weight}]);
        let manager = manager.to_owned();
        let options = ApplyOptions { manager, ..ApplyOptions::default() };
        f.registry.apply(kind, "default", "a", &value, Subresource::Main, &options).await
    };
    apply("one", "x", 1).await.unwrap();
    let both = apply("two", "y", 2).await.unwrap().object.value();
    let want = json!([{"id": "x", "weight": 1}, {"id": "y", "weight": 2}]);
    assert_eq!(both["spec"]["rules"], want, "an item of each");
    let conflict = apply("two", "x", 3).await.unwrap_err().to_string();
    assert!(conflict.contains(".spec.rules[id=\"x\"].weight"), "{conflict}");
}
