//! The registry's rules, on the store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;
use quorate_objects::{FieldSelector, Selector, kinds};
use quorate_store::{Command, CommandKind, CompactRequest, Consistency, MemoryStore, Store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::*;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    store: Arc<MemoryStore>,
    pub registry: Registry,
    _stop: DropGuard,
}

pub(crate) async fn fixture() -> Fixture {
    fixture_with(RegistryOptions { request_timeout: PATIENCE, ..RegistryOptions::default() }).await
}

async fn fixture_with(options: RegistryOptions) -> Fixture {
    let store = MemoryStore::new();
    let cancel = CancellationToken::new();
    let registry = Registry::start(store.clone(), options, cancel.clone());
    registry.wait_synced(PATIENCE).await.unwrap();
    registry.ensure_system_objects(Some(1)).await.unwrap();
    Fixture { store, registry, _stop: cancel.drop_guard() }
}

impl Fixture {
    async fn create(&self, value: Value) -> Result<Arc<Object>, RegistryError> {
        self.registry.create(value, &WriteOptions::default()).await
    }

    async fn update(&self, value: Value) -> Result<Arc<Object>, RegistryError> {
        self.registry.update(value, &WriteOptions::default()).await
    }

    async fn delete(
        &self,
        kind: &'static quorate_objects::Kind,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        self.registry.delete(kind, "default", name, &options).await
    }

    async fn get(&self, kind: &'static quorate_objects::Kind, name: &str) -> Option<Arc<Object>> {
        self.registry.get(kind, "default", name, Consistency::Linearizable).await.ok()
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": name, "namespace": "default", "labels": {"app": value}},
           "data": {"key": value}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": name, "namespace": "default"},
           "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
           "metadata": {"name": name, "namespace": "default"},
           "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
               "metadata": {"labels": {"app": "a"}},
               "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

fn service(name: &str, spec: Value) -> Value {
    let mut value = json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": name, "namespace": "default"},
           "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}});
    for (key, field) in spec.as_object().unwrap() {
        value["spec"][key] = field.clone();
    }
    value
}

fn bind(name: &str, node: &str) -> Write {
    let (namespace, name, node) = ("default".into(), name.into(), node.into());
    Write::Bind { namespace, name, uid: String::new(), revision: None, node }
}

#[tokio::test]
async fn create_sets_what_the_system_sets() {
    let f = fixture().await;
    let mut value = deployment("web");
    value["status"] = json!({"replicas": 7});
    let made = f.create(value).await.unwrap();
    assert_eq!(made.uid().len(), 36);
    assert_eq!(made.meta.generation, Some(1));
    assert_eq!(made.meta.resource_version, Some(made.revision.to_string()));
    let typed = made.typed::<Deployment>().unwrap();
    assert_eq!(typed.spec.replicas, Some(1));
    assert_eq!(typed.status, None);
    let read = f.get(&kinds::DEPLOYMENT, "web").await.unwrap();
    assert_eq!(read, made);
    let again = f.create(deployment("web")).await.unwrap_err();
    assert_eq!(again.to_string(), "deployments.apps \"web\" already exists");
    let mut generated = config_map("", "v");
    generated["metadata"] = json!({"generateName": "cm-", "namespace": "default"});
    let name = f.create(generated).await.unwrap().name().to_owned();
    assert!(name.starts_with("cm-") && name.len() == 8, "{name}");
}

#[tokio::test]
async fn creation_needs_its_namespace() {
    let f = fixture().await;
    let mut value = config_map("a", "v");
    value["metadata"]["namespace"] = json!("nowhere");
    let error = f.create(value.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "namespaces \"nowhere\" not found");
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nowhere"}});
    f.create(namespace).await.unwrap();
    f.create(value.clone()).await.unwrap();
    let options = DeleteOptions::default();
    let deleted = f.registry.delete(&kinds::NAMESPACE, "", "nowhere", &options).await.unwrap();
    assert!(!deleted.gone);
    value["metadata"]["name"] = json!("b");
    let error = f.create(value).await.unwrap_err();
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    assert!(f.registry.purge_namespace("nowhere", None).await.unwrap());
    let gone = f.registry.get(&kinds::NAMESPACE, "", "nowhere", Consistency::Linearizable).await;
    assert!(gone.unwrap_err().is_not_found());
    let error = f.registry.delete(&kinds::NAMESPACE, "", "default", &options).await.unwrap_err();
    assert_eq!(error.code(), Code::Forbidden);
}

/// Others may keep a namespace, by its finalizers or by those of its specification, and only
/// `finalize` changes the latter.
#[tokio::test]
async fn a_namespace_stays_as_long_as_anybody_wants_it() {
    let f = fixture().await;
    let namespace = |spec: &[&str], meta: &[&str]| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "kept", "finalizers": meta},
            "spec": {"finalizers": spec},
        })
    };
    f.create(namespace(&["kubernetes", "a/b"], &["c/d"])).await.unwrap();
    let plainly = DeleteOptions::default();
    let deleted = f.registry.delete(&kinds::NAMESPACE, "", "kept", &plainly).await.unwrap();
    assert!(!deleted.gone);
    assert!(!f.registry.purge_namespace("kept", None).await.unwrap());
    let found = async || {
        let found = f.registry.get(&kinds::NAMESPACE, "", "kept", Consistency::Linearizable).await;
        found.map(|object| object.value())
    };
    assert_eq!(found().await.unwrap()["spec"]["finalizers"], json!(["a/b"]));
    // Not by an update of the object.
    f.update(namespace(&[], &["c/d"])).await.unwrap();
    assert_eq!(found().await.unwrap()["spec"]["finalizers"], json!(["a/b"]));
    let finalize = Subresource::Finalize;
    let options = WriteOptions::default();
    f.registry.replace(namespace(&[], &["c/d"]), finalize, &options).await.unwrap();
    assert_eq!(found().await.unwrap()["metadata"]["finalizers"], json!(["c/d"]));
    f.update(namespace(&[], &[])).await.unwrap();
    assert!(found().await.unwrap_err().is_not_found());
    assert!(f.registry.purge_namespace("kept", None).await.unwrap());
}

