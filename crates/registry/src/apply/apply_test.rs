#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::managed::{ApplyError, ConflictCause, Writer, begin, conflict_text, record_update};
use super::merge::{compare, fields_of, merge};
use super::set::FieldSet;
use super::shape::Place;
use crate::options::Subresource;

fn writer(manager: &str, apply: bool) -> Writer<'_> {
    Writer {
        manager,
        apply,
        api_version: "apps/v1",
        subresource: Subresource::Main,
        has_status: true,
        place: Place::TOP,
        now: "2026-01-01T00:00:00Z",
    }
}

/// As the registry does it, without decoding and defaults.
fn apply(live: &Value, config: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    let by = writer(manager, true);
    let applying = begin(live, config, &by)?;
    let merged = applying.merged.clone();
    applying.finish(live, merged, &by, force)
}

fn update(old: &Value, mut new: Value, manager: &str) -> Value {
    new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    record_update(&mut new, old, &writer(manager, false));
    new
}

/// The paths that a manager owns.
fn owned(object: &Value, manager: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .filter(|entry| entry["manager"] == manager)
        .flat_map(|entry| FieldSet::decode(&entry["fieldsV1"]).paths())
        .collect()
}

fn content(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

fn deployment(replicas: Option<u32>, containers: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": containers}}},
    });
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = replicas.into();
    }
    object
}

fn live() -> Value {
    json!({"metadata": {"name": "web"}})
}

fn web(image: &str) -> Value {
    json!({"name": "web", "image": image, "ports": [{"containerPort": 80}]})
}

#[test]
fn sets_are_written_as_kubernetes_writes_them() {
    let config = deployment(Some(2), json!([web("web:1")]));
    let object = apply(&live(), &config, "kubectl", false).unwrap();
    let entry = &object["metadata"]["managedFields"][0];
    let fields = json!({
        "f:spec": {
            "f:replicas": {},
            "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                ".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                    ".": {}, "f:containerPort": {},
                }},
            }}}},
        },
    });
    assert_eq!(entry["fieldsV1"], fields);
    assert_eq!(entry["manager"], "kubectl");
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["apiVersion"], "apps/v1");
    let set = FieldSet::decode(&fields);
    assert_eq!(set.encode(), fields);
    assert!(set.paths().contains(&".spec.template.spec.containers[name=\"web\"].image".into()));
}

