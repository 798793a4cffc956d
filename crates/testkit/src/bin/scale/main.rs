//! `make bench-scale`: three real masters and many nodes. Creates thirty pods a node, first for
//! nodes that are only registered, so that pods are created and bound and that is all, then for
//! hollow nodes, which run them. Measures how fast that goes, what it costs each process, what the
//! API answers meanwhile, how much memory the leader has, what the rollout of a Deployment costs,
//! and how long nothing is bound after the leader is killed. Prints a table for each step, and
//! writes JSON.

mod registered;
mod rollout;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use quorate_client::{Client, ListOptions, WriteOptions};
use quorate_objects::{Kind, kinds};
use quorate_testkit::{Options, TestCluster, wait_for};
use serde_json::{Value, json};
use usage::Usage;

/// Pods in one namespace: what one list answers.
const PER_NAMESPACE: usize = 3_000;
const PODS_PER_NODE: usize = 30;
/// Between two probes of the API.
const PROBE: Duration = Duration::from_millis(20);
/// Before a creation is tried again that a master could not carry out, or of which nobody knows.
const RETRY: Duration = Duration::from_millis(50);
/// Between two looks at how many pods are not bound yet.
const LOOK: Duration = Duration::from_millis(200);

/// Measures Quorate with many nodes and pods.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of hollow nodes; each has 30 pods
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    nodes: Vec<u32>,
    /// Requests that create pods at the same time
    #[arg(long, default_value_t = 256)]
    clients: usize,
    /// Leaves out the nodes that are only registered
    #[arg(long)]
    only_running: bool,
    /// Replicas of the Deployment that is rolled to a new version; 0: none is
    #[arg(long, default_value_t = 1_000)]
    rollout: usize,
    /// How long one step may take, in seconds
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// Where the figures are written as JSON
    #[arg(long, default_value = "bench-scale.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut steps = Vec::new();
    for nodes in &args.nodes {
        let step = step(*nodes, &args).await.with_context(|| format!("{nodes} nodes"))?;
        print(&step);
        steps.push(step);
        // What has been measured is kept, whatever the next step meets.
        let report = json!({
            "bench": "scale", "masters": 3,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "steps": steps,
        });
        std::fs::write(&args.json, serde_json::to_string_pretty(&report)?)?;
    }
    println!("written to {}", args.json.display());
    Ok(())
}

fn print(step: &Value) {
    println!("{} nodes, {} pods", step["nodes"], step["pods"]);
    for (name, value) in step.as_object().into_iter().flatten() {
        println!("  {name:<50}{value:>8}");
    }
}

async fn step(nodes: u32, args: &Args) -> Result<Value> {
    let limit = Duration::from_secs(args.limit);
    let mut figures = json!({"nodes": nodes, "pods": usize::try_from(nodes)? * PODS_PER_NODE});
    if !args.only_running {
        add(&mut figures, registered::measure(nodes, args.clients, limit).await?);
    }
    add(&mut figures, running(nodes, args).await?);
    Ok(figures)
}

/// Adds figures to others.
fn add(figures: &mut Value, more: Value) {
    if let (Some(figures), Value::Object(more)) = (figures.as_object_mut(), more) {
        figures.extend(more);
    }
}

/// With hollow nodes, which run the pods.
async fn running(nodes: u32, args: &Args) -> Result<Value> {
    let limit = Duration::from_secs(args.limit);
    let begin = Instant::now();
    let options = Options { nodes: 0, hollow: nodes, insecure: true, ..Options::default() };
    let cluster = TestCluster::start(options).await?;
    let client = cluster.client()?;
    let ready = async || {
        let ready = cluster.status().await?.nodes_ready;
        ensure!(ready >= nodes, "{ready} of {nodes} nodes are ready");
        Ok(())
    };
    wait_for("every node is ready", limit, ready).await?;
    let up = begin.elapsed();

    let pods = usize::try_from(nodes)? * PODS_PER_NODE;
    create_namespaces(&client, pods).await?;
    let leader = cluster.leader().await?;
    let small = cluster.status_of(&leader).await?.resident_bytes;
    let probes = Probes::start(cluster.client()?);
    let before = Usage::now(&cluster)?;
    let writes = cluster.status().await?.revision;
    let start = Instant::now();
    let created = create_all(&cluster, pods, args.clients, pod).await?;
    let bound = until_none(&client, "spec.nodeName=", start, limit).await?;
    let running = until_none(&client, "status.phase!=Running", start, limit).await?;
    let spent = Usage::now(&cluster)?.since(&before);
    let writes = cluster.status().await?.revision - writes;
    let probed = probes.stop().await?;

    // On a machine that is too busy for heartbeats it may have changed: the figures show it.
    let same = cluster.leader().await? == leader;
    let leader = cluster.leader().await?;
    let memory = cluster.status_of(&leader).await?.resident_bytes;
    let rolled = match args.rollout {
        0 => json!({}),
        replicas => rollout::measure(&cluster, replicas, limit).await?,
    };
    let gap = leader_loss(&cluster, &leader).await?;
    let mut figures = json!({
        "same_leader_all_the_time": same,
        "cluster_up_seconds": up.as_secs_f64().round(),
        "created_per_second": per_second(pods, created),
        "created_and_bound_per_second": per_second(pods, bound),
        "created_to_running_per_second": per_second(pods, running),
        "running_after_seconds": running.as_secs_f64().round(),
        "store_writes_per_pod": rounded((writes - probed.writes) as f64 / pods as f64),
        "single_object_p50_ms": millis(percentile(&probed.single, 50)),
        "single_object_p99_ms": millis(percentile(&probed.single, 99)),
        "single_object_calls_failed": probed.failed,
        "list_of_namespace_p50_ms": millis(percentile(&probed.lists, 50)),
        "list_of_namespace_p99_ms": millis(percentile(&probed.lists, 99)),
        "leader_resident_mb": memory / 1_000_000,
        "leader_resident_kb_per_pod": memory.saturating_sub(small) / 1000 / pods as u64,
        "leader_killed_to_next_bound_ms": millis(gap),
    });
    add(&mut figures, spent.figures("", &leader, pods));
    add(&mut figures, rolled);
    Ok(figures)
}

