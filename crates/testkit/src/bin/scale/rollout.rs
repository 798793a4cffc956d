//! A Deployment that is rolled to a new version: how long it takes, and which writes it costs.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_client::{
    Client, Event, ListOptions, PatchOptions, PatchType, WatchOptions, WriteOptions,
};
use quorate_objects::{Kind, kinds};
use quorate_testkit::{TestCluster, wait_for};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

const NAMESPACE: &str = "rollout";
const NAME: &str = "web";
/// What can be written because of a rollout.
const WRITTEN: [&Kind; 4] = [&kinds::POD, &kinds::REPLICA_SET, &kinds::DEPLOYMENT, &kinds::EVENT];

/// Rolls a Deployment of so many replicas; the figures' names begin with `rollout_`.
pub async fn measure(cluster: &TestCluster, replicas: usize, limit: Duration) -> Result<Value> {
    let client = cluster.client()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
                           "metadata": {"name": NAMESPACE}});
    client.create(&namespace, &WriteOptions::default()).await?;
    client.create(&deployment(replicas), &WriteOptions::default()).await?;
    wait_for("the first version runs", limit, async || done(&client, replicas, 1).await).await?;

    let before = cluster.status().await?.revision;
    let counts: Vec<_> = WRITTEN.iter().map(|kind| count(client.clone(), kind, before)).collect();
    let start = Instant::now();
    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "scale:2"}]}}}});
    let options = PatchOptions::default();
    let kind = &kinds::DEPLOYMENT;
    client.patch(kind, NAMESPACE, NAME, PatchType::Strategic, &image, &options).await?;
    wait_for("the second version runs", limit, async || done(&client, replicas, 2).await).await?;
    let took = start.elapsed();
    let after = cluster.status().await?.revision;

    let mut figures = Map::new();
    figures.insert("rollout_replicas".into(), replicas.into());
    let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
    figures.insert("rollout_seconds".into(), seconds.into());
    figures.insert("rollout_writes".into(), (after - before).into());
    for task in counts {
        // Each has seen everything with the first bookmark that is not older.
        let seen = wait_for_count(task, after).await?;
        for (what, times) in seen {
            figures.insert(format!("rollout_writes_{what}"), times.into());
        }
    }
    Ok(figures.into())
}

fn deployment(replicas: usize) -> Value {
    let labels = json!({"app": NAME});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": "scale:1", "resources": {
                    "requests": {"cpu": "10m", "memory": "8Mi"},
                }}],
            }},
        },
    })
}

/// Do all replicas run the newest template, and has every older pod gone?
async fn done(client: &Client, replicas: usize, generation: u64) -> Result<()> {
    let value = client.get(&kinds::DEPLOYMENT, NAMESPACE, NAME).await?.value;
    let status = &value["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    ensure!(number("observedGeneration") >= generation, "the change has not been seen: {status}");
    for field in ["replicas", "updatedReplicas", "availableReplicas"] {
        ensure!(number(field) == replicas as u64, "{field} is not {replicas}: {status}");
    }
    let options = ListOptions { namespace: NAMESPACE.to_owned(), ..ListOptions::default() };
    let pods = client.list(&kinds::POD, &options).await?.items.len();
    ensure!(pods == replicas, "there are {pods} pods");
    Ok(())
}

type Counts = BTreeMap<String, u64>;
type Counting = (tokio::sync::watch::Sender<u64>, JoinHandle<Result<Counts>>);

/// Counts the writes to one kind's objects in the namespace, from a revision on, until it is told
/// up to which.
fn count(client: Client, kind: &'static Kind, from: u64) -> Counting {
    let (until, told) = tokio::sync::watch::channel(u64::MAX);
    let options =
        WatchOptions { namespace: NAMESPACE.to_owned(), revision: from, ..WatchOptions::default() };
    let task = tokio::spawn(async move {
        let mut watch = client.watch(kind, options);
        let (mut counts, mut last) = (Counts::new(), HashMap::new());
        loop {
            let (what, revision) = match watch.next().await? {
                Event::Bookmark(revision) if revision >= *told.borrow() => return Ok(counts),
                Event::Bookmark(_) => continue,
                Event::Added(object) => {
                    last.insert(object.uid.clone(), stage(&object.value));
                    ("created", object.revision)
                }
                Event::Modified(object) => {
                    let now = stage(&object.value);
                    // Pods of the first version run.
                    let before = last.insert(object.uid.clone(), now).unwrap_or((true, false));
                    (step(kind, before, now), object.revision)
                }
                Event::Deleted(object) => ("deleted", object.revision),
            };
            if revision <= *told.borrow() {
                *counts.entry(format!("{}_{what}", kind.plural)).or_default() += 1;
            }
        }
    });
    (until, task)
}

/// Is it bound, is it being deleted?
fn stage(value: &Value) -> (bool, bool) {
    let bound = value["spec"]["nodeName"].is_string();
    (bound, value["metadata"]["deletionTimestamp"].is_string())
}

fn step(kind: &Kind, before: (bool, bool), now: (bool, bool)) -> &'static str {
    match (before, now) {
        ((_, false), (_, true)) => "asked_to_stop",
        ((false, _), (true, _)) => "bound",
        _ if *kind == kinds::POD => "status",
        _ => "updated",
    }
}

async fn wait_for_count((until, task): Counting, revision: u64) -> Result<Counts> {
    until.send_replace(revision);
    task.await?
}
