//! Masters die; nothing that was acknowledged is lost, and no container notices.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use nix::sys::signal::Signal;
use quorate_client::{Client, ClientOptions, Event, WatchOptions, WriteOptions};
use quorate_objects::Typed;
use quorate_testkit::docker::Container;
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::writer::{self, Journal, Writers, config_map};
use quorate_testkit::{Options, TestCluster, cases, suite, wait_for};

fn main() -> ExitCode {
    let cases = cases![
        no_acknowledged_write_is_lost_when_the_leader_is_killed,
        no_acknowledged_write_is_lost_when_the_leader_stalls,
        a_planned_end_of_the_leader_fails_no_write,
        each_master_in_turn,
        a_minority_refuses_writes_promptly,
        all_masters_at_once,
    ];
    suite::main(Options::default(), cases)
}

/// Two pods to watch: a master's death must not touch them.
async fn containers_under_watch(cluster: &TestCluster) -> Result<Vec<Container>> {
    build_web_image(WEB_IMAGE).await?;
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: steady}}\nspec:\n  replicas: 2\n  \
         selector: {{matchLabels: {{app: steady}}}}\n  template:\n    metadata: {{labels: {{app: \
         steady}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: \
         [{{name: web, image: '{WEB_IMAGE}'}}]\n"
    );
    cluster.apply(&manifest).await?;
    cluster.wait_pods_ready("app=steady", 2).await?;
    cluster.containers().await
}

async fn unchanged(cluster: &TestCluster, before: &[Container]) -> Result<()> {
    let after = cluster.containers().await?;
    if before == after {
        return Ok(());
    }
    // Was it that a node was given up? A busy machine can do that, too.
    let events = ["get", "events", "-A", "--field-selector", "reason=NodeNotReady"];
    let events = cluster.quorate(&events).await;
    let events = events.map_or_else(|error| format!("{error:#}"), |output| output.to_string());
    bail!("containers before: {before:#?}\nand after: {after:#?}\n{events}")
}

/// Waits until `count` more writes have been acknowledged.
async fn more_writes(writers: &Writers, count: usize) -> Result<()> {
    let from = writers.journal().acknowledged.len();
    wait_for("acknowledged writes", Duration::from_secs(60), async || {
        let journal = writers.journal();
        let got = journal.acknowledged.len() - from;
        ensure!(got >= count, "{got} of {count}; refused: {:?}", journal.refused.last_key_value());
        Ok(())
    })
    .await
    .map(drop)
}

async fn no_acknowledged_write_is_lost_when_the_leader_is_killed(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    let before = containers_under_watch(&cluster).await?;
    let clients = (0..4).map(|_| cluster.client()).collect::<Result<_>>()?;
    let writers = Writers::start("killed", clients);
    more_writes(&writers, 100).await?;
    let leader = cluster.leader().await?;
    let moment = Instant::now();
    cluster.kill(&leader).await?;
    let delay = writers.wait_acknowledged_after(moment).await?;
    println!("  leader killed to next acknowledged write: {} ms", delay.as_millis());
    more_writes(&writers, 100).await?;
    cluster.wait_leader(&leader).await?;
    let (label, journal) = writers.stop().await;
    writer::check(&cluster.client()?, &label, &journal).await?;
    unchanged(&cluster, &before).await?;
    cluster.heal().await?;
    // The one that was dead has caught up, and answers for itself.
    let reborn = cluster.client_of(&leader, Duration::from_secs(10))?;
    writer::check(&reborn, &label, &journal).await
}

async fn no_acknowledged_write_is_lost_when_the_leader_stalls(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    let clients = (0..2).map(|_| cluster.client()).collect::<Result<_>>()?;
    let writers = Writers::start("stalled", clients);
    more_writes(&writers, 50).await?;
    let leader = cluster.leader().await?;
    cluster.signal(&leader, Signal::SIGSTOP)?;
    let next = cluster.wait_leader(&leader).await;
    let progress = more_writes(&writers, 50).await;
    cluster.signal(&leader, Signal::SIGCONT)?;
    let (next, ()) = (next?, progress?);
    // The old leader finds out, and follows.
    cluster
        .wait("the deposed leader follows", async || {
            let status = cluster.status_of(&leader).await?;
            ensure!(status.leader != leader && status.role == "follower", "{status:?}");
            Ok(())
        })
        .await?;
    let (label, journal) = writers.stop().await;
    writer::check(&cluster.client()?, &label, &journal).await?;
    ensure!(next != leader);
    Ok(())
}

async fn a_planned_end_of_the_leader_fails_no_write(cluster: Arc<TestCluster>) -> Result<()> {
    // Some are connected with the master that goes, others reach it through another one.
    let client = |begin: usize| {
        let mut file = cluster.file()?;
        file.masters.rotate_left(begin % 3);
        Ok(Client::from_cluster_file(&file, ClientOptions::default())?)
    };
    let writers = Writers::start("planned", (0..9).map(client).collect::<Result<_>>()?);
    for _ in 0..4 {
        more_writes(&writers, 100).await?;
        let leader = cluster.leader().await?;
        cluster.signal(&leader, Signal::SIGTERM)?;
        cluster.wait_ended(&leader).await?;
        more_writes(&writers, 100).await?;
        cluster.heal().await?;
    }
    let (label, journal) = writers.stop().await;
    ensure!(journal.refused.is_empty(), "{:?}", journal.refused);
    ensure!(journal.unknown.is_empty(), "{:?}", journal.unknown);
    writer::check(&cluster.client()?, &label, &journal).await
}

async fn each_master_in_turn(cluster: Arc<TestCluster>) -> Result<()> {
    let before = containers_under_watch(&cluster).await?;
    let client = cluster.client()?;
    for (round, name) in ["m1", "m2", "m3"].into_iter().enumerate() {
        cluster.kill(name).await?;
        let map = config_map(&format!("turn-{round}"), "turn", "x");
        cluster
            .wait("a write without one master", async || {
                match client.create(&map, &WriteOptions::default()).await {
                    Err(error) if !error.is_already_exists() => Err(error.into()),
                    _ => Ok(()),
                }
            })
            .await?;
        cluster.quorate(&["status"]).await?.ok()?;
        cluster.heal().await?;
    }
    unchanged(&cluster, &before).await
}

async fn a_minority_refuses_writes_promptly(cluster: Arc<TestCluster>) -> Result<()> {
    let before = containers_under_watch(&cluster).await?;
    let leader = cluster.leader().await?;
    let followers: Vec<String> =
        cluster.file()?.masters.into_iter().map(|m| m.name).filter(|m| *m != leader).collect();
    for name in &followers {
        cluster.kill(name).await?;
    }
    // The survivor was the leader: a write must not be acknowledged by it alone, and the answer
    // says what is the matter.
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: minority}\n";
    let refused = cluster.quorate_with(&["create", "-f", "-"], Some(manifest)).await?;
    refused.within(Duration::from_secs(20))?.fails_with(&[])?;
    let status = cluster.quorate(&["status"]).await?.within(Duration::from_secs(20))?;
    let text = format!("{}{}", status.stdout, status.stderr).to_lowercase();
    ensure!(text.contains("majority") || text.contains("quorum"), "{status}");
    unchanged(&cluster, &before).await?;
    cluster.heal().await?;
    unchanged(&cluster, &before).await
}