#[tokio::test]
async fn of_two_creators_one_wins() {
    let f = fixture().await;
    let attempts = (0..8).map(|_| f.create(config_map("one", "v")));
    let results = futures::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(lost.into_iter().all(|error| error.unwrap_err().code() == Code::AlreadyExists));
}

#[tokio::test]
async fn updates_compare_revisions() {
    let f = fixture().await;
    let first = f.create(config_map("a", "1")).await.unwrap();
    let mut stale = first.value();
    let mut value = config_map("a", "2");
    let second = f.update(value.clone()).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.uid(), first.uid());
    stale["data"]["key"] = json!("3");
    let error = f.update(stale).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    // Writing what is there already is no write.
    let same = f.update(value.clone()).await.unwrap();
    assert_eq!(same.revision, second.revision);
    value["metadata"]["uid"] = json!("other");
    assert!(f.update(value).await.unwrap_err().is_conflict());
    assert!(f.update(config_map("none", "1")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn status_and_spec_are_apart() {
    let f = fixture().await;
    let made = f.create(deployment("web")).await.unwrap();
    let mut value = made.value();
    value["status"] = json!({"replicas": 3});
    value["spec"]["replicas"] = json!(5);
    value["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let options = WriteOptions::default();
    let status = f.registry.update_status(value.clone(), &options).await.unwrap();
    assert_eq!(status.value()["spec"]["replicas"], 1);
    assert_eq!(status.value()["status"]["replicas"], 3);
    assert_eq!(status.meta.generation, Some(1));
    value["status"] = json!({"replicas": 9});
    let spec = f.update(value).await.unwrap();
    assert_eq!(spec.value()["spec"]["replicas"], 5);
    assert_eq!(spec.value()["status"]["replicas"], 3);
    assert_eq!(spec.meta.generation, Some(2));
    let labelled = f
        .registry
        .modify::<Deployment>(&kinds::DEPLOYMENT, "default", "web", &options, |deployment| {
            deployment.metadata.labels.get_or_insert_default().insert("a".into(), "b".into());
            true
        })
        .await
        .unwrap();
    assert_eq!(labelled.meta.generation, Some(2), "labels are no change of the spec");
}

#[tokio::test]
async fn concurrent_modifications_all_count() {
    let f = fixture().await;
    f.create(config_map("count", "0")).await.unwrap();
    let options = WriteOptions::default();
    let adders = (0..10).map(|_| {
        f.registry.modify::<ConfigMap>(&kinds::CONFIG_MAP, "default", "count", &options, |map| {
            let value = map.data.as_mut().unwrap().get_mut("key").unwrap();
            *value = (value.parse::<u32>().unwrap() + 1).to_string();
            true
        })
    });
    for result in futures::future::join_all(adders).await {
        result.unwrap();
    }
    let read = f.get(&kinds::CONFIG_MAP, "count").await.unwrap();
    assert_eq!(read.value()["data"]["key"], "10");
}

#[tokio::test]
async fn patches() {
    let f = fixture().await;
    let made = f.create(deployment("web")).await.unwrap();
    let main = Subresource::Main;
    let options = WriteOptions::default();
    let patch = |kind: PatchKind, body: Value| {
        let (registry, options) = (f.registry.clone(), options.clone());
        async move {
            let body = body.to_string();
            let body = body.as_bytes();
            registry.patch(&kinds::DEPLOYMENT, "default", "web", kind, body, main, &options).await
        }
    };
    let merged = patch(PatchKind::Merge, json!({"spec": {"replicas": 4}})).await.unwrap();
    assert_eq!(merged.value()["spec"]["replicas"], 4);
    let op = json!([{"op": "replace", "path": "/spec/replicas", "value": 6}]);
    assert_eq!(patch(PatchKind::Json, op).await.unwrap().value()["spec"]["replicas"], 6);
    let containers = json!([{"name": "c", "image": "i:2"}]);
    let body = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let strategic = patch(PatchKind::Strategic, body).await.unwrap();
    let container = &strategic.value()["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["imagePullPolicy"]),
        (&json!("i:2"), &json!("IfNotPresent"))
    );
    let unknown = patch(PatchKind::Merge, json!({"spec": {"replica": 4}})).await.unwrap_err();
    assert_eq!(unknown.fields()[0].path, "spec.replica");
    let test = json!([{"op": "test", "path": "/spec/replicas", "value": 1}]);
    assert_eq!(patch(PatchKind::Json, test).await.unwrap_err().code(), Code::Invalid);
    let stale = json!({"metadata": {"resourceVersion": made.revision.to_string()},
                       "spec": {"replicas": 9}});
    assert!(patch(PatchKind::Merge, stale).await.unwrap_err().is_conflict());
    let bad = f.registry.patch(
        &kinds::DEPLOYMENT,
        "default",
        "web",
        PatchKind::Merge,
        b"{",
        main,
        &options,
    );
    assert_eq!(bad.await.unwrap_err().code(), Code::BadRequest);
}

/// Charts give a namespace to all that they make.
#[tokio::test]
async fn a_namespace_in_an_object_without_one_is_dropped() {
    let f = fixture().await;
    let class = |value: i32| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": value,
               "metadata": {"name": "high", "namespace": "web", "labels": {"a": "b"}}})
    };
    let made = f.create(class(5)).await.unwrap();
    assert_eq!(made.meta.namespace, None);
    let mut changed = class(5);
    changed["metadata"]["labels"]["a"] = json!("c");
    let changed = f.update(changed).await.unwrap();
    assert_eq!((changed.meta.namespace.as_ref(), changed.labels()["a"].as_str()), (None, "c"));
}

