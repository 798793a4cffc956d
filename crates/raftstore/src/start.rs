//! Starting a [`RaftStore`], and forming the cluster the first time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use quorate_proto::Tls;
use quorate_proto::peer as pb;
use quorate_store::{Leadership, MemberId};
use rocksdb::Cache;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::RaftStoreError;
use crate::fatal::Fatal;
use crate::forward::{Forwarded, Forwarder};
use crate::identity::{DirectoryLock, Identity};
use crate::leadership::LeadershipTask;
use crate::leases::{self, Leases};
use crate::log::{LogStore, WriterThread};
use crate::members::Members;
use crate::options::{InitialMember, Options, PeerListen};
use crate::peer::{Handlers, LeaderWatch, NetworkFactory, PeerServer, Peers};
use crate::reads::ReadIndex;
use crate::state::{ReplicatedState, State};
use crate::store::RaftStore;
use crate::types::{MemberInfo, Raft};

/// Block cache of both databases together.
const CACHE_BYTES: usize = 16 << 20;
/// How long the first master waits for others before it forms the cluster alone; the election
/// then waits for them.
const BOOTSTRAP_WAIT: Duration = Duration::from_secs(3);
/// How often the leader looks after what is not urgent.
const DUTIES_INTERVAL: Duration = Duration::from_millis(100);
/// Entries per turn that move a compaction forward.
const COMPACTION_ENTRIES: usize = 32;
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(20);

