//! Evictions, quotas, limit ranges, priorities and service accounts, on the store in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use quorate_objects::{Kind, kinds, pod};
use quorate_store::{Consistency, MemoryStore};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::*;

struct Fixture {
    registry: Registry,
    /// A second master over the same store.
    other: Registry,
    _stop: DropGuard,
}

async fn fixture() -> Fixture {
    let store = MemoryStore::new();
    let cancel = CancellationToken::new();
    let start = || Registry::start(store.clone(), RegistryOptions::default(), cancel.clone());
    let (registry, other) = (start(), start());
    for one in [&registry, &other] {
        one.wait_synced(std::time::Duration::from_secs(20)).await.unwrap();
    }
    registry.ensure_system_objects(Some(1)).await.unwrap();
    Fixture { registry, other, _stop: cancel.drop_guard() }
}

impl Fixture {
    async fn create(&self, value: Value) -> Result<Arc<Object>, RegistryError> {
        let created = self.registry.create(value, &WriteOptions::default()).await;
        self.settle().await;
        created
    }

    /// Both caches show everything.
    async fn settle(&self) {
        for one in [&self.registry, &self.other] {
            let all = ListOptions::default();
            one.list(&kinds::POD, None, &all, Consistency::Linearizable).await.unwrap();
        }
    }

    async fn get(&self, kind: &'static Kind, name: &str) -> Value {
        let consistency = Consistency::Linearizable;
        self.registry.get(kind, "default", name, consistency).await.unwrap().value()
    }

    /// A pod that runs and is ready.
    async fn run(&self, name: &str) {
        self.create(pod_of(name, json!({}))).await.unwrap();
        let ready = |pod: &mut Pod| {
            pod::set_condition(pod, "Ready", "True", None, None);
            pod.status.get_or_insert_default().phase = Some("Running".into());
            true
        };
        let options = WriteOptions::default();
        self.registry.modify_status(&kinds::POD, "default", name, &options, ready).await.unwrap();
        self.settle().await;
    }

    /// What the controller would write.
    async fn budget_status(&self, allowed: i32, healthy: i32) {
        let set = |budget: &mut PodDisruptionBudget| {
            let status = budget.status.get_or_insert_default();
            status.disruptions_allowed = Some(allowed);
            status.current_healthy = Some(healthy);
            status.desired_healthy = Some(1);
            status.observed_generation = budget.metadata.generation;
            true
        };
        let (kind, options) = (&kinds::POD_DISRUPTION_BUDGET, WriteOptions::default());
        self.registry.modify_status(kind, "default", "web", &options, set).await.unwrap();
        self.settle().await;
    }
}

fn pod_of(name: &str, resources: Value) -> Value {
    let container = json!({"name": "c", "image": "i:1", "resources": resources});
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [container]}})
}