#[tokio::test]
async fn pods_get_their_grace() {
    let f = fixture().await;
    for name in ["unbound", "bound", "ended"] {
        f.create(pod(name)).await.unwrap();
    }
    let results =
        f.registry.write_batch(vec![bind("bound", "n1"), bind("ended", "n1")], Some(1)).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(results[0].as_ref().unwrap().field("spec.nodeName"), Some("n1"));
    f.registry
        .modify_status::<Pod>(&kinds::POD, "default", "ended", &WriteOptions::default(), |pod| {
            pod.status.get_or_insert_default().phase = Some("Succeeded".into());
            true
        })
        .await
        .unwrap();
    let plain = DeleteOptions::default;
    assert!(f.delete(&kinds::POD, "unbound", plain()).await.unwrap().gone);
    assert!(f.delete(&kinds::POD, "ended", plain()).await.unwrap().gone);
    let marked = f.delete(&kinds::POD, "bound", plain()).await.unwrap();
    assert!(!marked.gone);
    assert_eq!(marked.object.meta.deletion_grace_period_seconds, Some(30));
    let again = f.delete(&kinds::POD, "bound", plain()).await.unwrap();
    assert_eq!(again.object.revision, marked.object.revision, "nothing new was asked");
    let shorter = DeleteOptions { grace_seconds: Some(5), ..plain() };
    let shorter = f.delete(&kinds::POD, "bound", shorter).await.unwrap();
    assert_eq!(shorter.object.meta.deletion_grace_period_seconds, Some(5));
    let now = DeleteOptions { grace_seconds: Some(0), ..plain() };
    assert!(f.delete(&kinds::POD, "bound", now).await.unwrap().gone);
    assert_eq!(f.get(&kinds::POD, "bound").await, None);
}

