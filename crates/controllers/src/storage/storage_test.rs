#![allow(clippy::unwrap_used, clippy::expect_used)]

use quorate_objects::{Kind, kinds, storage};
use quorate_registry::{DeleteOptions, WriteOptions};
use serde_json::{Value, json};

use crate::fake::{Cluster, options};
use crate::leader::Leader;

async fn start(cluster: &Cluster) -> Leader {
    let leader = Leader::start(cluster.registry.clone(), cluster.term(), options());
    let ready = |c: &Cluster| {
        let nodes = c.registry.cache().list(&kinds::NODE, None);
        nodes.iter().all(|n| n.value()["status"]["conditions"][0]["status"] == json!("True"))
    };
    cluster.until("all nodes are ready", ready).await;
    leader
}

fn claim(name: &str, spec: &Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    for (field, content) in spec.as_object().unwrap() {
        value["spec"][field] = content.clone();
    }
    value
}

fn class(name: &str, provisioner: &str, reclaim: &str, default: bool) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {(storage::DEFAULT_CLASS): default.to_string()}},
        "provisioner": provisioner, "reclaimPolicy": reclaim,
    })
}

fn pod_with(name: &str, volume: &Value) -> Value {
    let mut volume = volume.clone();
    volume["name"] = json!("data");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "a"}], "volumes": [volume]},
    })
}

fn static_volume(name: &str, class: &str, size: &str, more: &Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
            "storageClassName": class, "hostPath": {"path": "/x"}},
    });
    for (field, content) in more.as_object().unwrap() {
        value["spec"][field] = content.clone();
    }
    value
}

fn phase(cluster: &Cluster, claim: &str) -> Option<String> {
    let claim = cluster.get(&kinds::PERSISTENT_VOLUME_CLAIM, claim)?;
    claim["status"]["phase"].as_str().map(str::to_owned)
}

fn volumes(cluster: &Cluster) -> Vec<Value> {
    let all = cluster.registry.cache().list(&kinds::PERSISTENT_VOLUME, None);
    all.iter().map(|volume| volume.value()).collect()
}