async fn all_masters_at_once(cluster: Arc<TestCluster>) -> Result<()> {
    let before = containers_under_watch(&cluster).await?;
    let writers = Writers::start("all", vec![cluster.client()?]);
    more_writes(&writers, 50).await?;
    for master in cluster.file()?.masters {
        cluster.kill(&master.name).await?;
    }
    unchanged(&cluster, &before).await?;
    cluster.heal().await?;
    let (label, journal) = writers.stop().await;
    writer::check(&cluster.client()?, &label, &journal).await?;
    watch_from_the_first(&cluster, &journal).await?;
    unchanged(&cluster, &before).await
}

/// Whoever has watched goes on where it was, though no process remembers anything.
async fn watch_from_the_first(cluster: &TestCluster, journal: &Journal) -> Result<()> {
    let mut wanted: BTreeMap<u64, &String> =
        journal.acknowledged.iter().map(|(name, write)| (write.revision, name)).collect();
    let (revision, _) = wanted.pop_first().context("no write was acknowledged")?;
    for master in cluster.file()?.masters {
        let client = cluster.client_of(&master.name, Duration::from_secs(10))?;
        let options = WatchOptions { revision, ..WatchOptions::default() };
        let mut watch = client.watch(<ConfigMap as Typed>::kind(), options);
        let mut missing = wanted.clone();
        let all = async {
            while !missing.is_empty() {
                if let Event::Added(map) = watch.next().await? {
                    missing.remove(&map.revision);
                }
            }
            anyhow::Ok(())
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), all).await;
        seen.with_context(|| master.name.clone())?.with_context(|| master.name)?;
    }
    Ok(())
}
