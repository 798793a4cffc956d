//! Mistakes and faults: each gets a prompt, clear message and a non-zero exit code.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::WriteOptions;
use quorate_testkit::ports::PortBase;
use quorate_testkit::writer::config_map;
use quorate_testkit::{Options, TestCluster, cases, process, suite};

fn main() -> ExitCode {
    let cases = cases![
        malformed_yaml,
        unknown_kind_and_unknown_field,
        wrong_values_are_all_named,
        conflicting_revision,
        request_over_the_size_limit,
        unknown_image,
        a_pod_that_fits_nowhere,
        one_of_three_masters,
        no_master_at_all,
        docker_is_not_running,
        port_is_taken,
        data_of_another_cluster,
        no_cluster_known,
    ];
    suite::main(Options::default(), cases)
}

/// A command that cannot succeed says so within this time.
const PROMPT: Duration = Duration::from_secs(20);

async fn apply_fails(cluster: &TestCluster, text: &str, parts: &[&str]) -> Result<()> {
    let output = cluster.quorate_with(&["apply", "-f", "-"], Some(text)).await?;
    output.within(PROMPT)?.fails_with(parts).map(drop)
}

async fn malformed_yaml(cluster: Arc<TestCluster>) -> Result<()> {
    apply_fails(&cluster, "apiVersion: v1\nkind: [unclosed\n", &["line"]).await?;
    apply_fails(&cluster, "just text", &["document 1"]).await?;
    apply_fails(&cluster, "", &["no objects"]).await?;
    cluster.quorate(&["apply", "-f", "/no/such/file"]).await?.fails_with(&["/no/such/file"])?;
    Ok(())
}

async fn unknown_kind_and_unknown_field(cluster: Arc<TestCluster>) -> Result<()> {
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside}\n---\n";
    let kind = format!("{good}apiVersion: v1\nkind: Gadget\nmetadata: {{name: x}}\n");
    apply_fails(&cluster, &kind, &["gadget", "document 2"]).await?;
    let field = format!(
        "{good}apiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec:\n  containers:\n  - name: c\n    \
         image: i\n    imagePullPolice: Never\n"
    );
    apply_fails(&cluster, &field, &["spec.containers[0].imagePullPolice", "document 2"]).await?;
    cluster.quorate(&["get", "gadgets"]).await?.fails_with(&["gadgets"]).map(drop)
}

async fn wrong_values_are_all_named(cluster: Arc<TestCluster>) -> Result<()> {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec:\n  containers:\n  \
               - {name: c, image: i, resources: {requests: {cpu: much}}}\n  - {name: c, image: i}\n";
    let parts = ["metadata.name", "spec.containers[1].name"];
    apply_fails(&cluster, pod, &parts).await
}

async fn conflicting_revision(cluster: Arc<TestCluster>) -> Result<()> {
    let client = cluster.client()?;
    let options = WriteOptions::default();
    let first = client.create(&config_map("contested", "x", "1"), &options).await?;
    let mut second = first.value.clone();
    second["data"]["value"] = "2".into();
    client.update(&second, &options).await?;
    let error = client.update(&first.value, &options).await.err().context("no conflict")?;
    ensure!(error.is_conflict() && error.message.contains("contested"), "{error:?}");
    let kept = client.get(&quorate_objects::kinds::CONFIG_MAP, "default", "contested").await?;
    ensure!(kept.value["data"]["value"] == "2", "{kept:?}");
    Ok(())
}

async fn request_over_the_size_limit(cluster: Arc<TestCluster>) -> Result<()> {
    let client = cluster.client()?;
    let huge = config_map("huge", "x", &"x".repeat(4 << 20));
    let error = client.create(&huge, &WriteOptions::default()).await.err().context("accepted")?;
    ensure!(error.message.to_lowercase().contains("large"), "{error:?}");
    let left = client.get(&quorate_objects::kinds::CONFIG_MAP, "default", "huge").await;
    ensure!(left.is_err_and(|error| error.is_not_found()));
    Ok(())
}

