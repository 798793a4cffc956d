//! `make bench-scale`: three real masters and many hollow nodes. Creates thirty pods a node, and
//! measures how fast they are bound and run, what the API answers meanwhile, how much memory the
//! leader has, what the rollout of a Deployment costs, and how long nothing is bound after the
//! leader is killed. Prints a table for each step, and writes JSON.

mod rollout;

use std::collections::HashMap;
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

/// Pods in one namespace: what one list answers.
const PER_NAMESPACE: usize = 3_000;
const PODS_PER_NODE: usize = 30;
/// Between two probes of the API.
const PROBE: Duration = Duration::from_millis(20);
/// Between two looks at how many pods are not bound yet.
const LOOK: Duration = Duration::from_millis(50);

/// Measures Quorate with many nodes and pods.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of hollow nodes; each has 30 pods
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    nodes: Vec<u32>,
    /// Requests that create pods at the same time
    #[arg(long, default_value_t = 256)]
    clients: usize,
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
        println!("  {name:<36}{value:>12}");
    }
}

async fn step(nodes: u32, args: &Args) -> Result<Value> {
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
    let namespaces = pods.div_ceil(PER_NAMESPACE);
    for number in 0..namespaces {
        let value = json!({"apiVersion": "v1", "kind": "Namespace",
                           "metadata": {"name": namespace(number)}});
        client.create(&value, &WriteOptions::default()).await?;
    }
    let probes = Probes::start(cluster.client()?);
    let idle = cpu_seconds(&cluster)?;
    let start = Instant::now();
    let created = create_all(&cluster, pods, args.clients).await?;
    let bound = until_none(&client, "spec.nodeName=", start, limit).await?;
    let running = until_none(&client, "status.phase!=Running", start, limit).await?;
    let cpu: HashMap<String, f64> = cpu_seconds(&cluster)?
        .into_iter()
        .map(|(name, seconds)| {
            let before = idle.get(&name).copied().unwrap_or_default();
            (name, seconds - before)
        })
        .collect();
    let (single, lists) = probes.stop().await?;

    let leader = cluster.leader().await?;
    let memory = cluster.status_of(&leader).await?.resident_bytes;
    let rolled = match args.rollout {
        0 => json!({}),
        replicas => rollout::measure(&cluster, replicas, limit).await?,
    };
    let gap = leader_loss(&cluster, &leader).await?;
    let per_second = |time: Duration| (pods as f64 / time.as_secs_f64()).round();
    let millis = |time: Duration| (time.as_secs_f64() * 1e3).round();
    let per_pod = |seconds: f64| (seconds * 1e5 / pods as f64).round() / 100.0;
    let of_leader = cpu.get(&leader).copied().unwrap_or_default();
    let mut figures = json!({
        "nodes": nodes, "pods": pods,
        "cluster_up_seconds": up.as_secs_f64().round(),
        "created_per_second": per_second(created),
        "created_and_bound_per_second": per_second(bound),
        "running_after_seconds": running.as_secs_f64().round(),
        "leader_processor_ms_per_pod": per_pod(of_leader),
        "masters_processor_ms_per_pod": per_pod(cpu.values().sum()),
        "single_object_p50_ms": millis(percentile(&single, 50)),
        "single_object_p99_ms": millis(percentile(&single, 99)),
        "list_of_namespace_p50_ms": millis(percentile(&lists, 50)),
        "list_of_namespace_p99_ms": millis(percentile(&lists, 99)),
        "leader_resident_mb": memory / 1_000_000,
        "leader_killed_to_next_bound_ms": millis(gap),
    });
    if let (Some(figures), Value::Object(rolled)) = (figures.as_object_mut(), rolled) {
        figures.extend(rolled);
    }
    Ok(figures)
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
async fn create_all(cluster: &TestCluster, pods: usize, clients: usize) -> Result<Duration> {
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
                client.create(&value, &WriteOptions::default()).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(start.elapsed())
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

/// Asks the API for single objects and lists, all the time.
struct Probes {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<(Vec<Duration>, Vec<Duration>)>>,
}

impl Probes {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut single, mut lists) = (Vec::new(), Vec::new());
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
                    client.get(kind, "default", "probe").await?;
                } else {
                    let mut value = value.clone();
                    value["data"]["count"] = json!(round.to_string());
                    client.update(&value, &WriteOptions::default()).await?;
                }
                single.push(start.elapsed());
                if round % 50 == 0 {
                    let start = Instant::now();
                    let options = ListOptions { namespace: namespace(0), ..ListOptions::default() };
                    client.list(&kinds::POD, &options).await?;
                    lists.push(start.elapsed());
                }
                tokio::time::sleep(PROBE).await;
            }
            Ok((single, lists))
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<(Vec<Duration>, Vec<Duration>)> {
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

/// What each master has used of processors, in seconds.
fn cpu_seconds(cluster: &TestCluster) -> Result<HashMap<String, f64>> {
    /// Linux' USER_HZ.
    const TICKS: f64 = 100.0;
    let masters = cluster.file()?.masters;
    let mut used = HashMap::new();
    for (name, pid) in cluster.pids()? {
        if !masters.iter().any(|master| master.name == name) {
            continue;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may contain spaces; utime and stime are the 12th and 13th
        // fields behind it.
        let rest = stat.rsplit_once(')').context("no process")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|t| t.parse::<f64>().ok());
        let both = [11, 12].into_iter().filter_map(ticks).sum::<f64>();
        used.insert(name, both / TICKS);
    }
    Ok(used)
}
