//! One run: a cluster, clients, faults, and in the end a judgement.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_client::ListOptions;
use quorate_objects::kinds::kinds;
use quorate_objects::{Kind, pod, quantity};
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::{Options, wait_for};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::evidence::{Container, Convergence, Evidence, MemberContents, Resources, SteadyWindow};
use crate::faults::{self, Struck};
use crate::fences;
use crate::history::Clock;
use crate::observer::{self, Observer};
use crate::plan::{Plan, Step};
use crate::progress::Progress;
use crate::report::Report;
use crate::target::Target;
use crate::verdicts;
use crate::workload::{Book, Load, Running, deployment};

/// Work without faults before the first one.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the cluster may take, once everything is mended, for each of its goals.
const CONVERGENCE: Duration = Duration::from_secs(30);
/// The same for every goal after one that was missed.
const AFTER_A_MISS: Duration = Duration::from_secs(2);
/// Pods that nobody changes while the run goes on.
const STEADY: (&str, u32) = ("steady", 2);
/// Pods whose number changes all the time.
const CHURN: &str = "churn";

/// What to run.
#[derive(Debug)]
pub struct Config {
    /// The cluster to start.
    pub cluster: Options,
    /// What is broken.
    pub plan: Plan,
    /// Number of clients.
    pub clients: u32,
    /// Where report, evidence and (after a violation) logs go.
    pub out: PathBuf,
    /// Keep the logs even when all is well.
    pub keep_logs: bool,
}

/// Runs, judges, and writes the report into `config.out`.
///
/// # Errors
/// When the cluster does not start, or the report cannot be written; not when a promise is
/// broken: the report says that.
pub async fn run(config: Config) -> Result<Report> {
    let started = Instant::now();
    std::fs::create_dir_all(&config.out)
        .with_context(|| format!("making the folder {}", config.out.display()))?;
    let mut progress = Progress::new(config.plan.steps.len());
    progress.line("starting the cluster");
    let mut cluster = config.cluster.clone();
    cluster.environment.push(("QUORATE_LOG".to_owned(), fences::LOG.to_owned()));
    let target = Target::start(cluster).await?;
    let plan = config.plan.clone().within(target.abilities());
    let clock = Clock::start();
    let mut run = Run {
        book: Book::new(clock),
        random: StdRng::seed_from_u64(plan.seed),
        evidence: Evidence::default(),
        struck: Vec::new(),
        clock,
        target,
    };
    let judged = run.all_steps(&plan, config.clients, &mut progress).await;
    run.evidence.fenced = fences::read(run.target.folder(), &run.target.masters);
    let verdicts = verdicts::judge(&run.evidence);
    let report = Report {
        seed: plan.seed,
        plan,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        masters: run.target.masters.clone(),
        nodes: run.target.nodes.clone(),
        seconds: started.elapsed().as_secs(),
        faults: run.struck,
        buckets: run.book.meter.buckets(),
        leaders: crate::report::leaders(&run.evidence.masters),
        error: judged.err().map(|error| format!("{error:#}")),
        verdicts,
    };
    report.write(&config.out, &run.evidence)?;
    if report.failed() || config.keep_logs {
        crate::report::keep_logs(run.target.folder(), &config.out.join("logs"))?;
    }
    progress.end();
    Ok(report)
}

struct Run {
    target: Target,
    clock: Clock,
    book: Arc<Book>,
    random: StdRng,
    evidence: Evidence,
    struck: Vec<Struck>,
}

impl Run {
    async fn all_steps(
        &mut self,
        plan: &Plan,
        clients: u32,
        progress: &mut Progress,
    ) -> Result<()> {
        if !self.target.nodes.is_empty() {
            self.deploy().await?;
        }
        let observer = Observer::start(&self.target, self.clock);
        let load = Load { clients, pods: !self.target.nodes.is_empty(), ..Load::default() };
        let target = self.target.clone();
        let (client, etcd) = (|number| target.client(number), |number| target.etcd(number));
        let mut running = Running::start(load, plan.seed, &self.book, client, etcd).await?;
        sleep(WARM_UP).await;
        let mut result = Ok(());
        for (number, step) in plan.steps.iter().enumerate() {
            result = self.step(number, step, &observer, progress).await;
            if result.is_err() {
                break;
            }
        }
        progress.line("mending, converging, judging");
        let settled = self.settle(&mut running).await;
        running.stop().await;
        observer.stop(&mut self.evidence).await;
        self.book.hand_over(&mut self.evidence);
        result.and(settled)
    }

