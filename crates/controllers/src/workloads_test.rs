//! Workloads under a whole leader, on nodes in memory.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{kinds, pod};
use quorate_registry::{DeleteOptions, Object};
use serde_json::{Value, json};

use crate::fake::{Cluster, daemon_set, job, options, stateful_set};
use crate::leader::Leader;

async fn start(cluster: &Cluster) -> Leader {
    let leader = Leader::start(cluster.registry.clone(), cluster.term(), options());
    let ready = |node: &Value| node["status"]["conditions"][0]["status"] == json!("True");
    let nodes = |c: &Cluster| {
        let nodes = c.registry.cache().list(&kinds::NODE, None);
        nodes.iter().all(|node| ready(&node.value()))
    };
    cluster.until("all nodes are ready", nodes).await;
    leader
}

fn ready_names(cluster: &Cluster) -> Vec<String> {
    let active = cluster.active();
    let ready = active.iter().filter(|object| pod::is_ready(object));
    ready.filter_map(|object| object.metadata.name.clone()).collect()
}

fn image(object: &Pod) -> &str {
    object.spec.as_ref().and_then(|s| s.containers[0].image.as_deref()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_is_made_updated_and_rolled_back() {
    let cluster = Cluster::new(2).await;
    let leader = start(&cluster).await;
    cluster.create(stateful_set("db", 3, "a")).await;
    cluster.until("three", |c| ready_names(c) == ["db-0", "db-1", "db-2"]).await;
    assert_eq!(cluster.list(&kinds::PERSISTENT_VOLUME_CLAIM).len(), 3);
    let set_image = |image: &'static str| {
        cluster.change(&kinds::STATEFUL_SET, "db", move |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        })
    };
    let all = |c: &Cluster, wanted: &str| {
        let status = c.get(&kinds::STATEFUL_SET, "db").unwrap()["status"].clone();
        c.ready() == 3
            && c.active().iter().all(|object| image(object) == wanted)
            && status["currentRevision"] == status["updateRevision"]
            && status["readyReplicas"] == json!(3)
    };
    set_image("b").await;
    cluster.until("all are b", |c| all(c, "b")).await;
    assert_eq!(cluster.list(&kinds::CONTROLLER_REVISION).len(), 2);
    set_image("a").await;
    cluster.until("all are a again", |c| all(c, "a")).await;
    let revisions = cluster.list(&kinds::CONTROLLER_REVISION);
    assert_eq!(revisions.len(), 2, "a template that comes back keeps its revision");
    let numbers: HashSet<_> = revisions.iter().filter_map(|r| r["revision"].as_i64()).collect();
    assert_eq!(numbers, HashSet::from([2, 3]));
    cluster.change(&kinds::STATEFUL_SET, "db", |value| value["spec"]["replicas"] = json!(1)).await;
    cluster.until("one", |c| ready_names(c) == ["db-0"]).await;
    assert_eq!(cluster.list(&kinds::PERSISTENT_VOLUME_CLAIM).len(), 3, "claims stay");
    leader.stop().await.unwrap();
}

