//! `quorate master`: one of the masters. Composition only: store, registry, leader work, API.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use quorate_api::{ApiOptions, Server};
use quorate_controllers::{ApiAccess, LeaderOptions, RebalanceOptions, lead};
use quorate_objects::net::Ipv4Net;
use quorate_proto::Tls;
use quorate_raftstore::{AutoCompaction, InitialMember, Options, RaftStore};
use quorate_registry::{Registry, RegistryOptions};
use quorate_scheduler::score::Weights;
use quorate_scheduler::{Explainer, Policy, SchedulerOptions};
use quorate_store::SharedStore;
use tokio::runtime::{Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::explain::explain;
use crate::listen::{bind, check_insecure};
use crate::members::{self, InitialMaster};
use crate::shutdown;
use crate::stall::Stall;

/// Runs a master in the foreground.
#[derive(Args, Debug)]
pub struct MasterArgs {
    /// Name of this master, as --initial-masters has it
    #[arg(long)]
    name: String,
    /// Where this master keeps its log and its state
    #[arg(long)]
    data_dir: PathBuf,
    /// Address for clients and agents
    #[arg(long, default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// Address for the other masters
    #[arg(long, default_value = "127.0.0.1:7101")]
    peer_listen: SocketAddr,
    /// Identity of the cluster, the same on all masters and nodes
    #[arg(long)]
    cluster_id: String,
    /// All masters of a new cluster: NAME=CLIENT_URL,PEER_URL;NAME=…  (the same on each)
    #[arg(long, value_delimiter = ';', required = true)]
    initial_masters: Vec<InitialMaster>,
    /// This master is new in a cluster that exists already (`quorate members add`);
    /// --initial-masters lists masters that are there, and this one
    #[arg(long)]
    join: bool,
    /// Replace this master's state by that of another one before it starts, when its own is known
    /// to be wrong (CORRUPT alarm)
    #[arg(long, conflicts_with = "join")]
    rebuild: bool,
    /// Size of the state in MiB at which only deletions and compaction are accepted
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u64).range(16..))]
    size_budget_mb: u64,
    /// Minutes of history that are kept for watches and old reads; 0: everything
    #[arg(long, default_value_t = 10)]
    history_minutes: u64,
    /// Addresses of pods, cut into one /24 per node
    #[arg(long, default_value = "10.144.0.0/16")]
    pod_cidr: Ipv4Net,
    /// Addresses of services
    #[arg(long, default_value = "10.208.0.0/16")]
    service_cidr: Ipv4Net,
    /// How much each score counts when the scheduler chooses a node: NAME=NUMBER,… with the names
    /// that `quorate why` shows; the same on all masters
    #[arg(long, default_value = "", value_name = "WEIGHTS")]
    score_weights: Weights,
    /// Folder with ca.crt, master.crt and master.key
    #[arg(long, required_unless_present = "insecure", conflicts_with = "insecure")]
    tls_dir: Option<PathBuf>,
    /// Speak plain HTTP; loopback addresses only
    #[arg(long)]
    insecure: bool,
    /// Take every client of the etcd API for a cluster admin, who may change the cluster's objects
    #[arg(long, requires = "insecure")]
    etcd_admin: bool,
    /// Pods that may be on their way at the same time to even out the nodes after some have
    /// returned or joined; 0: none is ever moved
    #[arg(long, default_value_t = 0)]
    rebalance_max_moves: usize,
    /// Interval of the leader's heartbeats, in milliseconds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=5_000))]
    heartbeat_ms: u64,
    /// Silence of the leader after which an election begins, in milliseconds (up to a fifth more, at random)
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    election_ms: u64,
}

/// How long a part may take to end once it is told to.
const END: Duration = Duration::from_secs(5);

/// How long the store and the registry try. Each is shorter than its caller's patience (10 s for
/// a client), so that "there is no majority" reaches the user as a definite answer, and not as a
/// timeout that leaves the outcome open.
const STORE_REQUEST: Duration = Duration::from_secs(3);
const REGISTRY_REQUEST: Duration = Duration::from_secs(4);

type Part = JoinHandle<anyhow::Result<()>>;

