//! A cluster comes up, shows itself, and serves objects over the command line.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use quorate_testkit::{Options, TestCluster, cases, suite};
use serde_json::Value;

fn main() -> ExitCode {
    let cases = cases![
        status_and_nodes,
        create_get_delete,
        apply_changes_only_what_the_file_says,
        labels_select,
        watch_sees_changes,
        every_master_answers_for_itself,
    ];
    suite::main(Options::default(), cases)
}

fn map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: basic}}}}\n\
         data: {{key: \"{value}\"}}\n"
    )
}

async fn get(cluster: &TestCluster, what: &[&str]) -> Result<Value> {
    let args = [&["get"], what, &["-o", "json"]].concat();
    cluster.quorate(&args).await?.json()
}

async fn status_and_nodes(cluster: Arc<TestCluster>) -> Result<()> {
    // Asked again when they differ: an election may come between two looks.
    cluster
        .wait("the status says who leads", async || {
            let leader = cluster.leader().await?;
            let status = cluster.quorate(&["status"]).await?.ok()?;
            ensure!(status.contains(&format!("\nLeader:    {leader} (term ")), "{status}");
            let json = cluster.quorate(&["status", "-o", "json"]).await?.json()?;
            ensure!(json["leader"] == leader, "{leader}: {json}");
            Ok(())
        })
        .await?;
    let table = cluster.quorate(&["get", "nodes", "-o", "wide"]).await?.ok()?;
    for node in ["n1", "n2"] {
        let line = table.lines().find(|line| line.starts_with(node)).unwrap_or_default();
        ensure!(line.contains("Ready") && !line.contains("NotReady"), "{node}:\n{table}");
    }
    Ok(())
}

async fn create_get_delete(cluster: Arc<TestCluster>) -> Result<()> {
    let created =
        cluster.quorate_with(&["create", "-f", "-"], Some(&map("one", "1"))).await?.ok()?;
    ensure!(created.contains("configmap/one created"), "{created}");
    let again = cluster.quorate_with(&["create", "-f", "-"], Some(&map("one", "2"))).await?;
    again.fails_with(&["already exists"])?;
    let object = get(&cluster, &["configmap", "one"]).await?;
    ensure!(object["data"]["key"] == "1", "{object}");
    let table = cluster.quorate(&["get", "configmaps"]).await?.ok()?;
    ensure!(table.starts_with("NAME") && table.contains("\none "), "{table}");
    cluster.quorate(&["delete", "configmap", "one"]).await?.ok()?;
    cluster.quorate(&["get", "configmap", "one"]).await?.fails_with(&["not found"])?;
    cluster.quorate(&["delete", "configmap", "one"]).await?.fails_with(&["not found"]).map(drop)
}

async fn apply_changes_only_what_the_file_says(cluster: Arc<TestCluster>) -> Result<()> {
    let both = format!("{}---\n{}", map("two", "a"), map("three", "b"));
    cluster.apply(&both).await?;
    let before = get(&cluster, &["cm", "three"]).await?;
    cluster.quorate(&["label", "cm", "two", "kept=yes"]).await?.ok()?;
    let changed = format!("{}---\n{}", map("two", "c"), map("three", "b"));
    let printed = cluster.apply(&changed).await?;
    ensure!(printed.contains("configured") && printed.contains("unchanged"), "{printed}");
    let two = get(&cluster, &["cm", "two"]).await?;
    ensure!(two["data"]["key"] == "c", "{two}");
    ensure!(two["metadata"]["labels"]["kept"] == "yes", "another writer's label is gone: {two}");
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let three = get(&cluster, &["cm", "three"]).await?;
    ensure!(version(&three) == version(&before), "an unchanged object was written: {three}");
    Ok(())
}

async fn labels_select(cluster: Arc<TestCluster>) -> Result<()> {
    cluster.apply(&map("four", "d")).await?;
    cluster.quorate(&["label", "cm", "four", "tier=back"]).await?.ok()?;
    let list = get(&cluster, &["cm", "-l", "tier=back"]).await?;
    let names: Vec<_> = list["items"].as_array().into_iter().flatten().collect();
    ensure!(names.len() == 1 && names[0]["metadata"]["name"] == "four", "{list}");
    let all = get(&cluster, &["cm", "-A", "-l", "set=basic,tier notin (back)"]).await?;
    ensure!(all["items"].as_array().is_some_and(|items| !items.is_empty()), "{all}");
    ensure!(!all.to_string().contains("\"four\""), "{all}");
    Ok(())
}

async fn watch_sees_changes(cluster: Arc<TestCluster>) -> Result<()> {
    use quorate_client::WatchOptions;
    use quorate_objects::kinds::CONFIG_MAP;

    let client = cluster.client()?;
    let list = client.list(&CONFIG_MAP, &Default::default()).await?;
    let options = WatchOptions { revision: list.revision, ..WatchOptions::default() };
    let mut watch = client.watch(&CONFIG_MAP, options);
    cluster.apply(&map("five", "e")).await?;
    let event = tokio::time::timeout(quorate_testkit::cluster::PATIENCE, async {
        loop {
            let event = watch.next().await?;
            if format!("{event:?}").contains("\"five\"") {
                return anyhow::Ok(event);
            }
        }
    });
    event.await??;
    Ok(())
}

async fn every_master_answers_for_itself(cluster: Arc<TestCluster>) -> Result<()> {
    for master in cluster.file()?.masters {
        let status = cluster.status_of(&master.name).await?;
        ensure!(status.name == master.name && status.members.len() == 3, "{status:?}");
        ensure!(status.cluster_id == cluster.file()?.cluster_id, "{status:?}");
    }
    Ok(())
}