fn per_second(pods: usize, time: Duration) -> f64 {
    (pods as f64 / time.as_secs_f64()).round()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round()
}

/// With two places behind the point.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

async fn create_namespaces(client: &Client, pods: usize) -> Result<()> {
    for number in 0..pods.div_ceil(PER_NAMESPACE) {
        let value = json!({"apiVersion": "v1", "kind": "Namespace",
                           "metadata": {"name": namespace(number)}});
        client.create(&value, &WriteOptions::default()).await?;
    }
    Ok(())
}

fn namespace(number: usize) -> String {
    format!("scale-{number}")
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": namespace}},
        "spec": {"containers": [{"name": "main", "image": "scale:1", "resources": {
            "requests": {"cpu": "100m", "memory": "64Mi"},
        }}]},
    })
}

/// Creates all pods through the leader. Returns how long that took.
async fn create_all(
    cluster: &TestCluster,
    pods: usize,
    clients: usize,
    pod: fn(&str, &str) -> Value,
) -> Result<Duration> {
    let leader = cluster.leader().await?;
    let client = Arc::new(cluster.client_of(&leader, Duration::from_secs(60))?);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (client, next) = (Arc::clone(&client), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= pods {
                    return Ok::<(), anyhow::Error>(());
                }
                let value = pod(&namespace(number / PER_NAMESPACE), &format!("pod-{number}"));
                create(&client, &value).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(start.elapsed())
}

/// Creates a pod; on a machine that is too busy for heartbeats the leader may change meanwhile.
async fn create(client: &Client, value: &Value) -> Result<()> {
    let start = Instant::now();
    let mut again = false;
    loop {
        match client.create(value, &WriteOptions::default()).await {
            Ok(_) => return Ok(()),
            // An attempt whose outcome is unknown may have been the one.
            Err(error) if again && error.is_already_exists() => return Ok(()),
            Err(error)
                if (error.outcome_unknown() || error.retryable())
                    && start.elapsed() < Duration::from_secs(60) =>
            {
                again = true;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits until no pod matches the field selector. Returns the time since `start`.
async fn until_none(
    client: &Client,
    fields: &str,
    start: Instant,
    limit: Duration,
) -> Result<Duration> {
    let options =
        ListOptions { fields: fields.to_owned(), limit: 1, stale: true, ..ListOptions::default() };
    loop {
        // A stale read may miss the last pods that were created, so none is asked for twice.
        if client.list(&kinds::POD, &options).await?.items.is_empty() {
            let fresh = ListOptions { stale: false, ..options.clone() };
            if client.list(&kinds::POD, &fresh).await?.items.is_empty() {
                return Ok(start.elapsed());
            }
        }
        if start.elapsed() > limit {
            bail!("there are still pods with {fields} after {limit:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the API took to answer.
#[derive(Default)]
struct Probed {
    single: Vec<Duration>,
    lists: Vec<Duration>,
    /// Calls on single objects that failed.
    failed: u64,
    /// Of the probes themselves.
    writes: u64,
}

/// Asks the API for single objects and lists, all the time.
struct Probes {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Probed>>,
}

impl Probes {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut probed = Probed { writes: 1, ..Probed::default() };
            let kind: &'static Kind = &kinds::CONFIG_MAP;
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
                               "metadata": {"namespace": "default", "name": "probe"},
                               "data": {"count": "0"}});
            client.create(&value, &WriteOptions::default()).await?;
            for round in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                if round % 2 == 0 {
                    let got = client.get(kind, "default", "probe").await;
                    probed.failed += u64::from(got.is_err());
                } else {
                    let mut value = value.clone();
                    value["data"]["count"] = json!(round.to_string());
                    // What is refused or lost shows in its time.
                    let updated = client.update(&value, &WriteOptions::default()).await;
                    probed.failed += u64::from(updated.is_err());
                    probed.writes += 1;
                }
                probed.single.push(start.elapsed());
                if round % 50 == 0 {
                    let start = Instant::now();
                    let options = ListOptions { namespace: namespace(0), ..ListOptions::default() };
                    client.list(&kinds::POD, &options).await?;
                    probed.lists.push(start.elapsed());
                }
                tokio::time::sleep(PROBE).await;
            }
            Ok(probed)
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// Kills the leader, and creates pods until one of them is bound. Returns the time between.
async fn leader_loss(cluster: &TestCluster, leader: &str) -> Result<Duration> {
    let client = cluster.client()?;
    cluster.signal(leader, nix::sys::signal::Signal::SIGKILL)?;
    let start = Instant::now();
    let value = pod("default", "after");
    loop {
        match client.create(&value, &WriteOptions::default()).await {
            Ok(_) => break,
            // An attempt whose outcome is unknown may have been the one.
            Err(error) if error.reason == "AlreadyExists" => break,
            Err(error) if start.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    loop {
        let pod = client.get(&kinds::POD, "default", "after").await?;
        if pod.value["spec"]["nodeName"].is_string() {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "no pod is bound after 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