/// Runs until a signal, or until a part that the master cannot live without has failed. Then
/// the process exits and its supervisor starts it again: nothing limps on half dead.
///
/// # Errors
/// What failed, in words for an operator.
pub async fn run(args: MasterArgs) -> anyhow::Result<()> {
    let signal = shutdown::on_signal()?;
    quorate_clock::obey(&args.data_dir);
    let raft = RaftThreads::start().context("cannot start Raft's threads")?;
    let stall = Stall::start().context("cannot start a thread")?;
    stall.watch(&Handle::current(), "main");
    stall.watch(&raft.handle, "raft");
    check_insecure("--listen", args.listen, args.insecure)?;
    check_insecure("--peer-listen", args.peer_listen, args.insecure)?;
    members::check(&args.initial_masters, &args.name)?;
    let tls = args.tls_dir.as_deref().map(|folder| Tls::load(folder, "master")).transpose()?;
    let listener = bind("--listen", args.listen)?;
    let peer_listener = bind("--peer-listen", args.peer_listen)?;

    // Calls that are being carried out need the store and the caches to their end, so these end
    // after what serves the calls.
    let (serving, base) = (CancellationToken::new(), CancellationToken::new());
    let options = store_options(&args, peer_listener, tls.clone());
    if args.rebuild {
        let rebuilt = quorate_raftstore::rebuild(&options).await;
        let rebuilt = rebuilt.context("cannot rebuild the state")?;
        tracing::info!(rebuilt.revision, "the state is that of another master now");
    }
    let mut start = raft.handle.spawn(RaftStore::start(options, base.clone()));
    let store = tokio::select! {
        started = &mut start => {
            started.context("starting the store")?.context("cannot start the store")?
        }
        // It may wait for a cluster that it is to join.
        () = signal.cancelled() => {
            start.abort();
            return Ok(());
        }
    };
    let shared: SharedStore = store.clone();
    let registry = Registry::start(shared.clone(), registry_options(&args), base.clone());
    let explainer = Explainer::default();
    let access = api_access(tls.as_ref(), shared.clone());
    let server = Server::new(
        registry.clone(),
        shared.clone(),
        api_options(&args, &explainer, listener, tls),
    );
    tracing::info!(name = args.name, listen = %args.listen, "master started");

    // Task "api" and task "lead": the end of either ends the process.
    let cancel = serving.clone();
    let mut api: Part = tokio::spawn(async move { Ok(server.run(cancel).await?) });
    let (leadership, options) = (shared.leadership(), leader_options(&args, explainer, access));
    let cancel = serving.clone();
    let mut lead: Part =
        tokio::spawn(async move { Ok(lead(leadership, registry, options, cancel).await?) });
    let failure = tokio::select! {
        () = signal.cancelled() => None,
        reason = store.fatal() => Some(anyhow::anyhow!("the store stopped: {reason}")),
        ended = &mut api => Some(ended_early("the API server", ended)),
        ended = &mut lead => Some(ended_early("the leader's work", ended)),
    };
    if failure.is_none() {
        store.announce_end();
        // While clients are still served: a planned end costs them nothing.
        if let Err(error) = store.hand_over().await {
            tracing::warn!("leadership was not handed over: {error}");
        }
    }
    serving.cancel();
    for (name, part) in [("API server", api), ("leader's work", lead)] {
        if !part.is_finished() && tokio::time::timeout(END, part).await.is_err() {
            tracing::warn!("the {name} did not end within {END:?}");
        }
    }
    base.cancel();
    store.shutdown().await;
    failure.map_or(Ok(()), Err)
}

/// Threads on which the store's tasks run: Raft, its connections, and nothing else. What clients,
/// nodes and the leader's work keep the other threads busy with delays no heartbeat and no vote.
struct RaftThreads {
    handle: Handle,
    /// Taken when it ends.
    runtime: Option<Runtime>,
}

impl RaftThreads {
    /// One that applies or sends much, and one for what is urgent.
    const COUNT: usize = 2;

    fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(Self::COUNT).thread_name("raft").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for RaftThreads {
    /// Nothing should use RocksDB any more when the process ends. What reads the whole state is
    /// waited for no longer than that: a check of a big state takes minutes, and writes nothing.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(END));
        }
    }
}

fn ended_early(name: &str, ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("{name} ended without being told to"),
        Ok(Err(error)) => error.context(format!("{name} failed")),
        Err(panic) => anyhow::Error::new(panic).context(format!("{name} panicked")),
    }
}

fn store_options(args: &MasterArgs, peer_listener: TcpListener, tls: Option<Tls>) -> Options {
    let members = args.initial_masters.iter().map(|master| InitialMember {
        name: master.name.clone(),
        peer_url: master.peer_url.clone(),
        client_url: master.client_url.clone(),
    });
    Options {
        request_timeout: STORE_REQUEST,
        heartbeat: Duration::from_millis(args.heartbeat_ms),
        election_timeout: Duration::from_millis(args.election_ms),
        join: args.join,
        size_budget: args.size_budget_mb << 20,
        auto_compaction: match args.history_minutes {
            0 => AutoCompaction::Off,
            minutes => AutoCompaction::Age(Duration::from_secs(minutes * 60)),
        },
        tls,
        ..Options::new(
            &args.data_dir,
            &args.cluster_id,
            &args.name,
            peer_listener,
            members.collect(),
        )
    }
}

fn registry_options(args: &MasterArgs) -> RegistryOptions {
    RegistryOptions {
        service_cidr: args.service_cidr,
        request_timeout: REGISTRY_REQUEST,
        ..RegistryOptions::default()
    }
}

/// What programs in pods are told about the masters.
fn api_access(tls: Option<&Tls>, store: SharedStore) -> ApiAccess {
    let urls = move || {
        let members = store.status().members.into_iter();
        members.map(|status| status.member.client_url).collect()
    };
    let authority = tls.map(|tls| tls.ca.clone()).unwrap_or_default();
    ApiAccess { authority, urls: Arc::new(urls) }
}

fn leader_options(args: &MasterArgs, explainer: Explainer, access: ApiAccess) -> LeaderOptions {
    let policy = Policy { weights: args.score_weights, ..Policy::default() };
    let scheduler = SchedulerOptions { explainer, policy, ..SchedulerOptions::default() };
    let max_moves = args.rebalance_max_moves;
    let rebalance = RebalanceOptions { max_moves, ..RebalanceOptions::default() };
    let api = Some(access);
    LeaderOptions { pod_cidr: args.pod_cidr, scheduler, rebalance, api, ..LeaderOptions::default() }
}

fn api_options(
    args: &MasterArgs,
    explainer: &Explainer,
    listener: TcpListener,
    tls: Option<Tls>,
) -> ApiOptions {
    ApiOptions {
        tls,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        explain: Some(explain(explainer.clone())),
        etcd_admin: args.etcd_admin,
        ..ApiOptions::new(listener, &args.cluster_id)
    }
}
