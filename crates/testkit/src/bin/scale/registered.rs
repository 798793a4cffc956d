//! Nodes that are only registered: no agent runs pods, so that what is measured is that pods are
//! created and bound, durably, and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_client::{Client, Object, WriteOptions};
use quorate_testkit::{Options, TestCluster, wait_for};
use serde_json::{Value, json};

use crate::usage::Usage;
use crate::{
    PODS_PER_NODE, add, create_all, create_namespaces, per_second, pod, rounded, until_none,
};

/// Nodes registered at the same time.
const AT_ONCE: usize = 64;

/// Creates the pods, and waits until all are bound; the figures' names begin with `registered_`.
pub async fn measure(nodes: u32, clients: usize, limit: Duration) -> Result<Value> {
    let options = Options { nodes: 0, insecure: true, ..Options::default() };
    let cluster = TestCluster::start(options).await?;
    let client = cluster.client()?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..nodes {
        if tasks.len() >= AT_ONCE
            && let Some(ended) = tasks.join_next().await
        {
            ended??;
        }
        let client = client.clone();
        tasks.spawn(async move { register(&client, number).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    // No heartbeat ever comes: the controllers say so once, and write nothing after that.
    let mut before = 0;
    let quiet = async || {
        let now = cluster.status().await?.revision;
        let writes = now - std::mem::replace(&mut before, now);
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(writes == 0, "there were {writes} writes");
        Ok(())
    };
    wait_for("nothing is written any more", limit, quiet).await?;

    let pods = usize::try_from(nodes)? * PODS_PER_NODE;
    create_namespaces(&client, pods).await?;
    let leader = cluster.leader().await?;
    let before = Usage::now(&cluster)?;
    let writes = cluster.status().await?.revision;
    let start = Instant::now();
    let created = create_all(&cluster, pods, clients, undemanding).await?;
    let bound = until_none(&client, "spec.nodeName=", start, limit).await?;
    let spent = Usage::now(&cluster)?.since(&before);
    let writes = cluster.status().await?.revision - writes;
    let mut figures = json!({
        "registered_created_per_second": per_second(pods, created),
        "registered_created_and_bound_per_second": per_second(pods, bound),
        "registered_store_writes_per_pod": rounded(writes as f64 / pods as f64),
    });
    add(&mut figures, spent.figures("registered_", &leader, pods));
    Ok(figures)
}

async fn register(client: &Client, number: u32) -> Result<()> {
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "110"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("registered-{number}")},
    });
    let Object { mut value, .. } = client.create(&node, &WriteOptions::default()).await?;
    // Its first judgement may have been written meanwhile.
    value["metadata"]["resourceVersion"].take();
    value["status"] = json!({"capacity": room, "allocatable": room});
    client.update_status(&value, &WriteOptions::default()).await?;
    Ok(())
}

/// A pod that may go to nodes from which nothing is heard.
fn undemanding(namespace: &str, name: &str) -> Value {
    let mut value = pod(namespace, name);
    value["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    value
}