    async fn deploy(&self) -> Result<()> {
        if self.target.docker {
            build_web_image(WEB_IMAGE).await?;
        }
        let cluster = self.target.cluster();
        cluster.apply(&deployment(STEADY.0, WEB_IMAGE, STEADY.1)).await?;
        cluster.apply(&deployment(CHURN, WEB_IMAGE, 1)).await?;
        cluster.wait_pods_ready(&format!("app={}", STEADY.0), STEADY.1 as usize).await?;
        Ok(())
    }

    async fn step(
        &mut self,
        number: usize,
        step: &Step,
        observer: &Observer,
        progress: &mut Progress,
    ) -> Result<()> {
        let spares_nodes = step.faults.iter().all(|fault| fault.spares_nodes());
        let before = self.steady().await.filter(|_| spares_nodes);
        let mut mends = Vec::new();
        let first = self.struck.len();
        for fault in &step.faults {
            let from = self.clock.now();
            let target = self.target.clone();
            let struck = faults::strike(&target, fault, &mut self.random, &mut mends).await;
            let (victims, skipped) = match struck {
                Ok(victims) => (victims, None),
                Err(error) => (Vec::new(), Some(format!("{error:#}"))),
            };
            self.struck.push(Struck {
                fault: fault.to_string(),
                victims,
                from,
                until: from,
                spares_nodes: fault.spares_nodes(),
                skipped,
            });
        }
        let names: Vec<String> = self.struck[first..].iter().map(Struck::title).collect();
        let names = names.join(" and ");
        progress.step(number + 1, &names, self.book.meter.totals(), observer.leadership());
        self.churn().await;
        sleep(Duration::from_millis(step.hold_ms)).await;
        faults::mend(&self.target, mends).await.context("mending")?;
        let now = self.clock.now();
        self.struck[first..].iter_mut().for_each(|struck| struck.until = now);
        sleep(Duration::from_millis(step.rest_ms)).await;
        if let (Some(before), Some(after)) = (before, self.steady().await) {
            self.evidence.steady.push(SteadyWindow { faults: names, before, after });
        }
        Ok(())
    }

    /// The containers that nobody changes; `None` without nodes.
    async fn steady(&self) -> Option<Vec<Container>> {
        if !self.target.docker {
            return None;
        }
        let mut containers = observer::all_containers(&self.target).await.ok()?;
        containers.retain(|container| container.pod.contains(&format!("/{}-", STEADY.0)));
        Some(containers)
    }

    /// Changes the number of pods of a Deployment; what comes of it is seen by the watch.
    async fn churn(&mut self) {
        use rand::Rng as _;
        if self.target.nodes.is_empty() {
            return;
        }
        let patch = serde_json::json!({"spec": {"replicas": self.random.random_range(0..5)}});
        let Ok(client) = self.target.client(2) else { return };
        let (kind, options) = (&quorate_objects::kinds::DEPLOYMENT, Default::default());
        let merge = quorate_client::PatchType::Merge;
        // Its failure is counted by nobody: during a fault it may fail.
        let _ = client.patch(kind, "default", CHURN, merge, &patch, &options).await;
    }

    /// Everything is mended: the cluster must reach its goals, and shows what it holds.
    async fn settle(&mut self, running: &mut Running) -> Result<()> {
        if let Some(links) = self.target.cluster().links() {
            links.heal();
        }
        let target = self.target.clone();
        self.goal("every process runs, a master leads, nodes are ready", async || {
            target.cluster().heal().await
        })
        .await;
        self.goal("the leader does its work", async || {
            let leader = target.leader().await?;
            let work = target.observer_of(&leader)?.status().await?.leader_work_running;
            ensure!(work, "{leader} leads, and neither schedules nor controls");
            Ok(())
        })
        .await;
        running.stop_clients().await;
        let client = self.target.client(0)?;
        let book = Arc::clone(&self.book);
        let mut marker = None;
        self.goal("a write is acknowledged", async || {
            marker = Some(book.mark(&client, target.etcd(0)?).await?);
            Ok(())
        })
        .await;
        let marker = marker.context("no write is acknowledged after everything was mended")?;
        self.goal("every watcher has seen the last write", async || {
            let watched = book.watched().unwrap_or(marker);
            ensure!(watched >= marker, "revision {watched} of {marker}");
            Ok(())
        })
        .await;
        let mut members = Vec::new();
        self.goal("all members are at the same revision", async || {
            members = contents(&target).await?;
            let mut revisions: Vec<_> = members.iter().map(|m| (&m.part, m.revision)).collect();
            revisions.sort();
            revisions.dedup();
            let parts = kinds().len();
            ensure!(revisions.len() == parts, "{} revisions in {parts}", revisions.len());
            Ok(())
        })
        .await;
        self.evidence.members = members;
        self.goal("pods are what was asked for", async || pods_settled(&target).await).await;
        book.read_back(&client, target.etcd(0)?).await?;
        self.final_state().await
    }