async fn unknown_image(cluster: Arc<TestCluster>) -> Result<()> {
    cluster.quorate(&["run", "lost", "--image", "quorate-no-such-image:1"]).await?.ok()?;
    cluster
        .wait("the pod says that its image cannot be had", async || {
            let table = cluster.quorate(&["get", "pods"]).await?.ok()?;
            let line = table.lines().find(|line| line.starts_with("lost ")).unwrap_or_default();
            ensure!(line.contains("ErrImagePull") || line.contains("ImagePullBackOff"), "{table}");
            let described = cluster.quorate(&["describe", "pod", "lost"]).await?.ok()?;
            ensure!(described.contains("quorate-no-such-image:1"), "{described}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod", "lost"]).await?.ok().map(drop)
}

async fn a_pod_that_fits_nowhere(cluster: Arc<TestCluster>) -> Result<()> {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: giant}\nspec:\n  containers:\n  \
               - {name: c, image: i, resources: {requests: {cpu: 5000}}}\n";
    cluster.apply(pod).await?;
    cluster
        .wait("the pod says why it waits", async || {
            let described = cluster.quorate(&["describe", "pod", "giant"]).await?.ok()?;
            ensure!(
                described.contains("cpu") && described.contains("FailedScheduling"),
                "{described}"
            );
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod", "giant"]).await?.ok().map(drop)
}

async fn one_of_three_masters(cluster: Arc<TestCluster>) -> Result<()> {
    // A follower stays: one that leads would take the write for a moment longer, and say something
    // else in the end.
    let leader = cluster.leader().await?;
    let masters = cluster.file()?.masters.into_iter().map(|master| master.name);
    let mut others: Vec<String> = masters.filter(|name| *name != leader).collect();
    let stays = others.pop().context("three masters")?;
    for name in others.iter().chain([&leader]) {
        cluster.kill(name).await?;
    }
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: alone}\n";
    let refused = cluster.quorate_with(&["create", "-f", "-"], Some(map)).await?;
    refused.within(PROMPT)?.fails_with(&["1 of 3 masters"])?;
    cluster.quorate(&["get", "pods"]).await?.within(PROMPT)?.fails_with(&[])?;
    let status = cluster.quorate(&["status"]).await?.within(PROMPT)?;
    for name in others.iter().chain([&leader, &stays]) {
        let row = status.stdout.lines().find(|line| line.starts_with(&format!("{name} ")));
        let role = row.and_then(|row| row.split_whitespace().nth(1)).context("no row")?;
        ensure!((role != "unreachable") == (*name == stays), "{name} is {role}: {status}");
    }
    cluster.heal().await
}

async fn no_master_at_all(cluster: Arc<TestCluster>) -> Result<()> {
    for master in ["m1", "m2", "m3"] {
        cluster.kill(master).await?;
    }
    cluster.quorate(&["get", "pods"]).await?.within(PROMPT)?.fails_with(&["quorate up"])?;
    cluster.quorate(&["status"]).await?.within(PROMPT)?.fails_with(&[])?;
    cluster.heal().await
}

/// Runs `quorate up` for a cluster that must not come up, and checks what it says.
async fn up_fails(more: &[&str], base: u16, parts: &[&str]) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("cluster").display().to_string();
    let base = base.to_string();
    let args = [&["up", "--dir", &dir, "--port-base", &base], more].concat();
    let state = [("XDG_STATE_HOME", temp.path().as_os_str())];
    let up = process::run(process::binary()?, &args, &state, None).await?;
    // Whatever was started must go before the folder does.
    process::run(process::binary()?, &["down", "--dir", &dir], &state, None).await?;
    up.within(PROMPT)?.fails_with(parts).map(drop)
}

async fn docker_is_not_running(_: Arc<TestCluster>) -> Result<()> {
    let ports = PortBase::reserve(3)?;
    let docker = ["--docker", "unix:///nonexistent.sock"];
    up_fails(&docker, ports.number(), &["docker", "nonexistent.sock"]).await
}

async fn port_is_taken(_: Arc<TestCluster>) -> Result<()> {
    let ports = PortBase::reserve(3)?;
    let taken = ports.number() + 2;
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken))?;
    up_fails(&["--nodes", "0"], ports.number(), &[&taken.to_string(), "--port-base"]).await
}

async fn data_of_another_cluster(cluster: Arc<TestCluster>) -> Result<()> {
    let file = cluster.file()?;
    let m1 = file.masters.iter().find(|m| m.name == "m1").context("no m1")?;
    cluster.kill("m1").await?;
    let ports = PortBase::reserve(3)?;
    let (client, peer) = (ports.number() + 1, ports.number() + 101);
    let data_dir = m1.data_dir.display().to_string();
    let (listen, peer_listen) = (format!("127.0.0.1:{client}"), format!("127.0.0.1:{peer}"));
    let initial = format!("m1=http://{listen},http://{peer_listen}");
    let args = [
        ["--name", "m1"],
        ["--data-dir", &data_dir],
        ["--listen", &listen],
        ["--peer-listen", &peer_listen],
        ["--cluster-id", "another-cluster"],
        ["--initial-masters", &initial],
    ]
    .concat();
    let args = [&["master", "--insecure"], &args[..]].concat();
    let refused = process::run(cluster.binary(), &args, &[], None).await?;
    refused.within(PROMPT)?.fails_with(&["another-cluster", &file.cluster_id])?;
    cluster.heal().await
}

async fn no_cluster_known(_: Arc<TestCluster>) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let env = [("XDG_STATE_HOME", temp.path().as_os_str())];
    let output = process::run(process::binary()?, &["get", "pods"], &env, None).await?;
    output.within(PROMPT)?.fails_with(&["quorate up"]).map(drop)
}
