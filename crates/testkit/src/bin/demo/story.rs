//! What happens, step by step.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_testkit::cluster::{self, is_serving, node_of};
use quorate_testkit::docker::Container;
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::load::Load;
use quorate_testkit::ports::PortBase;
use quorate_testkit::writer::{self, Writers};
use quorate_testkit::{Options, TestCluster, http, process, wait_for};

use crate::report::Report;

const MANIFEST: &str = include_str!("../../../../../deploy/demo/web.yaml");
/// `nodePort` of the manifest.
const NODE_PORT: u16 = 30080;
/// Label selector of the application's pods.
const WEB: &str = "app=web";
/// Greeting in the manifest's ConfigMap: an answer without it is wrong.
const GREETING: &str = "hello from the cluster";
const PATH: &str = "/cgi-bin/hello";
/// The node that is killed.
const VICTIM: &str = "n2";
const REPLICAS: usize = 3;
const MORE_REPLICAS: usize = 5;
/// Requests between two steps, so that each is seen under load.
const REQUESTS: u64 = 150;

/// Prints steps with the time since the start.
struct Steps {
    start: Instant,
}

impl Steps {
    fn say(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64());
    }
}

/// Runs the demo.
pub async fn run() -> Result<Report> {
    let steps = Steps { start: Instant::now() };
    let mut report = Report::default();
    steps.say("building the web server's image from scratch");
    build_web_image(WEB_IMAGE).await?;
    // The ports are held until the cluster is gone: locals are dropped in reverse.
    let ports = PortBase::reserve(3)?;
    let cluster = start(&steps, &ports).await?;
    deploy(&steps, &cluster).await?;

    let addresses = cluster.node_addresses(NODE_PORT)?;
    let load = Load::start(addresses, PATH, GREETING, 2, Duration::from_millis(10));
    let writers = Writers::start("demo", vec![cluster.client()?]);
    steps.say("requests through the service and writes to the masters run from here on");
    more_requests(&load).await?;

    kill_leader(&steps, &cluster, &load, &writers, &mut report).await?;
    kill_node(&steps, &cluster, &load, &mut report).await?;

    report.messages = load.messages();
    report.total = load.stop().await;
    let (label, journal) = writers.stop().await;
    writer::check(&cluster.client()?, &label, &journal).await?;
    report.writes = journal.acknowledged.len();
    report.unknown = journal.unknown.len();
    steps.say("every acknowledged write was found again; stopping the cluster");
    drop(cluster);
    report.elapsed = steps.start.elapsed();
    Ok(report)
}

/// Where the demo's cluster lives: a fixed place, so that the next run finds and removes what
/// a killed run left behind.
fn folder() -> Result<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state.filter(|path| path.is_absolute()).or_else(home).context("HOME is not set")?;
    Ok(state.join("quorate-demo/cluster"))
}

async fn start(steps: &Steps, ports: &PortBase) -> Result<TestCluster> {
    let dir = folder()?;
    if dir.join("cluster.json").exists() {
        steps.say("removing the cluster of a demo that was killed");
        let args = ["down", "--dir", &dir.to_string_lossy()];
        process::run(process::binary()?, &args, &[], None).await?.ok()?;
    }
    steps.say("starting three masters and two agents (quorate up)");
    let cluster = TestCluster::start_in(&dir, ports.number(), Options::default()).await?;
    let leader = cluster.wait_leader("").await?;
    steps.say(&format!("the cluster is up; {leader} leads"));
    Ok(cluster)
}

async fn deploy(steps: &Steps, cluster: &TestCluster) -> Result<()> {
    steps.say("applying deploy/demo/web.yaml: a ConfigMap, a Deployment of 3, a Service");
    cluster.apply(MANIFEST).await?;
    cluster.wait_pods_ready(WEB, REPLICAS).await?;
    for address in cluster.node_addresses(NODE_PORT)? {
        let what = format!("the service answers at {address}");
        let answer = cluster.wait(&what, async || {
            let answer = http::get(address, PATH, Duration::from_secs(5)).await?;
            ensure!(answer.contains(GREETING), "wrong answer: {answer}");
            Ok(answer)
        });
        let answer = answer.await?;
        let pod = answer.lines().next().unwrap_or_default();
        steps.say(&format!("http://{address}{PATH} answers: {pod}"));
    }
    Ok(())
}