impl RaftStore {
    /// Opens the data directory, joins the other masters, and serves them. Returns before a
    /// leader is elected. When `cancel` is cancelled the store shuts down as by
    /// [`RaftStore::shutdown`].
    ///
    /// # Errors
    /// [`RaftStoreError`] says what is wrong with the options, the directory, or the port.
    pub async fn start(
        options: Options,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, RaftStoreError> {
        options.validate()?;
        let config = Arc::new(options.raft_config()?);
        let data_dir = options.data_dir.clone();
        std::fs::create_dir_all(&data_dir)
            .map_err(|error| RaftStoreError::io("cannot create", &data_dir, error))?;
        let lock = DirectoryLock::acquire(&data_dir)?;
        // Before anything is written: a taken port must leave no trace.
        let listener = listen(options.peer_listen)?;
        let id = position(&options.initial_members, &options.name);
        let identity = Identity {
            cluster_id: options.cluster_id.clone(),
            member_id: id,
            name: options.name.clone(),
        };
        let (identity, _) = identity.claim(&data_dir)?;
        let id = identity.member_id;
        let fatal = Fatal::new();
        let storage = open_storage(&data_dir, fatal.clone()).await?;
        let pristine = storage.log.is_pristine();
        let peers = Peers::new(&options.cluster_id, id, options.tls.clone())?;
        let network = NetworkFactory { peers: Arc::clone(&peers), id };
        let replicated = ReplicatedState(Arc::clone(&storage.state));
        let raft = Raft::new(id, config, network, storage.log, replicated)
            .await
            .map_err(|error| RaftStoreError::Raft(error.to_string()))?;
        // Not the caller's token: an orderly end needs the tasks a little longer.
        let tasks_cancel = CancellationToken::new();
        let reads = ReadIndex::start(raft.clone(), Arc::clone(&peers), &tasks_cancel);
        let leases =
            Leases { lessor: Arc::clone(storage.state.machine.lessor()), reads: reads.clone() };
        let members = Members { raft: raft.clone(), id, tls: options.tls.is_some() };
        let forwarded = Arc::new(Forwarded {
            raft: raft.clone(),
            permits: Arc::new(Semaphore::new(options.max_in_flight)),
            limit: options.max_in_flight,
            paused: AtomicBool::new(false),
        });
        let leadership = Leadership { term: 0, leader: None, ready: None };
        let store = Arc::new(Self {
            id,
            data_dir,
            request_timeout: options.request_timeout,
            raft,
            revision: storage.state.machine.hub().applied(),
            state: storage.state,
            peers,
            forwarded,
            forwarder: Forwarder::start(tasks_cancel.clone()),
            reads,
            leases,
            members,
            min_lease_ttl: min_lease_ttl(options.election_timeout),
            leadership: Arc::new(watch::Sender::new(leadership)),
            fatal,
            cancel: tasks_cancel,
            tasks: TaskTracker::new(),
            writer: Mutex::new(Some(storage.writer)),
            lock: Mutex::new(Some(lock)),
            disk: Mutex::new(None),
            stopped: tokio::sync::Mutex::new(false),
        });
        store.spawn_peer_service(options.cluster_id, options.tls, listener);
        store.spawn_tasks(options.election_timeout);
        if pristine && is_first(id, &options.initial_members) {
            store.spawn_bootstrap(options.initial_members);
        }
        store.spawn_shutdown(cancel);
        Ok(store)
    }

    fn spawn_peer_service(&self, cluster_id: String, tls: Option<Tls>, listener: TcpListener) {
        let handlers = Handlers {
            raft: self.raft.clone(),
            state: Arc::clone(&self.state),
            forwarded: Arc::clone(&self.forwarded),
            reads: self.reads.clone(),
            leases: self.leases.clone(),
            members: self.members.clone(),
            cancel: self.cancel.clone(),
        };
        // The task "peer service": without it this master is cut off, so its failure is fatal.
        let fatal = self.fatal.clone();
        self.tasks.spawn(async move {
            if let Err(error) = PeerServer::run(handlers, cluster_id, tls, listener).await {
                fatal.signal(format!("the peer service has ended: {error}"));
            }
        });
    }

    fn spawn_tasks(&self, election: Duration) {
        // The task "leader watch": without it a dead leader is noticed by its silence.
        let watch =
            LeaderWatch { raft: self.raft.clone(), peers: Arc::clone(&self.peers), id: self.id };
        self.tasks.spawn(watch.run(self.cancel.clone()));
        // The task "leadership": ends only with Raft, whose end is fatal.
        let leadership = LeadershipTask {
            raft: self.raft.clone(),
            state: Arc::clone(&self.state),
            sender: Arc::clone(&self.leadership),
            quorum_patience: election * 4,
        };
        self.tasks.spawn(leadership.run(self.cancel.clone()));
        self.spawn_while_running(leases::expire(
            Arc::clone(&self.leases.lessor),
            Arc::clone(&self.forwarded),
            self.request_timeout,
        ));
        self.spawn_while_running(leader_duties(self.members.clone(), Arc::clone(&self.state)));
        self.spawn_raft_watch();
    }

    fn spawn_while_running(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// The task "raft watch": turns the end of RaftCore into a fatal failure.
    fn spawn_raft_watch(&self) {
        let mut metrics = self.raft.metrics();
        let (fatal, cancel) = (self.fatal.clone(), self.cancel.clone());
        let stopping = self.cancel.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    changed = metrics.changed() => {
                        let state = metrics.borrow_watched().running_state.clone();
                        match state {
                            Ok(()) if changed.is_ok() => {}
                            // Ours: `shutdown` cancels right after Raft has ended.
                            Err(openraft::errors::Fatal::Stopped) => return,
                            Ok(()) => return fatal.signal("raft has ended".into()),
                            Err(_) if stopping.is_cancelled() => return,
                            Err(error) => return fatal.signal(format!("raft: {error}")),
                        }
                    }
                }
            }
        });
    }

    /// The task "bootstrap": forms the cluster from the list of initial masters, once.
    fn spawn_bootstrap(self: &Arc<Self>, members: Vec<InitialMember>) {
        let store = Arc::clone(self);
        self.tasks.spawn(async move {
            let cancel = store.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => {}
                () = store.bootstrap(members) => {}
            }
        });
    }

    async fn bootstrap(&self, members: Vec<InitialMember>) {
        let nodes: BTreeMap<MemberId, MemberInfo> = (1..)
            .zip(members)
            .map(|(id, member)| {
                let info = MemberInfo {
                    name: member.name,
                    peer_url: member.peer_url,
                    client_url: member.client_url,
                    promote: false,
                };
                (id, info)
            })
            .collect();
        // A first election without the others would only cost an election timeout.
        let deadline = Instant::now() + BOOTSTRAP_WAIT;
        loop {
            match self.ask_others(&nodes).await {
                Others::Formed(peer) => {
                    let name = nodes.get(&self.id).map(|info| info.name.clone());
                    let error = RaftStoreError::LostData { peer, name: name.unwrap_or_default() };
                    return self.fatal.signal(error.to_string());
                }
                Others::Reachable(count) if (count + 1) * 2 > nodes.len() => break,
                Others::Reachable(_) if Instant::now() >= deadline => break,
                Others::Reachable(_) => tokio::time::sleep(BOOTSTRAP_PAUSE).await,
            }
        }
        match self.raft.initialize(nodes).await {
            Ok(()) => tracing::info!("formed the cluster"),
            Err(error) => tracing::warn!(%error, "did not form the cluster"),
        }
    }

    async fn ask_others(&self, nodes: &BTreeMap<MemberId, MemberInfo>) -> Others {
        let asked = nodes.iter().filter(|(id, _)| **id != self.id).map(|(id, info)| async move {
            let peer = self.peers.get(*id, info).ok()?;
            let mut client = peer.urgent();
            let limit = Duration::from_millis(500);
            let reply = tokio::time::timeout(limit, client.state(pb::StateRequest {})).await;
            Some((reply.ok()?.ok()?.into_inner().initialized, info.name.clone()))
        });
        let replies = futures::future::join_all(asked).await;
        let mut reachable = 0;
        for (formed, name) in replies.into_iter().flatten() {
            if formed {
                return Others::Formed(name);
            }
            reachable += 1;
        }
        Others::Reachable(reachable)
    }

    /// The task "shutdown": carries the caller's cancellation out. Not tracked, for it waits
    /// for the tracked tasks.
    fn spawn_shutdown(self: &Arc<Self>, cancel: CancellationToken) {
        let store = Arc::downgrade(self);
        let ended = self.cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = ended.cancelled() => return,
            }
            if let Some(store) = store.upgrade() {
                store.shutdown().await;
            }
        });
    }
}