#[tokio::test]
async fn binding_happens_once() {
    let f = fixture().await;
    let made = f.create(pod("p")).await.unwrap();
    let wrong = Write::Bind {
        namespace: "default".into(),
        name: "p".into(),
        uid: "other".into(),
        revision: None,
        node: "n0".into(),
    };
    let results =
        f.registry.write_batch(vec![wrong, bind("none", "n1"), bind("p", "n1")], None).await;
    assert!(results[0].as_ref().unwrap_err().is_conflict());
    assert!(results[1].as_ref().unwrap_err().is_not_found());
    let bound = results[2].as_ref().unwrap();
    assert_eq!(bound.value()["status"]["conditions"][0]["type"], "PodScheduled");
    let again = f.registry.write_batch(vec![bind("p", "n2"), bind("p", "n1")], None).await;
    assert!(again[0].as_ref().unwrap_err().is_conflict());
    assert_eq!(again[1].as_ref().unwrap().revision, bound.revision);
    assert!(made.revision < bound.revision);
    let status = |status: Value| Write::PodStatus {
        namespace: "default".into(),
        name: "p".into(),
        uid: made.uid().into(),
        status: status.to_string().into(),
    };
    let results = f.registry.write_batch(vec![status(json!({"phase": 1}))], None).await;
    assert_eq!(results[0].as_ref().unwrap_err().fields()[0].path, "status");
    let results = f.registry.write_batch(vec![status(json!({"phase": "Running"}))], None).await;
    let running = results[0].as_ref().unwrap();
    assert_eq!(running.field("status.phase"), Some("Running"));
    assert_eq!(running.field("spec.nodeName"), Some("n1"));
    let results = f.registry.write_batch(vec![status(json!({"phase": "Running"}))], None).await;
    assert_eq!(results[0].as_ref().unwrap().revision, running.revision, "nothing is written");
    let cached = f.registry.cache().get(&kinds::POD, "default", "p").unwrap();
    assert_eq!(*cached, **running, "the cache has what the writer got");
}

#[tokio::test]
async fn what_was_replaced_is_not_kept_decoded() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let f = fixture().await;
    f.create(config_map("a", "1")).await.unwrap();
    let get = || f.registry.cache().get(&kinds::CONFIG_MAP, "default", "a").unwrap();
    let old = get();
    let kept = |object: &Object| {
        let twice = [object.typed::<ConfigMap>().unwrap(), object.typed::<ConfigMap>().unwrap()];
        assert_eq!(twice[0], twice[1]);
        Arc::ptr_eq(&twice[0], &twice[1])
    };
    assert!(kept(&old));
    let options = WriteOptions::default();
    let new = f.registry.update(config_map("a", "2"), &options).await.unwrap();
    f.registry.cache().wait(new.revision, Duration::from_secs(10)).await.unwrap();
    assert!(!kept(&old), "the history has its text");
    old.decode_ahead();
    assert!(!kept(&old));
    assert!(kept(&get()));
}

#[tokio::test]
async fn finalizers_keep_objects() {
    let f = fixture().await;
    let mut value = config_map("a", "1");
    value["metadata"]["finalizers"] = json!(["example.com/wait"]);
    f.create(value).await.unwrap();
    let wrong = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
    assert!(f.delete(&kinds::CONFIG_MAP, "a", wrong).await.unwrap_err().is_conflict());
    let options =
        DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    let marked = f.delete(&kinds::CONFIG_MAP, "a", options).await.unwrap();
    assert!(!marked.gone);
    let finalizers = marked.object.meta.finalizers.clone().unwrap();
    assert_eq!(finalizers, ["example.com/wait", "foregroundDeletion"]);
    let mut more = marked.object.value();
    more["metadata"]["finalizers"] = json!(["example.com/more"]);
    assert_eq!(f.update(more).await.unwrap_err().code(), Code::Invalid);
    let mut last = marked.object.value();
    last["metadata"].as_object_mut().unwrap().remove("finalizers");
    f.update(last).await.unwrap();
    assert_eq!(f.get(&kinds::CONFIG_MAP, "a").await, None);
}