/// Waits until some more requests have been made.
async fn more_requests(load: &Load) -> Result<()> {
    let from = load.counts().sent;
    wait_for("requests under way", Duration::from_secs(60), async || {
        let sent = load.counts().sent - from;
        ensure!(sent >= REQUESTS, "{sent} so far; errors: {:?}", load.messages());
        Ok(())
    })
    .await
    .map(drop)
}

async fn kill_leader(
    steps: &Steps,
    cluster: &TestCluster,
    load: &Load,
    writers: &Writers,
    report: &mut Report,
) -> Result<()> {
    let before = cluster.containers().await?;
    let requests = load.counts();
    let leader = cluster.leader().await?;
    steps.say(&format!("killing the leader {leader} (SIGKILL)"));
    let moment = Instant::now();
    cluster.kill(&leader).await?;
    report.failover = writers.wait_acknowledged_after(moment).await?;
    let next = cluster.wait_leader(&leader).await?;
    steps.say(&format!(
        "{next} leads; the next write was acknowledged {} ms after the kill",
        report.failover.as_millis()
    ));
    more_requests(load).await?;
    let replaced = cluster.containers().await?.len().abs_diff(before.len());
    report.during_failover = load.counts().since(requests);

    steps.say(&format!("scaling to {MORE_REPLICAS} under {next}"));
    let replicas = format!("--replicas={MORE_REPLICAS}");
    cluster.quorate(&["scale", "deployment/web", &replicas]).await?.ok()?;
    cluster.wait_pods_ready(WEB, MORE_REPLICAS).await?;
    steps.say(&format!("{MORE_REPLICAS} replicas are ready"));
    report.watched = before.len();
    report.restarted = changed(&before, &cluster.containers().await?).max(replaced);
    Ok(())
}

/// How many containers of `before` are gone, stopped, or started again.
fn changed(before: &[Container], after: &[Container]) -> usize {
    before.iter().filter(|container| !after.contains(container)).count()
}

async fn kill_node(
    steps: &Steps,
    cluster: &TestCluster,
    load: &Load,
    report: &mut Report,
) -> Result<()> {
    more_requests(load).await?;
    let lost = cluster.pods(WEB).await?.iter().filter(|pod| node_of(pod) == VICTIM).count();
    ensure!(lost > 0, "no replica runs on {VICTIM}: its death would show nothing");
    let requests = load.counts();
    steps.say(&format!("killing node {VICTIM}: its agent and the containers of {lost} replicas"));
    let moment = Instant::now();
    cluster.kill_node(VICTIM).await?;
    let what = format!("{MORE_REPLICAS} ready replicas on other nodes than {VICTIM}");
    let ready = cluster.wait(&what, async || {
        let pods = cluster.pods(WEB).await?;
        let serving = pods.iter().filter(|pod| is_serving(pod) && node_of(pod) != VICTIM);
        let count = serving.count();
        ensure!(count >= MORE_REPLICAS, "{count} so far");
        Ok(count)
    });
    let ready = ready.await?;
    report.replacement = moment.elapsed();
    report.ready = (ready, MORE_REPLICAS);
    steps.say(&format!("{ready} ready {:.1} s after the kill", report.replacement.as_secs_f64()));
    more_requests(load).await?;
    report.during_replacement = load.counts().since(requests);
    let leader = cluster.leader().await.unwrap_or_default();
    let names: Vec<String> =
        cluster.pods(WEB).await?.iter().map(|pod| cluster::name(pod).to_owned()).collect();
    steps.say(&format!("{leader} leads; pods: {}", names.join(", ")));
    Ok(())
}