    async fn final_state(&mut self) -> Result<()> {
        let client = self.target.client(0)?;
        let options = ListOptions::default();
        let nodes: Vec<Node> = client.list_as(&options).await?;
        for node in nodes {
            let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
            let get = |name: &str, read: fn(&_) -> i64| {
                allocatable.get(name).map_or(u64::MAX, |q| u64::try_from(read(q)).unwrap_or(0))
            };
            let offered = Resources {
                cpu_milli: get("cpu", quantity::cpu_millis),
                memory: get("memory", quantity::bytes),
                pods: get("pods", quantity::bytes),
            };
            self.evidence.nodes.insert(node.metadata.name.unwrap_or_default(), offered);
        }
        if !self.target.docker {
            return Ok(());
        }
        // In this order: a pod that ends between the two looks is no orphan's excuse.
        self.evidence.final_containers = observer::all_containers(&self.target).await?;
        let pods: Vec<Pod> = client.list_as(&options).await?;
        let uids = pods.into_iter().filter_map(|pod| pod.metadata.uid);
        self.evidence.final_pods = Some(uids.collect());
        Ok(())
    }

    /// Waits for something that must come about, and records how long it took.
    async fn goal(&mut self, what: &str, look: impl AsyncFnMut() -> Result<()>) {
        let start = Instant::now();
        // The verdict is clear after one miss, and what follows depends on what is missing.
        let missed = self.evidence.convergence.iter().any(|goal| goal.took_ms.is_none());
        let limit = if missed { AFTER_A_MISS } else { CONVERGENCE };
        let reached = wait_for(what, limit, look).await;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.evidence.convergence.push(Convergence {
            what: what.to_owned(),
            took_ms: reached.is_ok().then(|| millis(start.elapsed())),
            limit_ms: millis(limit),
            missing: reached.err().map(|error| format!("{error:#}")).unwrap_or_default(),
        });
    }
}

async fn pods_settled(target: &Target) -> Result<()> {
    if target.nodes.is_empty() {
        return Ok(());
    }
    let client = target.client(0)?;
    let deployments: Vec<k8s_openapi::api::apps::v1::Deployment> =
        client.list_as(&ListOptions::default()).await?;
    let wanted: i32 = deployments.iter().filter_map(|d| d.spec.replicas).sum();
    let pods: Vec<Pod> = client.list_as(&ListOptions::default()).await?;
    let ready = pods.iter().filter(|p| !pod::is_deleting(p) && pod::is_ready(p)).count();
    let wanted = usize::try_from(wanted).unwrap_or(0);
    ensure!(
        ready == wanted && pods.len() == wanted,
        "{ready} ready of {} pods, {wanted} wanted",
        pods.len()
    );
    if !target.docker {
        return Ok(());
    }
    let containers = observer::all_containers(target).await?;
    let alive = |c: &&Container| pods.iter().any(|p| p.metadata.uid.as_ref() == Some(&c.pod_uid));
    let strangers = containers.iter().filter(|container| !alive(container)).count();
    ensure!(strangers == 0, "{strangers} containers of pods that are gone");
    Ok(())
}

/// Everything that every member holds, in parts by kind.
async fn contents(target: &Target) -> Result<Vec<MemberContents>> {
    let mut all = Vec::new();
    for master in &target.masters {
        let client = target.observer_of(master)?;
        for kind in kinds() {
            all.push(contents_of(&client, master, kind).await?);
        }
    }
    Ok(all)
}

async fn contents_of(
    client: &quorate_client::Client,
    master: &str,
    kind: &Kind,
) -> Result<MemberContents> {
    let options = ListOptions { stale: true, ..ListOptions::default() };
    let list = client.list(kind, &options).await?;
    let digest = |object: &quorate_client::Object| {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        object.value.to_string().hash(&mut hasher);
        format!("{}@{}", hasher.finish(), object.revision)
    };
    let items = list.items.iter();
    Ok(MemberContents {
        member: master.to_owned(),
        part: kind.kind.to_owned(),
        revision: list.revision,
        contents: items.map(|o| (format!("{}/{}", o.namespace, o.name), digest(o))).collect(),
    })
}