fn named(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn budget() -> Value {
    let selector = json!({"matchLabels": {"app": "web"}});
    named(
        "policy/v1",
        "PodDisruptionBudget",
        "web",
        json!({"minAvailable": 1, "selector": selector}),
    )
}

/// The second master need not have heard of the budget yet.
#[tokio::test]
async fn a_budget_counts_at_every_master_as_soon_as_it_is_made() {
    let f = fixture().await;
    f.run("a").await;
    f.settle().await;
    f.registry.create(budget(), &WriteOptions::default()).await.unwrap();
    let early = f.other.evict("default", "a", &DeleteOptions::default()).await.unwrap_err();
    assert_eq!(early.code(), Code::TooManyRequests, "{early}");
}

#[tokio::test]
async fn evictions_use_up_the_budget_also_from_two_masters() {
    let f = fixture().await;
    for name in ["a", "b", "c"] {
        f.run(name).await;
    }
    f.create(budget()).await.unwrap();
    let options = DeleteOptions::default();
    // The budget is new and nobody has worked it out: wait.
    let early = f.registry.evict("default", "a", &options).await.unwrap_err();
    assert_eq!(early.code(), Code::TooManyRequests, "{early}");
    f.budget_status(1, 3).await;
    let both =
        [f.registry.evict("default", "a", &options), f.other.evict("default", "b", &options)];
    let outcomes = join_all(both).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "one was allowed: {refused:?}");
    let text = refused[0].to_string();
    assert!(text.contains("needs 1 healthy pods and has 3 currently"), "{text}");
    f.settle().await;
    let status = f.get(&kinds::POD_DISRUPTION_BUDGET, "web").await["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["disruptedPods"].as_object().unwrap().len(), 1);
    let name = status["disruptedPods"].as_object().unwrap().keys().next().unwrap().clone();
    let evicted = f.get(&kinds::POD, &name).await;
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    let conditions = evicted["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "DisruptionTarget"));
    // A trial costs nothing.
    f.budget_status(1, 2).await;
    let trial = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    f.registry.evict("default", "c", &trial).await.unwrap();
    let status = f.get(&kinds::POD_DISRUPTION_BUDGET, "web").await["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 1);
}

#[tokio::test]
async fn pods_that_do_no_work_may_always_go() {
    let f = fixture().await;
    f.create(budget()).await.unwrap();
    f.budget_status(0, 1).await;
    f.create(pod_of("pending", json!({}))).await.unwrap();
    f.registry.evict("default", "pending", &DeleteOptions::default()).await.unwrap();
}

fn quota(hard: Value) -> Value {
    named("v1", "ResourceQuota", "few", json!({"hard": hard}))
}

#[tokio::test]
async fn a_quota_is_never_exceeded_by_two_masters_together() {
    let f = fixture().await;
    f.create(quota(json!({"pods": "5", "count/configmaps": "1"}))).await.unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("p{n}")).collect();
    let creations = names.iter().enumerate().map(|(n, name)| {
        let master = if n % 2 == 0 { &f.registry } else { &f.other };
        async move { master.create(pod_of(name, json!({})), &WriteOptions::default()).await }
    });
    let outcomes = join_all(creations).await;
    let created = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(created, 5);
    let refused = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).unwrap();
    assert_eq!(refused.code(), Code::Forbidden);
    let text = refused.to_string();
    let wanted = "exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5";
    assert!(text.ends_with(wanted), "{text}");
    f.settle().await;
    assert_eq!(f.get(&kinds::RESOURCE_QUOTA, "few").await["status"]["used"]["pods"], "5");
    let map = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"}})
    };
    f.create(map("one")).await.unwrap();
    assert!(f.create(map("two")).await.unwrap_err().to_string().contains("count/configmaps=1"));
}

#[tokio::test]
async fn quotas_count_what_pods_request() {
    let f = fixture().await;
    f.create(quota(json!({"requests.cpu": "1", "limits.memory": "1Gi"}))).await.unwrap();
    let silent = f.create(pod_of("silent", json!({}))).await.unwrap_err().to_string();
    let wanted = "failed quota: few: must specify limits.memory for: c; requests.cpu for: c";
    assert!(silent.ends_with(wanted), "{silent}");
    let resources = json!({"requests": {"cpu": "600m"}, "limits": {"memory": "512Mi"}});
    f.create(pod_of("first", resources.clone())).await.unwrap();
    let used = f.get(&kinds::RESOURCE_QUOTA, "few").await["status"]["used"].clone();
    assert_eq!(used, json!({"requests.cpu": "600m", "limits.memory": "512Mi"}));
    let second = f.create(pod_of("second", resources)).await.unwrap_err().to_string();
    let wanted = "requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert!(second.contains(wanted), "{second}");
    // A count from scratch says the same.
    let counted = f.registry.cache().read(|view| {
        let object = view.get(&kinds::RESOURCE_QUOTA, "default", "few").unwrap();
        let quota = object.typed::<ResourceQuota>().unwrap();
        quota::status(&quota, &quota::counted_usage(view, &quota))
    });
    assert_eq!(serde_json::to_value(counted.used).unwrap(), used);
}

/// A sidecar runs beside the containers, and what surrounds a pod takes something as well.
#[tokio::test]
async fn quotas_count_sidecars_and_overhead() {
    let f = fixture().await;
    f.create(quota(json!({"requests.cpu": "2", "limits.memory": "1Gi"}))).await.unwrap();
    let resources = json!({"requests": {"cpu": "1"}, "limits": {"memory": "128Mi"}});
    let with_init = |name: &str, policy: Option<&str>| {
        let mut pod = pod_of(name, resources.clone());
        let mut init = json!({"name": "i", "image": "i:1", "resources": resources});
        init["restartPolicy"] = json!(policy);
        pod["spec"]["initContainers"] = json!([init]);
        pod
    };
    let used = async || f.get(&kinds::RESOURCE_QUOTA, "few").await["status"]["used"].clone();
    f.create(with_init("first", Some("Always"))).await.unwrap();
    assert_eq!(used().await, json!({"requests.cpu": "2", "limits.memory": "256Mi"}));
    let second = f.create(with_init("second", None)).await.unwrap_err().to_string();
    let wanted = "requested: requests.cpu=1, used: requests.cpu=2, limited: requests.cpu=2";
    assert!(second.contains(wanted), "{second}");
    let mut large = with_init("large", None);
    large["metadata"]["namespace"] = json!("other");
    large["spec"]["overhead"] = json!({"cpu": "250m", "memory": "64Mi", "example.com/x": "1"});
    let object = Object::from_value(&kinds::POD, large, 1).unwrap();
    let usage = quota::usage(&object);
    let of = |name: &str| usage.get(name).map(ToString::to_string);
    assert_eq!(of("requests.cpu").as_deref(), Some("1250m"));
    assert_eq!(of("limits.memory"), Some((192 * 1024 * 1024).to_string()));
    assert_eq!(of("requests.example.com/x").as_deref(), Some("1"));
    assert_eq!(of("limits.cpu"), None);
}