#[test]
fn what_others_own_is_a_conflict_unless_it_is_the_same() {
    let config = deployment(Some(2), json!([web("web:1")]));
    let object = apply(&live(), &config, "one", false).unwrap();
    // The same values are shared.
    let object = apply(&object, &config, "two", false).unwrap();
    assert_eq!(owned(&object, "one"), owned(&object, "two"));
    let other = deployment(Some(3), json!([web("web:2")]));
    let Err(ApplyError::Conflicts(causes)) = apply(&object, &other, "two", false) else {
        panic!("no conflict")
    };
    let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    let image = ".spec.template.spec.containers[name=\"web\"].image";
    assert_eq!(fields, [".spec.replicas", image]);
    assert_eq!(
        conflict_text(&causes),
        format!(
            "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\n- {image}"
        )
    );
    let forced = apply(&object, &other, "two", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert!(!owned(&forced, "one").contains(&".spec.replicas".to_owned()));
    // And now the first is the one who would take it over.
    assert!(apply(&forced, &config, "one", false).is_err());
}

#[test]
fn conflicts_with_updates_name_the_version() {
    let object = apply(&live(), &deployment(Some(2), json!([])), "one", false).unwrap();
    let scaled = update(&object, deployment(Some(5), json!([])), "kubectl-scale");
    assert!(!owned(&scaled, "one").contains(&".spec.replicas".to_owned()));
    assert_eq!(owned(&scaled, "kubectl-scale"), [".spec.replicas"]);
    let config = deployment(Some(2), json!([]));
    let Err(ApplyError::Conflicts(causes)) = apply(&scaled, &config, "one", false) else {
        panic!("no conflict")
    };
    let text = "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1 at \
                2026-01-01T00:00:00Z: .spec.replicas";
    assert_eq!(conflict_text(&causes), text);
    // Leaving it out gives it up.
    let object = apply(&scaled, &deployment(None, json!([])), "one", false).unwrap();
    assert_eq!(object["spec"]["replicas"], 5);
}

#[test]
fn what_is_applied_no_longer_goes() {
    let sidecar = json!({"name": "log", "image": "log:1"});
    let both = deployment(Some(2), json!([web("web:1"), sidecar]));
    let object = apply(&live(), &both, "one", false).unwrap();
    let object = apply(&object, &deployment(None, json!([web("web:1")])), "one", false).unwrap();
    assert_eq!(object["spec"], deployment(None, json!([web("web:1")]))["spec"]);
    // Somebody else's field keeps an item, with its name.
    let mut theirs = deployment(None, json!([{"name": "web", "tty": true}]));
    let object = apply(&object, &theirs, "two", false).unwrap();
    theirs["spec"]["replicas"] = json!(1);
    let nothing = json!({"metadata": {"name": "web"}});
    let object = apply(&object, &nothing, "one", false).unwrap();
    let kept = json!([{"name": "web", "tty": true}]);
    assert_eq!(object["spec"]["template"]["spec"]["containers"], kept);
    assert!(owned(&object, "one").is_empty());
}

#[test]
fn order_of_lists_is_the_configurations() {
    let named =
        |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
    let containers = |names: &[&str]| deployment(None, named(names));
    let merged =
        merge(&containers(&["x", "a", "y", "b"]), &containers(&["b", "n", "a"]), Place::TOP);
    let names: Vec<&str> = merged["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["x", "y", "b", "n", "a"]);
}

#[test]
fn items_need_their_keys_once() {
    for (containers, problem) in [
        (
            json!([{"image": "a"}]),
            ".spec.template.spec.containers: associative list with keys has an element that omits \
             key field \"name\" (and doesn't have default value)",
        ),
        (
            json!([{"name": "a"}, {"name": "a"}]),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
    ] {
        let error = fields_of(&deployment(None, containers), Place::TOP).unwrap_err();
        assert_eq!(error.to_string(), problem);
    }
}

#[test]
fn selectors_are_one_whole() {
    let with = |labels: Value| json!({"spec": {"selector": {"matchLabels": labels}}});
    let merged = merge(&with(json!({"a": "1"})), &with(json!({"b": "2"})), Place::TOP);
    assert_eq!(merged, with(json!({"b": "2"})));
    let paths = fields_of(&merged, Place::TOP).unwrap().paths();
    assert_eq!(paths, [".spec.selector"]);
}

#[test]
fn custom_schemas_say_how_lists_merge() {
    let schema = json!({"properties": {"spec": {"properties": {
        "rules": {
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
            "items": {"properties": {"id": {}, "port": {}}},
        },
        "tags": {"x-kubernetes-list-type": "set"},
        "plain": {},
    }}}});
    let place = Place::CustomTop(&schema);
    let one = json!({
        "metadata": {"finalizers": ["a/b"]},
        "spec": {"rules": [{"id": 1, "port": 2}], "tags": ["x"], "plain": [1]},
    });
    assert_eq!(
        fields_of(&one, place).unwrap().paths(),
        [
            ".metadata.finalizers[=\"a/b\"]",
            ".spec.plain",
            ".spec.rules[id=1]",
            ".spec.rules[id=1].id",
            ".spec.rules[id=1].port",
            ".spec.tags[=\"x\"]",
        ]
    );
    let two = json!({"spec": {"rules": [{"id": 1, "host": "h"}], "tags": ["y"], "plain": [2]}});
    let merged = merge(&one, &two, place);
    assert_eq!(
        merged["spec"],
        json!({"rules": [{"id": 1, "port": 2, "host": "h"}], "tags": ["x", "y"], "plain": [2]})
    );
}

#[test]
fn nobody_owns_status_or_identity_by_writing_the_object() {
    let mut object = deployment(Some(1), json!([]));
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["labels"] = json!({"a": "b"});
    object["status"] = json!({"replicas": 1});
    let object = update(&Value::Null, object, "kubectl-create");
    let paths = owned(&object, "kubectl-create");
    let want = [".metadata.labels.a", ".spec.replicas", ".spec.template.spec.containers"];
    assert_eq!(paths, want);
}

#[test]
fn many_updates_are_joined() {
    let mut object = deployment(Some(0), json!([]));
    for number in 0..15 {
        let mut new = content(&object);
        new["metadata"]["labels"][format!("l{number}")] = json!("x");
        object = update(&object, new, &format!("m{number}"));
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert!(entries.len() <= 11, "{}", entries.len());
    let all: Vec<String> =
        entries.iter().flat_map(|entry| FieldSet::decode(&entry["fieldsV1"]).paths()).collect();
    assert!((0..15).all(|n| all.contains(&format!(".metadata.labels.l{n}"))), "{all:?}");
    assert_eq!(entries.iter().filter(|e| e["manager"] == "ancient-changes").count(), 1);
}

fn config() -> impl Strategy<Value = Value> {
    let container = ("[abc]", prop::option::of("[xyz]"), prop::option::of(0_u8..3)).prop_map(
        |(name, image, port)| {
            let mut container = json!({"name": name});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            if let Some(port) = port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            container
        },
    );
    let containers = prop::collection::vec(container, 0..4).prop_map(|mut containers| {
        containers.sort_by_key(|one| one["name"].to_string());
        containers.dedup_by_key(|one| one["name"].to_string());
        containers
    });
    let labels = prop::collection::btree_map("[ab]", "[12]", 0..3);
    (containers, labels, prop::option::of(0_u32..3)).prop_map(|(containers, labels, replicas)| {
        let mut object = deployment(replicas, containers.into());
        if !labels.is_empty() {
            object["metadata"]["labels"] = json!(labels);
        }
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::with_cases(500)
    })]

    /// Whoever has done what before: what is applied by force is there afterwards, belongs to
    /// its manager, and applying it again changes nothing.
    #[test]
    fn applied_is_there_and_again_is_nothing(
        history in prop::collection::vec((config(), 0_u8..3, any::<bool>()), 0..5),
        last in config(),
    ) {
        let mut object = live();
        for (config, who, by_apply) in history {
            let manager = format!("m{who}");
            object = if by_apply {
                apply(&object, &config, &manager, true).unwrap()
            } else {
                update(&object, config, &manager)
            };
        }
        let applied = apply(&object, &last, "last", true).unwrap();
        let wanted = fields_of(&last, Place::TOP).unwrap();
        let merged = merge(&content(&applied), &last, Place::TOP);
        prop_assert_eq!(&merged["spec"], &applied["spec"]);
        let mine = owned(&applied, "last");
        for path in wanted.paths() {
            let free = ["kind", "apiVersion", "metadata.name"].contains(&&path[1..]);
            prop_assert!(free || mine.contains(&path), "{} not in {:?}", path, mine);
        }
        let again = apply(&applied, &last, "last", false).unwrap();
        prop_assert_eq!(&again, &applied);
        // Nobody else's fields are gone.
        let gone = compare(&content(&object), &content(&applied), Place::TOP).removed;
        prop_assert_eq!(gone.paths(), Vec::<String>::new());
    }

    /// Applying and then applying nothing leaves what was there before, when nobody else had
    /// anything of it.
    #[test]
    fn applying_nothing_undoes(config in config()) {
        let applied = apply(&live(), &config, "one", false).unwrap();
        let nothing = apply(&applied, &live(), "one", false).unwrap();
        prop_assert_eq!(&nothing["metadata"]["name"], "web");
        prop_assert!(nothing["spec"].get("replicas").is_none());
        prop_assert!(nothing["metadata"].get("labels").is_none());
        prop_assert!(owned(&nothing, "one").is_empty());
    }

    #[test]
    fn sets_survive_their_text(config in config()) {
        let set = fields_of(&config, Place::TOP).unwrap();
        prop_assert_eq!(&FieldSet::decode(&set.encode()), &set);
    }
}

#[test]
fn one_cause_for_each_field() {
    let cause =
        |message: &str, field: &str| ConflictCause { message: message.into(), field: field.into() };
    let causes = [
        cause("conflict with \"a\"", ".x"),
        cause("conflict with \"b\" using v1", ".y"),
        cause("conflict with \"b\" using v1", ".z"),
    ];
    assert_eq!(
        conflict_text(&causes),
        "Apply failed with 3 conflicts: conflict with \"a\": .x\nconflicts with \"b\" using \
         v1:\n- .y\n- .z"
    );
}

mod on_a_registry {
    use quorate_objects::kinds;
    use serde_json::{Value, json};

    use crate::registry_test::fixture;
    use crate::{ApplyOptions, Code, RegistryError, Subresource, WriteOptions};

    fn by(manager: &str, force: bool) -> ApplyOptions {
        ApplyOptions { manager: manager.into(), force, ..ApplyOptions::default() }
    }

    fn map(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
    }

    #[tokio::test]
    async fn creates_changes_and_conflicts() {
        let f = fixture().await;
        let apply = async |data: Value, options: ApplyOptions| {
            let (kind, part) = (&kinds::CONFIG_MAP, Subresource::Main);
            f.registry.apply(kind, "default", "m", &map(data), part, &options).await
        };
        let first = apply(json!({"a": "1", "b": "1"}), by("one", false)).await.unwrap();
        assert!(first.created);
        let again = apply(json!({"a": "1", "b": "1"}), by("one", false)).await.unwrap();
        assert!(!again.created);
        assert_eq!(again.object.revision, first.object.revision, "nothing to do writes nothing");
        let error = apply(json!({"a": "2"}), by("two", false)).await.unwrap_err();
        assert_eq!(error.code(), Code::Conflict);
        assert_eq!(error.conflicts()[0].field, ".data.a");
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"one\": .data.a"
        );
        let forced = apply(json!({"a": "2"}), by("two", true)).await.unwrap();
        assert_eq!(forced.object.value()["data"], json!({"a": "2", "b": "1"}));
        let less = apply(json!({}), by("one", false)).await.unwrap();
        assert_eq!(less.object.value()["data"], json!({"a": "2"}));
        let error = apply(json!({}), by("", false)).await.unwrap_err();
        assert_eq!(
            error,
            RegistryError::BadRequest("fieldManager is required for apply patch".into())
        );
    }

    #[tokio::test]
    async fn plain_writes_are_recorded_and_others_keep_what_is_theirs() {
        let f = fixture().await;
        let options = |manager: &str| WriteOptions {
            field_manager: Some(manager.into()),
            ..WriteOptions::default()
        };
        let mut value = map(json!({"a": "1"}));
        value["metadata"]["namespace"] = json!("default");
        let created = f.registry.create(value, &options("kubectl-create")).await.unwrap();
        let mut value = created.value();
        let entry = &value["metadata"]["managedFields"][0];
        assert_eq!(entry["manager"], "kubectl-create");
        assert_eq!(entry["operation"], "Update");
        assert_eq!(entry["fieldsV1"], json!({"f:data": {"f:a": {}}}));
        // The cluster's own work is not recorded, and forgets nothing.
        value["data"]["c"] = json!("3");
        value["metadata"].as_object_mut().unwrap().remove("managedFields");
        let updated = f.registry.update(value, &WriteOptions::default()).await.unwrap();
        let mut value = updated.value();
        assert_eq!(value["metadata"]["managedFields"].as_array().unwrap().len(), 1);
        value["data"]["a"] = json!("2");
        let updated = f.registry.update(value, &options("edit")).await.unwrap();
        let fields = updated.value()["metadata"]["managedFields"].clone();
        assert_eq!(fields.as_array().unwrap().len(), 1, "{fields}");
        assert_eq!(fields[0]["manager"], "edit");
    }

    #[tokio::test]
    async fn a_configuration_is_of_the_object_that_is_meant() {
        let f = fixture().await;
        let apply = async |field: &str, value: &str| {
            let (kind, part) = (&kinds::CONFIG_MAP, Subresource::Main);
            let mut config = map(json!({"a": value}));
            config["metadata"][field] = json!(value);
            f.registry.apply(kind, "default", "m", &config, part, &by("one", false)).await
        };
        let error = apply("uid", "gone").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object \
             specified uid gone, and no existing object was found"
        );
        assert!(error.is_conflict());
        let made = apply("uid", "").await.unwrap();
        assert!(made.created);
        let error = apply("uid", "gone").await.unwrap_err();
        assert_eq!(
            (error.code(), error.fields()[0].path.as_str()),
            (Code::Invalid, "metadata.uid")
        );
        assert!(!apply("uid", made.object.uid()).await.unwrap().created);
        let old = made.object.revision.to_string();
        assert!(apply("resourceVersion", &old).await.unwrap_err().is_conflict());
        assert_eq!(apply("resourceVersion", "old").await.unwrap_err().code(), Code::Invalid);
    }

    #[tokio::test]
    async fn a_namespace_in_an_object_without_one_is_dropped() {
        let f = fixture().await;
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": "high", "namespace": "web"}, "value": 5});
        for created in [true, false] {
            let (kind, part, options) =
                (&kinds::PRIORITY_CLASS, Subresource::Main, by("one", false));
            let done = f.registry.apply(kind, "", "high", &class, part, &options).await.unwrap();
            assert_eq!((done.created, done.object.meta.namespace.as_ref()), (created, None));
        }
    }

    /// Partial configurations are typed and checked, and what the server fills in is nobody's.
    #[tokio::test]
    async fn partial_objects_are_merged_before_they_are_judged() {
        let f = fixture().await;
        let apply = async |value: Value, options: ApplyOptions| {
            let (kind, part) = (&kinds::DEPLOYMENT, Subresource::Main);
            f.registry.apply(kind, "default", "web", &value, part, &options).await
        };
        let whole = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "web:1"}]},
                },
            },
        });
        let created = apply(whole.clone(), by("one", false)).await.unwrap().object.value();
        assert_eq!(created["spec"]["progressDeadlineSeconds"], 600);
        let fields = created["metadata"]["managedFields"][0]["fieldsV1"].to_string();
        assert!(!fields.contains("progressDeadlineSeconds"), "{fields}");
        let part = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": [{"name": "log", "image": "log:1"}]}}},
        });
        let both = apply(part, by("two", false)).await.unwrap().object.value();
        let containers = both["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!(both["metadata"]["generation"], 2);
        let same = apply(whole.clone(), by("one", false)).await.unwrap().object;
        assert_eq!(same.value(), both, "the second manager's container stays");
        let mut wrong = whole;
        wrong["spec"]["replica"] = json!(1);
        let error = apply(wrong, by("one", false)).await.unwrap_err();
        assert!(error.to_string().contains("unknown field \"spec.replica\""), "{error}");
    }
}