#[tokio::test]
async fn services_get_addresses_and_ports() {
    let f = fixture().await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    let first = f.create(service("a", spec)).await.unwrap().value();
    let address = first["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.208."), "{address}");
    let spec = json!({"clusterIP": address});
    let error = f.create(service("b", spec.clone())).await.unwrap_err();
    assert_eq!(error.fields()[0].path, "spec.clusterIP");
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    let error = f.create(service("b", taken.clone())).await.unwrap_err();
    assert_eq!(error.fields()[0].path, "spec.ports[0].nodePort");
    assert!(error.to_string().contains("provided port is already allocated"), "{error}");
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    assert_eq!(f.create(service("b", outside)).await.unwrap_err().code(), Code::Invalid);
    let headless = f.create(service("h", json!({"clusterIP": "None"}))).await.unwrap();
    assert_eq!(headless.value()["spec"]["clusterIPs"], json!(["None"]));
    // An update without them keeps them; giving up the node port frees it.
    let kept = f.update(service("a", json!({"type": "NodePort"}))).await.unwrap().value();
    assert_eq!(kept["spec"]["clusterIP"], address.as_str());
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30080);
    f.update(service("a", json!({}))).await.unwrap();
    f.create(service("c", taken)).await.unwrap();
    // Deletion frees the address.
    assert!(f.delete(&kinds::SERVICE, "a", DeleteOptions::default()).await.unwrap().gone);
    f.create(service("d", spec)).await.unwrap();
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let f = fixture().await;
    f.store.set_term(5);
    let old = WriteOptions::fenced(4);
    let error = f.registry.create(config_map("a", "1"), &old).await.unwrap_err();
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    f.registry.create(config_map("a", "1"), &WriteOptions::fenced(5)).await.unwrap();
    let fenced = DeleteOptions { fence: Some(4), ..DeleteOptions::default() };
    assert!(f.delete(&kinds::CONFIG_MAP, "a", fenced).await.is_err());
    assert!(f.registry.write_batch(vec![bind("a", "n")], Some(4)).await[0].is_err());
    assert!(f.get(&kinds::CONFIG_MAP, "a").await.is_some());
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let f = fixture().await;
    let error = f.create(config_map("a", &"x".repeat(1600 * 1024))).await.unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    assert!(error.to_string().starts_with("Request entity too large"), "{error}");
}

#[tokio::test]
async fn dry_runs_write_nothing() {
    let f = fixture().await;
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let before = f.store.read_revision().await.unwrap();
    f.registry.create(config_map("a", "1"), &dry).await.unwrap();
    assert_eq!(f.store.read_revision().await.unwrap(), before);
    assert_eq!(f.get(&kinds::CONFIG_MAP, "a").await, None);
}

#[tokio::test]
async fn lists_page_and_select() {
    let f = fixture().await;
    for index in 0..5 {
        f.create(config_map(&format!("m{index}"), if index < 3 { "x" } else { "y" }))
            .await
            .unwrap();
    }
    let mut names = Vec::new();
    let mut options = ListOptions {
        labels: Selector::parse("app=x").unwrap(),
        limit: 2,
        ..ListOptions::default()
    };
    loop {
        let fresh = Consistency::Linearizable;
        let page = f.registry.list(&kinds::CONFIG_MAP, None, &options, fresh).await.unwrap();
        names.extend(page.items.iter().map(|object| object.name().to_owned()));
        options.continue_token = page.continue_token;
        if options.continue_token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["m0", "m1", "m2"]);
    let fields = FieldSelector::parse("metadata.name!=m1").unwrap();
    let options = ListOptions { fields, ..ListOptions::default() };
    let found =
        f.registry.list(&kinds::CONFIG_MAP, Some("default"), &options, Consistency::Linearizable);
    assert_eq!(found.await.unwrap().items.len(), 4);
    let fields = FieldSelector::parse("spec.colour=red").unwrap();
    let options = ListOptions { fields, ..ListOptions::default() };
    let bad = f.registry.list(&kinds::CONFIG_MAP, None, &options, Consistency::Serializable).await;
    assert_eq!(bad.unwrap_err().code(), Code::BadRequest);
}