/// whenScaled is about pods that are scaled away, not about claims that lie around.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_go_with_the_very_pod_that_is_scaled_away() {
    let cluster = Cluster::new(2).await;
    let leader = start(&cluster).await;
    let mut db = stateful_set("db", 2, "a");
    db["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete"});
    let mut by_hand = db["spec"]["volumeClaimTemplates"][0].clone();
    by_hand["apiVersion"] = json!("v1");
    by_hand["kind"] = json!("PersistentVolumeClaim");
    by_hand["metadata"] = json!({"name": "data-db-3", "namespace": "default"});
    cluster.create(by_hand).await;
    cluster.create(db).await;
    let claims = |c: &Cluster| -> Vec<String> {
        let all = c.registry.cache().list(&kinds::PERSISTENT_VOLUME_CLAIM, Some("default"));
        all.iter().filter(|one| !one.is_deleting()).map(|one| one.name().to_owned()).collect()
    };
    let find = |c: &Cluster, kind, name: &str| c.registry.cache().get(kind, "default", name);
    let scale = |replicas: i32| {
        cluster.change(&kinds::STATEFUL_SET, "db", move |set| {
            set["spec"]["replicas"] = json!(replicas);
        })
    };
    cluster.until("two", |c| ready_names(c) == ["db-0", "db-1"]).await;
    assert_eq!(claims(&cluster), ["data-db-0", "data-db-1", "data-db-3"]);

    // Wanted again while the pod still stops: the claim stays, and the next pod gets it.
    let claim = || find(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, "data-db-1").unwrap();
    let (pod, before) = (find(&cluster, &kinds::POD, "db-1").unwrap(), claim());
    let hold = |list: Value| {
        cluster.change(&kinds::POD, "db-1", move |pod| pod["metadata"]["finalizers"] = list.clone())
    };
    hold(json!(["example.com/hold"])).await;
    scale(1).await;
    let goes = |c: &Cluster| find(c, &kinds::POD, "db-1").is_some_and(|pod| pod.is_deleting());
    cluster
        .until("the pod stops, and the claim is its", |c| {
            goes(c) && owners(&claim()) == [pod.uid()]
        })
        .await;
    scale(2).await;
    cluster.until("the claim is wanted again", |_| owners(&claim()).is_empty()).await;
    hold(json!([])).await;
    let new = |c: &Cluster| find(c, &kinds::POD, "db-1").is_some_and(|new| new.uid() != pod.uid());
    cluster.until("a new pod", |c| new(c) && ready_names(c) == ["db-0", "db-1"]).await;
    assert_eq!((claim().uid(), claim().is_deleting()), (before.uid(), false));

    scale(1).await;
    let gone = |c: &Cluster| find(c, &kinds::PERSISTENT_VOLUME_CLAIM, "data-db-1").is_none();
    cluster.until("the claim is gone", gone).await;
    assert_eq!(claims(&cluster), ["data-db-0", "data-db-3"]);
    leader.stop().await.unwrap();
}

/// The uids of an object's owners.
fn owners(object: &Object) -> Vec<&str> {
    object.meta.owner_references.iter().flatten().map(|owner| owner.uid.as_str()).collect()
}