#[tokio::test]
async fn a_change_that_uses_more_than_a_quota_has_is_refused() {
    let f = fixture().await;
    let hard = json!({"services.nodeports": "2", "requests.storage": "3Gi"});
    f.create(quota(hard)).await.unwrap();
    let port = |number: u32| json!({"name": format!("p{number}"), "port": number});
    let service = |kind: &str, ports: Value| {
        named("v1", "Service", "web", json!({"type": kind, "ports": ports}))
    };
    let replace = async |value: Value| f.registry.update(value, &WriteOptions::default()).await;
    f.create(service("ClusterIP", json!([port(1), port(2), port(3)]))).await.unwrap();
    let many = replace(service("NodePort", json!([port(1), port(2), port(3)]))).await.unwrap_err();
    assert_eq!(many.code(), Code::Forbidden);
    let wanted = "services \"web\" is forbidden: exceeded quota: few, requested: \
                  services.nodeports=3, used: services.nodeports=0, limited: services.nodeports=2";
    assert_eq!(many.to_string(), wanted);
    replace(service("NodePort", json!([port(1), port(2)]))).await.unwrap();
    f.settle().await;
    let used = |quota: Value| quota["status"]["used"].clone();
    let now = used(f.get(&kinds::RESOURCE_QUOTA, "few").await);
    assert_eq!(now["services.nodeports"], "2");
    // What does not use more is no question for a quota.
    let mut labelled = service("NodePort", json!([port(1), port(2)]));
    labelled["metadata"]["labels"] = json!({"a": "b"});
    replace(labelled).await.unwrap();

    let claim = |size: &str| {
        named(
            "v1",
            "PersistentVolumeClaim",
            "data",
            json!({"accessModes": ["ReadWriteOnce"],
            "storageClassName": "local", "resources": {"requests": {"storage": size}}}),
        )
    };
    let mut bound = f.create(claim("1Gi")).await.unwrap().value();
    bound["status"]["phase"] = json!("Bound");
    f.registry.update_status(bound, &WriteOptions::default()).await.unwrap();
    let large = replace(claim("4Gi")).await.unwrap_err().to_string();
    let wanted = "requested: requests.storage=3Gi, used: requests.storage=1Gi, limited: \
                  requests.storage=3Gi";
    assert!(large.ends_with(wanted), "{large}");
    replace(claim("3Gi")).await.unwrap();
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let f = fixture().await;
    let item = json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"},
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "200m"}});
    f.create(named("v1", "LimitRange", "bounds", json!({"limits": [item]}))).await.unwrap();
    f.create(pod_of("plain", json!({}))).await.unwrap();
    let resources = f.get(&kinds::POD, "plain").await["spec"]["containers"][0]["resources"].clone();
    assert_eq!(resources, json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}));
    let large = f.create(pod_of("large", json!({"limits": {"cpu": "2"}}))).await.unwrap_err();
    let wanted =
        "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    assert_eq!(large.to_string(), wanted);
    let small = json!({"limits": {"cpu": "50m"}});
    let small = f.create(pod_of("small", small)).await.unwrap_err().to_string();
    assert!(
        small.contains("minimum cpu usage per Container is 100m, but request is 50m"),
        "{small}"
    );
}