async fn next(watcher: &mut ObjectWatcher) -> (EventKind, String) {
    let event = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
    let name = event.object.as_ref().map(|object| object.name().to_owned()).unwrap_or_default();
    if let Some(object) = &event.object {
        assert_eq!(object.revision, event.revision);
    }
    (event.kind, name)
}

#[tokio::test]
async fn watches_see_selectors_come_and_go() {
    let f = fixture().await;
    f.create(config_map("a", "x")).await.unwrap();
    let before = f.create(config_map("b", "y")).await.unwrap().revision;
    f.registry.cache().wait(before, PATIENCE).await.unwrap();
    let selector = Selector::parse("app=x").unwrap();
    let kind = Some(&kinds::CONFIG_MAP);
    let mut all = f.registry.watch(kind, None, selector.clone(), 0).unwrap();
    let mut later = f.registry.watch(kind, Some("default"), selector, before).unwrap();
    assert_eq!(next(&mut all).await, (EventKind::Added, "a".into()));
    assert_eq!(next(&mut all).await, (EventKind::Bookmark, String::new()));
    f.update(config_map("b", "x")).await.unwrap();
    let mut changed = config_map("b", "x");
    changed["data"]["key"] = json!("z");
    f.update(changed).await.unwrap();
    f.update(config_map("b", "y")).await.unwrap();
    f.create(config_map("c", "y")).await.unwrap();
    f.delete(&kinds::CONFIG_MAP, "a", DeleteOptions::default()).await.unwrap();
    for watcher in [&mut all, &mut later] {
        assert_eq!(next(watcher).await, (EventKind::Added, "b".into()));
        assert_eq!(next(watcher).await, (EventKind::Modified, "b".into()));
        assert_eq!(next(watcher).await, (EventKind::Deleted, "b".into()));
        assert_eq!(next(watcher).await, (EventKind::Deleted, "a".into()));
    }
}

#[tokio::test]
async fn slow_watchers_are_told() {
    let options = RegistryOptions {
        watch_ring: 4,
        bookmark_interval: Duration::from_millis(20),
        ..RegistryOptions::default()
    };
    let f = fixture_with(options).await;
    let kind = Some(&kinds::CONFIG_MAP);
    let mut slow = f.registry.watch(kind, None, Selector::everything(), 0).unwrap();
    assert_eq!(next(&mut slow).await.0, EventKind::Bookmark);
    assert_eq!(next(&mut slow).await.0, EventKind::Bookmark, "an idle watch is kept alive");
    let first = f.create(config_map("a0", "v")).await.unwrap().revision;
    let mut last = first;
    for index in 1..8 {
        last = f.create(config_map(&format!("a{index}"), "v")).await.unwrap().revision;
    }
    f.registry.cache().wait(last, PATIENCE).await.unwrap();
    assert_eq!(slow.next().await.unwrap_err().code(), Code::Gone);
    let old = f.registry.watch(kind, None, Selector::everything(), first);
    assert_eq!(old.err().unwrap().code(), Code::Gone);
    let mut other =
        f.registry.watch(Some(&kinds::POD), None, Selector::everything(), first).unwrap();
    assert_eq!(next(&mut other).await.0, EventKind::Bookmark, "other kinds have their own ring");
}