/// A pod on a node that does not answer may still run: it holds its name until the node is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_two_pods_of_one_identity() {
    let cluster = Cluster::new(2).await;
    let mut quick = options();
    quick.force_delete_after = std::time::Duration::ZERO;
    let leader = Leader::start(cluster.registry.clone(), cluster.term(), quick);
    // Without claims: those would keep its pods on their nodes.
    let mut db = stateful_set("db", 2, "a");
    db["spec"]["volumeClaimTemplates"].take();
    cluster.create(db).await;
    cluster.until("two", |c| ready_names(c).len() == 2).await;
    let find = |c: &Cluster| c.registry.cache().get(&kinds::POD, "default", "db-0");
    let before = find(&cluster).unwrap();
    let node = before.field("spec.nodeName").unwrap().to_owned();
    cluster.dead.lock().insert(node.clone());
    cluster.until("it is being deleted", |c| find(c).unwrap().is_deleting()).await;
    // What is not held by a name is replaced at once.
    cluster.create(crate::fake::deployment("web", 2, "a")).await;
    let web = |c: &Cluster| ready_names(c).iter().filter(|name| name.starts_with("web")).count();
    cluster.until("others run", |c| web(c) == 2).await;
    assert_eq!(find(&cluster).unwrap().uid(), before.uid(), "the name is still held");
    cluster.dead.lock().clear();
    let new = |c: &Cluster| find(c).is_some_and(|object| object.uid() != before.uid());
    cluster.until("a new one", |c| new(c) && ready_names(c).contains(&"db-0".into())).await;
    // An administrator who removes the node says that nothing runs there any more.
    let object = find(&cluster).unwrap();
    let node = object.field("spec.nodeName").unwrap().to_owned();
    cluster.dead.lock().insert(node.clone());
    cluster.until("it is being deleted", |c| find(c).is_none_or(|p| p.is_deleting())).await;
    cluster
        .registry
        .modify::<k8s_openapi::api::core::v1::Node>(
            &kinds::NODE,
            "",
            &node,
            &quorate_registry::WriteOptions::default(),
            |node| {
                let taint = json!({"key": "node.kubernetes.io/out-of-service",
                    "effect": "NoExecute"});
                let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
                taints.push(serde_json::from_value(taint).unwrap());
                true
            },
        )
        .await
        .unwrap();
    let other = |c: &Cluster| find(c).is_some_and(|new| new.uid() != object.uid());
    cluster
        .until("it runs elsewhere", |c| other(c) && ready_names(c).contains(&"db-0".into()))
        .await;
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_runs_on_every_node_also_on_new_ones() {
    let cluster = Cluster::new(3).await;
    let leader = start(&cluster).await;
    cluster.create(daemon_set("log", "a")).await;
    let nodes = |c: &Cluster| -> HashSet<String> {
        let active = c.active();
        let ready = active.iter().filter(|object| pod::is_ready(object));
        ready.filter_map(|object| pod::node_name(object).map(str::to_owned)).collect()
    };
    cluster.until("three", |c| nodes(c).len() == 3 && c.active().len() == 3).await;
    cluster.add_node("n4").await;
    cluster.until("four", |c| nodes(c).len() == 4).await;
    cluster
        .change(&kinds::DAEMON_SET, "log", |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
        })
        .await;
    cluster
        .until("all are b", |c| {
            nodes(c).len() == 4 && c.active().iter().all(|object| image(object) == "b")
        })
        .await;
    // It does not go away when the node is silent, and counts as there.
    let before: HashSet<_> = cluster.active().iter().map(|p| p.metadata.uid.clone()).collect();
    cluster.dead.lock().insert("n4".into());
    let lost = |c: &Cluster| {
        let node = c.registry.cache().get(&kinds::NODE, "", "n4").unwrap().value();
        node["status"]["conditions"][0]["status"] == json!("Unknown")
    };
    cluster.until("n4 is lost", lost).await;
    cluster.settle().await;
    let after: HashSet<_> = cluster.active().iter().map(|p| p.metadata.uid.clone()).collect();
    assert_eq!(before, after);
    leader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end() {
    let cluster = Cluster::new(2).await;
    let leader = start(&cluster).await;
    let ended = |c: &Cluster, name: &str, condition: &str| {
        let job = c.get(&kinds::JOB, name).unwrap_or_default();
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == condition && one["status"] == "True")
    };
    let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    cluster.create(job("sum", "exits:0", &spec)).await;
    cluster.until("it is complete", |c| ended(c, "sum", "Complete")).await;
    let settled = |c: &Cluster| {
        let pods = c.list(&kinds::POD);
        pods.len() == 4
            && pods.iter().all(|p| p["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty))
    };
    cluster.until("all pods are let go", settled).await;
    let status = cluster.get(&kinds::JOB, "sum").unwrap()["status"].clone();
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&json!(4), &json!("0-3")));
    cluster.create(job("bad", "exits:3", &json!({"backoffLimit": 2}))).await;
    cluster.until("it has failed", |c| ended(c, "bad", "Failed")).await;
    let counted = |c: &Cluster| c.get(&kinds::JOB, "bad").unwrap()["status"]["failed"] == json!(3);
    cluster.until("three failures are counted", counted).await;
    // Background deletion takes the pods along, although they were held for counting.
    for name in ["sum", "bad"] {
        cluster.delete(&kinds::JOB, name, DeleteOptions::default()).await;
    }
    cluster.until("nothing is left", |c| c.list(&kinds::POD).is_empty()).await;
    cluster.create(job("brief", "exits:0", &json!({"ttlSecondsAfterFinished": 0}))).await;
    cluster.until("it removes itself", |c| c.list(&kinds::JOB).is_empty()).await;
    leader.stop().await.unwrap();
}