/// The task "leader duties": what a leader does now and then. What fails is tried again at the
/// next turn.
async fn leader_duties(members: Members, state: Arc<State>) {
    let mut tick = tokio::time::interval(DUTIES_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if !members.raft.is_leader() {
            continue;
        }
        members.promote_ready().await;
        // Compaction goes on with each entry, so without writes it would stand still.
        if state.machine.compacting() {
            let entries = (0..COMPACTION_ENTRIES).map(|_| members.raft.write_blank());
            futures::future::join_all(entries).await;
        }
    }
}

/// Half again as long as the longest election, in whole seconds, as in etcd.
fn min_lease_ttl(election: Duration) -> i64 {
    i64::try_from((election * 3 / 2).as_secs_f64().ceil() as u64).unwrap_or(i64::MAX).max(1)
}

enum Others {
    /// This one is already part of a cluster.
    Formed(String),
    /// So many answer.
    Reachable(usize),
}

struct Storage {
    log: LogStore,
    writer: WriterThread,
    state: Arc<State>,
}

async fn open_storage(data_dir: &Path, fatal: Fatal) -> Result<Storage, RaftStoreError> {
    let data_dir = data_dir.to_owned();
    // Recovery may read a lot.
    let open = move || {
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let (log, writer) = LogStore::open(&data_dir.join("log"), &cache, fatal.clone())?;
        let state =
            State::open(&data_dir.join("state"), &data_dir.join("snapshots"), &cache, fatal)?;
        Ok(Storage { log, writer, state })
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(storage) => storage,
        Err(error) => Err(RaftStoreError::Raft(format!("opening the databases: {error}"))),
    }
}

/// Ids are positions in the list, from 1.
fn position(members: &[InitialMember], name: &str) -> MemberId {
    let position = members.iter().position(|member| member.name == name).unwrap_or(0);
    MemberId::try_from(position).unwrap_or(0) + 1
}

fn is_first(id: MemberId, members: &[InitialMember]) -> bool {
    id == 1 && !members.is_empty()
}

fn listen(listen: PeerListen) -> Result<TcpListener, RaftStoreError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let (address, socket) = match listen {
        PeerListen::Address(address) => (address, std::net::TcpListener::bind(address)),
        PeerListen::Socket(socket) => (socket.local_addr().unwrap_or(unknown), Ok(socket)),
    };
    socket
        .and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        })
        .map_err(|source| RaftStoreError::Listen { address, source })
}