/// A pod takes what its containers and sidecars take together, or what its largest init container
/// does.
#[tokio::test]
async fn limit_ranges_of_pods_count_what_runs_at_once() {
    let f = fixture().await;
    let item = json!({"type": "Pod", "max": {"cpu": "1"}});
    f.create(named("v1", "LimitRange", "bounds", json!({"limits": [item]}))).await.unwrap();
    let pod = |name: &str, init: &str, policy: Option<&str>| {
        let half = |cpu: &str| json!({"limits": {"cpu": cpu}});
        let mut pod = pod_of(name, half("500m"));
        pod["spec"]["initContainers"] = json!([{"name": "i", "image": "i:1",
            "resources": half(init), "restartPolicy": policy}]);
        pod
    };
    f.create(pod("before", "1", None)).await.unwrap();
    f.create(pod("beside", "500m", Some("Always"))).await.unwrap();
    for (name, policy) in [("large-before", None), ("large-beside", Some("Always"))] {
        let init = if policy.is_some() { "600m" } else { "1100m" };
        let error = f.create(pod(name, init, policy)).await.unwrap_err().to_string();
        let wanted = "maximum cpu usage per Pod is 1, but limit is 1100m";
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn priorities_and_service_accounts() {
    let f = fixture().await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "high"}, "value": 1000});
    f.create(class).await.unwrap();
    let mut pod = pod_of("a", json!({}));
    pod["spec"]["priorityClassName"] = json!("high");
    f.create(pod.clone()).await.unwrap();
    let spec = f.get(&kinds::POD, "a").await["spec"].clone();
    assert_eq!((&spec["priority"], &spec["serviceAccountName"]), (&json!(1000), &json!("default")));
    pod["metadata"]["name"] = json!("b");
    pod["spec"]["priorityClassName"] = json!("system-node-critical");
    f.create(pod.clone()).await.unwrap();
    assert_eq!(f.get(&kinds::POD, "b").await["spec"]["priority"], 2_000_001_000);
    pod["metadata"]["name"] = json!("c");
    pod["spec"]["priorityClassName"] = json!("highest");
    let unknown = f.create(pod).await.unwrap_err().to_string();
    assert!(unknown.ends_with("no PriorityClass with name highest was found"), "{unknown}");
    let mut pod = pod_of("d", json!({}));
    pod["spec"]["serviceAccountName"] = json!("robot");
    let unknown = f.create(pod.clone()).await.unwrap_err().to_string();
    assert!(unknown.contains("serviceaccount \"robot\" not found"), "{unknown}");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "robot", "namespace": "default"}});
    f.create(account).await.unwrap();
    f.create(pod).await.unwrap();
}

/// Only a class makes a pod important, whoever writes it and however.
#[tokio::test]
async fn priorities_come_from_classes_only() {
    let f = fixture().await;
    let class = |name: &str, value: i32, default: bool| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": "Never"})
    };
    let pod = |name: &str, class: Option<&str>, priority: Option<i32>, policy: Option<&str>| {
        let mut pod = pod_of(name, json!({}));
        pod["spec"]["priorityClassName"] = json!(class);
        pod["spec"]["priority"] = json!(priority);
        pod["spec"]["preemptionPolicy"] = json!(policy);
        pod
    };
    f.create(class("low", 10, false)).await.unwrap();
    let by_user = WriteOptions { field_manager: Some("me".into()), ..WriteOptions::default() };
    for options in [WriteOptions::default(), by_user] {
        let create = async |value: Value| f.registry.create(value, &options).await;
        let alone = create(pod("a", None, Some(1_000_000), None)).await.unwrap_err();
        assert_eq!(alone.code(), Code::Forbidden);
        let text = "pods \"a\" is forbidden: the integer value of priority (1000000) must not be \
                    provided in pod spec; priority admission controller computed 0 from the given \
                    PriorityClass name";
        assert_eq!(alone.to_string(), text);
        let other = create(pod("a", Some("low"), Some(11), None)).await.unwrap_err().to_string();
        assert!(other.contains("(11)") && other.contains("computed 10"), "{other}");
        let eager = pod("a", Some("low"), Some(10), Some("PreemptLowerPriority"));
        let eager = create(eager).await.unwrap_err().to_string();
        let text = "the string value of PreemptionPolicy (PreemptLowerPriority) must not be";
        assert!(eager.contains(text) && eager.contains("computed Never"), "{eager}");
    }
    let spec = |object: Arc<Object>| object.value()["spec"].clone();
    let plain = spec(f.create(pod("plain", None, None, None)).await.unwrap());
    assert_eq!(plain["priority"], 0);
    assert_eq!(plain["preemptionPolicy"], "PreemptLowerPriority");
    // What is right may be said.
    f.create(pod("zero", None, Some(0), Some("PreemptLowerPriority"))).await.unwrap();
    let low = spec(f.create(pod("low", Some("low"), Some(10), None)).await.unwrap());
    assert_eq!(low["preemptionPolicy"], "Never");
    let critical = pod("critical", Some("system-node-critical"), Some(2_000_001_000), None);
    f.create(critical).await.unwrap();
    f.create(class("usual", 5, true)).await.unwrap();
    let usual = spec(f.create(pod("usual", None, Some(5), None)).await.unwrap());
    assert_eq!(usual["priorityClassName"], "usual");
    let text = f.create(pod("b", None, Some(0), None)).await.unwrap_err().to_string();
    assert!(text.contains("computed 5"), "{text}");
}