/// Whoever took its owner away: a pod that waits for being counted by nobody is let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_no_job_counts_is_let_go() {
    let cluster = Cluster::new(1).await;
    let mut left = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "left", "namespace": "default",
            "finalizers": ["batch.kubernetes.io/job-tracking"]},
        "spec": {"containers": [{"name": "c", "image": "runs"}]}});
    cluster.create(left.clone()).await;
    cluster.delete(&kinds::POD, "left", DeleteOptions::default()).await;
    cluster.settle().await;
    assert!(cluster.get(&kinds::POD, "left").is_some(), "its finalizer holds it");
    let leader = start(&cluster).await;
    cluster.until("it is gone", |c| c.get(&kinds::POD, "left").is_none()).await;
    // One of a Job that is another one by now, and that comes while the leader is at work.
    left["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job",
        "name": "sum", "uid": "another", "controller": true}]);
    cluster.create(job("sum", "runs", &json!({}))).await;
    cluster.create(left).await;
    let free = |c: &Cluster| {
        let pod = c.registry.cache().get(&kinds::POD, "default", "left");
        pod.is_none_or(|pod| pod.meta.finalizers.iter().flatten().next().is_none())
    };
    cluster.until("it is let go", free).await;
    leader.stop().await.unwrap();
}

/// A node dies with a pod of a Job: another pod takes over, and the Job is complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_survives_its_node() {
    let cluster = Cluster::new(2).await;
    let leader = start(&cluster).await;
    cluster.create(job("long", "runs", &json!({}))).await;
    cluster.until("it runs", |c| c.ready() == 1).await;
    let node = pod::node_name(&cluster.active()[0]).unwrap().to_owned();
    cluster.dead.lock().insert(node.clone());
    cluster
        .until("it runs elsewhere", |c| {
            let active = c.active();
            active.len() == 1 && pod::node_name(&active[0]).is_some_and(|at| at != node)
        })
        .await;
    let failed = |c: &Cluster| c.get(&kinds::JOB, "long").unwrap()["status"]["failed"] == json!(1);
    cluster.until("the lost one is counted", failed).await;
    cluster.change(&kinds::JOB, "long", |value| value["spec"]["suspend"] = json!(true)).await;
    cluster.until("it is suspended", |c| c.active().is_empty()).await;
    leader.stop().await.unwrap();
}

/// What a quota refuses is said by the Deployment, until it is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_says_that_its_pods_are_refused() {
    let cluster = Cluster::new(2).await;
    let leader = start(&cluster).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}});
    cluster.create(quota).await;
    cluster.create(crate::fake::deployment("web", 4, "a")).await;
    let failure = |c: &Cluster| {
        let value = c.get(&kinds::DEPLOYMENT, "web").unwrap_or_default();
        let all = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == "ReplicaFailure")
    };
    cluster.until("it says so", |c| failure(c).is_some() && c.ready() == 2).await;
    let said = failure(&cluster).unwrap();
    assert_eq!((&said["status"], &said["reason"]), (&json!("True"), &json!("FailedCreate")));
    assert!(said["message"].as_str().unwrap().contains("exceeded quota"), "{said}");
    cluster.change(&kinds::RESOURCE_QUOTA, "few", |q| q["spec"]["hard"]["pods"] = json!("9")).await;
    cluster.until("it is over", |c| failure(c).is_none() && c.ready() == 4).await;
    leader.stop().await.unwrap();
}

/// With a success policy the pods that are not needed any more are stopped, then the Job ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_succeeds_by_its_policy() {
    let cluster = Cluster::new(2).await;
    let leader = start(&cluster).await;
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]}});
    cluster.create(job("fast", "runs", &spec)).await;
    cluster.until("three run", |c| c.ready() == 3).await;
    let leading = cluster.active().into_iter().find(|object| {
        let labels = object.metadata.labels.as_ref().unwrap();
        labels[quorate_objects::job::COMPLETION_INDEX] == "1"
    });
    let name = leading.unwrap().metadata.name.clone().unwrap();
    cluster.succeed(&name).await;
    let reasons = |c: &Cluster| {
        let status = c.get(&kinds::JOB, "fast").unwrap()["status"].clone();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<_> =
            all.iter().map(|one| format!("{} {}", one["type"], one["reason"])).collect();
        all.sort();
        all
    };
    let both = ["\"Complete\" \"SuccessPolicy\"", "\"SuccessCriteriaMet\" \"SuccessPolicy\""];
    cluster.until("it is complete", |c| reasons(c) == both).await;
    assert!(cluster.active().is_empty(), "nothing runs any more");
    leader.stop().await.unwrap();
}