fn node_of(cluster: &Cluster, pod: &str) -> Option<String> {
    let pod = cluster.get(&kinds::POD, pod)?;
    (pod["status"]["phase"] == json!("Running"))
        .then(|| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
}

async fn delete(cluster: &Cluster, kind: &'static Kind, namespace: &str, name: &str) {
    let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    cluster.registry.delete(kind, namespace, name, &options).await.unwrap();
}

fn said(cluster: &Cluster, reason: &str) -> Option<String> {
    let events = cluster.list(&kinds::EVENT);
    let event = events.iter().find(|event| event["reason"] == json!(reason))?;
    event["message"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_made_where_its_first_pod_runs_and_keeps_the_next_one_there() {
    let cluster = Cluster::new(3).await;
    let leader = start(&cluster).await;
    cluster.create(claim("data", &json!({}))).await;
    cluster.until("it waits", |c| said(c, "WaitForFirstConsumer").is_some()).await;
    let uses = json!({"persistentVolumeClaim": {"claimName": "data"}});
    cluster.create(pod_with("one", &uses)).await;
    cluster.until("it runs", |c| node_of(c, "one").is_some()).await;
    cluster.until("it is bound", |c| phase(c, "data").as_deref() == Some("Bound")).await;
    cluster.until("so is the volume", |c| volumes(c)[0]["status"]["phase"] == "Bound").await;
    let node = node_of(&cluster, "one").unwrap();
    let volume = &volumes(&cluster)[0];
    assert_eq!(volume["spec"]["csi"]["volumeAttributes"]["node"], json!(node));
    let status = cluster.get(&kinds::PERSISTENT_VOLUME_CLAIM, "data").unwrap()["status"].clone();
    assert_eq!(status["capacity"]["storage"], json!("1Gi"));
    assert_eq!(status["accessModes"], json!(["ReadWriteOnce"]));
    for round in 0..3 {
        delete(&cluster, &kinds::POD, "default", "one").await;
        cluster.until("it is gone", |c| c.get(&kinds::POD, "one").is_none()).await;
        cluster.create(pod_with("one", &uses)).await;
        cluster.until("it runs again", |c| node_of(c, "one").is_some()).await;
        assert_eq!(node_of(&cluster, "one").unwrap(), node, "round {round}");
    }

    // A claim that is used stays; then it goes, its volume with it, and the data.
    delete(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, "default", "data").await;
    let marked = |c: &Cluster| {
        let claim = c.get(&kinds::PERSISTENT_VOLUME_CLAIM, "data").expect("it is used");
        claim["metadata"]["deletionTimestamp"].is_string()
    };
    cluster.until("it is marked", marked).await;
    delete(&cluster, &kinds::POD, "default", "one").await;
    cluster.until("the claim is gone", |c| phase(c, "data").is_none()).await;
    cluster.until("the volume is gone", |c| volumes(c).is_empty()).await;
    assert_eq!(cluster.removed_data.lock().len(), 1);
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_claim_is_made_at_once_and_retained_data_stays() {
    let cluster = Cluster::new(1).await;
    let leader = start(&cluster).await;
    cluster.create(class("kept", storage::PROVISIONER, "Retain", false)).await;
    cluster.create(claim("data", &json!({"storageClassName": "kept"}))).await;
    cluster.until("it is bound", |c| phase(c, "data").as_deref() == Some("Bound")).await;
    delete(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, "default", "data").await;
    let released = |c: &Cluster| volumes(c)[0]["status"]["phase"] == json!("Released");
    cluster.until("the volume is released", released).await;
    let name = volumes(&cluster)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    delete(&cluster, &kinds::PERSISTENT_VOLUME, "", &name).await;
    cluster.until("the volume is gone", |c| volumes(c).is_empty()).await;
    assert!(cluster.removed_data.lock().is_empty(), "its data stays");

    // Data on a node that is gone keeps no object.
    cluster.create(class("fast", storage::PROVISIONER, "Delete", false)).await;
    cluster.create(claim("lost", &json!({"storageClassName": "fast"}))).await;
    cluster.until("it is bound", |c| phase(c, "lost").as_deref() == Some("Bound")).await;
    cluster.dead.lock().insert("n1".to_owned());
    delete(&cluster, &kinds::NODE, "", "n1").await;
    delete(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, "default", "lost").await;
    cluster.until("the volume is gone", |c| volumes(c).is_empty()).await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_cannot_be_provided_say_why() {
    let cluster = Cluster::new(1).await;
    let leader = start(&cluster).await;
    cluster.create(claim("shared", &json!({"accessModes": ["ReadWriteMany"]}))).await;
    cluster.until("it says so", |c| said(c, "ProvisioningFailed").is_some()).await;
    assert!(said(&cluster, "ProvisioningFailed").unwrap().contains("use ReadWriteOnce"));
    let uses = json!({"persistentVolumeClaim": {"claimName": "shared"}});
    cluster.create(pod_with("waits", &uses)).await;
    let why = |c: &Cluster| {
        let pod = c.get(&kinds::POD, "waits").unwrap_or_default();
        pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned()
    };
    cluster.until("its pod says so", |c| why(c).contains("use ReadWriteOnce")).await;
    cluster.create(claim("foreign", &json!({"storageClassName": "none"}))).await;
    let missing = |c: &Cluster| {
        let events = c.list(&kinds::EVENT);
        events.iter().any(|event| event["message"].to_string().contains("\\\"none\\\" not found"))
    };
    cluster.until("its class is missed", missing).await;
    cluster.create(class("none", "example.com/disk", "Delete", false)).await;
    cluster.until("others have to", |c| said(c, "ExternalProvisioning").is_some()).await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_that_exist_are_bound_the_smallest_that_will_do_first() {
    let cluster = Cluster::new(1).await;
    let leader = start(&cluster).await;
    cluster.create(class("slow", storage::NO_PROVISIONER, "Retain", false)).await;
    for (name, size) in [("small", "1Mi"), ("large", "9Gi"), ("right", "2Gi")] {
        cluster.create(static_volume(name, "slow", size, &json!({}))).await;
    }
    cluster.create(claim("a", &json!({"storageClassName": "slow"}))).await;
    cluster.until("it is bound", |c| phase(c, "a").as_deref() == Some("Bound")).await;
    let bound = |name: &str| {
        let claim = cluster.get(&kinds::PERSISTENT_VOLUME_CLAIM, name).unwrap();
        claim["spec"]["volumeName"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(bound("a"), "right");
    cluster.create(claim("b", &json!({"storageClassName": "slow", "volumeName": "right"}))).await;
    let taken = |c: &Cluster| said(c, "FailedBinding").is_some_and(|m| m.contains("already bound"));
    cluster.until("it is refused", taken).await;
    // Meant for a claim that comes later.
    let meant = json!({"claimRef": {"namespace": "default", "name": "c"}});
    cluster.create(static_volume("meant", "slow", "1Gi", &meant)).await;
    cluster.create(claim("d", &json!({"storageClassName": "slow"}))).await;
    cluster.until("it is bound", |c| phase(c, "d").as_deref() == Some("Bound")).await;
    assert_eq!(bound("d"), "large");
    cluster.create(claim("c", &json!({"storageClassName": "slow"}))).await;
    cluster.until("it is bound", |c| phase(c, "c").as_deref() == Some("Bound")).await;
    assert_eq!(bound("c"), "meant");
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_brings_its_claim_along_and_takes_it_away() {
    let cluster = Cluster::new(1).await;
    let leader = start(&cluster).await;
    let brings = json!({"ephemeral": {"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}}});
    cluster.create(pod_with("one", &brings)).await;
    cluster.until("it runs", |c| node_of(c, "one").is_some()).await;
    cluster.until("it is bound", |c| phase(c, "one-data").as_deref() == Some("Bound")).await;
    delete(&cluster, &kinds::POD, "default", "one").await;
    cluster.until("the claim is gone", |c| phase(c, "one-data").is_none()).await;
    cluster.until("the volume is gone", |c| volumes(c).is_empty()).await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_without_a_class_gets_the_default_one_when_there_is_one() {
    let cluster = Cluster::new(1).await;
    let leader = start(&cluster).await;
    cluster
        .registry
        .modify::<k8s_openapi::api::storage::v1::StorageClass>(
            &kinds::STORAGE_CLASS,
            "",
            storage::LOCAL_CLASS,
            &WriteOptions::default(),
            |class| class.metadata.annotations.take().is_some(),
        )
        .await
        .unwrap();
    cluster.settle().await;
    cluster.create(claim("data", &json!({}))).await;
    cluster.until("it says so", |c| said(c, "FailedBinding").is_some()).await;
    cluster.create(class("mine", storage::PROVISIONER, "Delete", true)).await;
    cluster.until("it is bound", |c| phase(c, "data").as_deref() == Some("Bound")).await;
    let claim = cluster.get(&kinds::PERSISTENT_VOLUME_CLAIM, "data").unwrap();
    assert_eq!(claim["spec"]["storageClassName"], json!("mine"));
    leader.stop().await.unwrap();
}