#[tokio::test]
async fn events_are_counted() {
    let f = fixture().await;
    let object = f.create(pod("p")).await.unwrap();
    let record = |reason: &str| {
        let warning = EventType::Warning;
        EventRecord::about(&object, warning, reason, "no node fits", "scheduler", Some(1))
    };
    let sum = |events: &[Arc<Object>]| -> BTreeMap<String, i32> {
        let typed = events.iter().map(|event| event.typed::<Event>().unwrap());
        typed.map(|event| (event.reason.clone().unwrap(), event.count.unwrap())).collect()
    };
    for _ in 0..5 {
        f.registry.events().record(record("FailedScheduling"));
    }
    f.registry.events().record(record("Other"));
    let want = BTreeMap::from([("FailedScheduling".to_owned(), 5), ("Other".to_owned(), 1)]);
    let mut revisions = f.registry.cache().subscribe();
    let settled = async {
        while sum(&f.registry.cache().list(&kinds::EVENT, None)) != want {
            revisions.changed().await.unwrap();
        }
        f.registry.events().record(record("Other"));
        while sum(&f.registry.cache().list(&kinds::EVENT, None))["Other"] != 2 {
            revisions.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap();
    let events = f.registry.cache().list(&kinds::EVENT, Some("default"));
    assert_eq!(events.len(), 2);
    assert_eq!(f.registry.expire_events(quorate_objects::time::timestamp(), Some(1)).await, 0);
    let later = quorate_objects::time::timestamp() + SignedDuration::from_hours(2);
    assert_eq!(f.registry.expire_events(later, Some(1)).await, 2);
}

#[tokio::test]
async fn the_cache_has_indexes() {
    let f = fixture().await;
    let owner = f.create(config_map("owner", "v")).await.unwrap();
    let mut owned = pod("owned");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
    f.create(owned).await.unwrap();
    let results = f.registry.write_batch(vec![bind("owned", "n1")], None).await;
    let revision = results[0].as_ref().unwrap().revision;
    let cache = f.registry.cache();
    cache.wait(revision, PATIENCE).await.unwrap();
    assert_eq!(cache.by_owner(owner.uid()).len(), 1);
    assert_eq!(cache.pods_on("n1").len(), 1);
    assert_eq!(cache.pods_on("n2").len(), 0);
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    let gone = f.delete(&kinds::POD, "owned", now).await.unwrap().object.revision;
    cache.wait(gone, PATIENCE).await.unwrap();
    assert!(cache.by_owner(owner.uid()).is_empty() && cache.pods_on("n1").is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..6, 0_u8..4).prop_map(|(name, value)| Step::Put(name, value)),
        3 => (0_u8..6).prop_map(Step::Delete),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 1..40)
}

/// Replays a watch; it must arrive at what the store holds.
async fn replay(watcher: &mut ObjectWatcher, until: u64) -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
        match (event.kind, event.object) {
            (EventKind::Deleted, Some(object)) => {
                assert!(seen.remove(object.name()).is_some(), "deleted what was not there");
            }
            (kind, Some(object)) => {
                let old = seen.insert(object.name().to_owned(), object.revision);
                assert_eq!(old.is_some(), kind == EventKind::Modified);
            }
            (_, None) if event.revision >= until => return seen,
            (_, None) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn cache_and_watch_equal_the_store(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bookmark_interval = Duration::from_millis(5);
            let options = RegistryOptions { bookmark_interval, ..RegistryOptions::default() };
            let f = fixture_with(options).await;
            let kind = Some(&kinds::CONFIG_MAP);
            let mut watcher = f.registry.watch(kind, None, Selector::everything(), 0).unwrap();
            for step in steps {
                match step {
                    Step::Put(name, value) => {
                        let object = config_map(&format!("m{name}"), &format!("v{value}"));
                        if f.update(object.clone()).await.is_err() {
                            f.create(object).await.unwrap();
                        }
                    }
                    Step::Delete(name) => {
                        let options = DeleteOptions::default();
                        let _ = f.delete(&kinds::CONFIG_MAP, &format!("m{name}"), options).await;
                    }
                    Step::Compact => {
                        let revision = f.store.read_revision().await.unwrap();
                        let kind = Some(CommandKind::Compact(CompactRequest { revision }));
                        // What is compacted already cannot be compacted again.
                        let _ = f.store.propose(Command { kind, ..Command::default() }).await;
                    }
                }
            }
            let prefix = quorate_store::KeyRange::prefix("/registry/configmaps/");
            let request = quorate_store::RangeRequest::new(prefix);
            let direct = f.store.range(request, Consistency::Linearizable).await.unwrap();
            let want: BTreeMap<String, u64> = direct.kvs.iter().map(|kv| {
                (ObjectKey::parse(&kv.key).unwrap().name, kv.mod_revision)
            }).collect();
            let options = ListOptions::default();
            let list = f.registry
                .list(&kinds::CONFIG_MAP, None, &options, Consistency::Linearizable).await.unwrap();
            let cached: BTreeMap<String, u64> =
                list.items.iter().map(|o| (o.name().to_owned(), o.revision)).collect();
            assert_eq!(cached, want);
            assert_eq!(replay(&mut watcher, direct.revision).await, want);
        });
    }
}
