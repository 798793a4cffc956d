//! Starting a [`RaftStore`], and forming the cluster the first time.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use quorate_proto::Tls;
use quorate_store::{Leadership, MemberId};
use rocksdb::Cache;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{admit, find_id, notice_removal, register};
use crate::ask::Answers;
use crate::corrupt;
use crate::duties::Duties;
use crate::error::RaftStoreError;
use crate::fatal::Fatal;
use crate::forward::{Forwarded, Forwarder};
use crate::identity::{DirectoryLock, Identity};
use crate::leadership::LeadershipTask;
use crate::leases::{self, Leases};
use crate::log::{LogReader, LogStore, WriterThread};
use crate::members::Members;
use crate::metrics::Metrics;
use crate::options::{InitialMember, Options, PeerListen};
use crate::peer::{Handlers, LeaderWatch, NetworkFactory, PeerServer, Peers};
use crate::reads::ReadIndex;
use crate::space::{Room, SpaceWatch};
use crate::state::{ReplicatedState, State};
use crate::store::RaftStore;
use crate::trim::Trim;
use crate::types::{MemberInfo, Raft};

/// Block cache of both databases together.
const CACHE_BYTES: usize = 16 << 20;
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
        let listener = listen(&options.peer_listen)?;
        let tls = options.tls.clone();
        let peers = Peers::new(&options.cluster_id, tls.clone())?;
        let identity = identify(&options, &peers).await?;
        let id = identity.member_id;
        peers.introduce(id);
        let fatal = Fatal::new();
        let storage = open_storage(&data_dir, fatal.clone()).await?;
        let pristine = storage.log.is_pristine();
        let network = NetworkFactory { peers: Arc::clone(&peers), id };
        let state = storage.state;
        let raft = Raft::new(id, config, network, storage.log, ReplicatedState(Arc::clone(&state)))
            .await
            .map_err(|error| RaftStoreError::Raft(error.to_string()))?;
        // Not the caller's token: an orderly end needs the tasks a little longer.
        let tasks_cancel = CancellationToken::new();
        let reads =
            ReadIndex::start(raft.clone(), Arc::clone(&peers), Arc::clone(&state), &tasks_cancel);
        let leases = Leases { lessor: Arc::clone(state.machine.lessor()), reads: reads.clone() };
        let metrics = Arc::clone(&state.metrics);
        let forwarded = Arc::new(Forwarded::new(raft.clone(), &options, metrics));
        let ends = watch::Sender::new(false);
        let members = Members {
            raft: raft.clone(),
            id,
            tls: options.tls.is_some(),
            peers: Arc::clone(&peers),
            forwarded: Arc::clone(&forwarded),
            alarms: state.machine.alarms(),
            ends: ends.subscribe(),
            changing: Arc::default(),
        };
        let leadership = Leadership { term: 0, leader: None, ready: None };
        let forwarder = Forwarder::new(&raft, &state, &options, tasks_cancel.clone());
        let store = Arc::new(Self {
            id,
            name: options.name.clone(),
            data_dir,
            request_timeout: options.request_timeout,
            raft,
            revision: state.machine.hub().applied(),
            forwarder,
            state,
            peers,
            forwarded,
            reads,
            leases,
            members,
            answers: Answers::default(),
            min_lease_ttl: min_lease_ttl(options.election_timeout),
            instance: identity.instance,
            admitted: watch::Sender::new(!pristine),
            ends,
            joins: options.join,
            room: Room::default(),
            budget: options.size_budget,
            leadership: Arc::new(watch::Sender::new(leadership)),
            fatal,
            cancel: tasks_cancel,
            tasks: TaskTracker::new(),
            writer: Mutex::new(Some(storage.writer)),
            lock: Mutex::new(Some(lock)),
            disk: Mutex::new(None),
            stopped: tokio::sync::Mutex::new(false),
        });
        store.spawn_peer_service(options.cluster_id.clone(), tls, listener);
        store.spawn_tasks(&options, storage.reader);
        if pristine {
            let nodes = nodes_around(id, &options);
            store.spawn_while_running(admit(Arc::clone(&store), nodes));
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
            answers: self.answers.clone(),
            process: rand::random_range(1..=u64::MAX),
            admitted: self.admitted.subscribe(),
            ends: self.ends.subscribe(),
            joins: self.joins,
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

    fn spawn_tasks(self: &Arc<Self>, options: &Options, log: LogReader) {
        let election = options.election_timeout;
        // The task "leader watch": without it a dead leader is noticed by its silence.
        let watch = LeaderWatch {
            raft: self.raft.clone(),
            peers: Arc::clone(&self.peers),
            state: Arc::clone(&self.state),
            id: self.id,
        };
        self.tasks.spawn(watch.run(self.cancel.clone()));
        // The task "leadership": ends only with Raft, whose end is fatal.
        let leadership = LeadershipTask {
            raft: self.raft.clone(),
            state: Arc::clone(&self.state),
            sender: Arc::clone(&self.leadership),
            quorum_patience: election * 4,
        };
        self.tasks.spawn(leadership.run(self.cancel.clone()));
        let leases = leases::expire(
            Arc::clone(&self.leases.lessor),
            Arc::clone(&self.forwarded),
            self.request_timeout,
        );
        self.spawn_while_running(leases);
        let duties = Duties {
            store: Arc::clone(self),
            compaction: options.auto_compaction,
            check_every: options.check_every,
        };
        self.spawn_while_running(duties.run());
        let trim = Trim {
            raft: self.raft.clone(),
            log,
            snapshot_bytes: options.snapshot_bytes,
            keep_bytes: options.log_keep_bytes,
        };
        self.spawn_while_running(trim.run());
        let space = SpaceWatch {
            store: Arc::clone(self),
            data_dir: self.data_dir.clone(),
            budget: options.size_budget,
            reserve: options.disk_reserve,
            rewritten: 0,
        };
        self.spawn_while_running(space.run());
        self.spawn_while_running(corrupt::watch(Arc::clone(self), options.scrub_every));
        self.spawn_while_running(register(Arc::clone(self), options.name.clone()));
        self.spawn_while_running(notice_removal(Arc::clone(self), options.name.clone()));
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

/// Half again as long as the longest election, in whole seconds, as in etcd.
fn min_lease_ttl(election: Duration) -> i64 {
    i64::try_from((election * 3 / 2).as_secs_f64().ceil() as u64).unwrap_or(i64::MAX).max(1)
}

struct Storage {
    log: LogStore,
    reader: LogReader,
    writer: WriterThread,
    state: Arc<State>,
}

async fn open_storage(data_dir: &Path, fatal: Fatal) -> Result<Storage, RaftStoreError> {
    let data_dir = data_dir.to_owned();
    // Recovery may read a lot.
    let open = move || {
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let metrics = Arc::new(Metrics::default());
        let (log, writer) =
            LogStore::open(&data_dir.join("log"), &cache, Arc::clone(&metrics), fatal.clone())?;
        let (state, snapshots) = (data_dir.join("state"), data_dir.join("snapshots"));
        let state = State::open(&state, &snapshots, &cache, metrics, fatal)?;
        sync_names(&data_dir)?;
        Ok(Storage { reader: log.reader(), log, writer, state })
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(storage) => storage,
        Err(error) => Err(RaftStoreError::Raft(format!("opening the databases: {error}"))),
    }
}

/// The databases sync what is inside their directories. The names of those, and of the data
/// directory, may be new as well: without them a power cut would leave a member without its log.
fn sync_names(data_dir: &Path) -> Result<(), RaftStoreError> {
    let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    for directory in [Some(data_dir), parent].into_iter().flatten() {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| RaftStoreError::io("cannot sync", directory, error))?;
    }
    Ok(())
}

/// Ids are positions in the list, from 1.
pub(crate) fn position(members: &[InitialMember], name: &str) -> MemberId {
    let position = members.iter().position(|member| member.name == name).unwrap_or(0);
    MemberId::try_from(position).unwrap_or(0) + 1
}

pub(crate) fn initial_nodes(members: &[InitialMember]) -> BTreeMap<MemberId, MemberInfo> {
    let infos = members.iter().map(|member| MemberInfo {
        name: member.name.clone(),
        peer_url: member.peer_url.clone(),
        client_url: member.client_url.clone(),
        promote: false,
    });
    (1..).zip(infos).collect()
}

/// Whose directory it is; a new one becomes this master's.
async fn identify(options: &Options, peers: &Peers) -> Result<Identity, RaftStoreError> {
    let member_id = match Identity::read(&options.data_dir)? {
        Some(found) => found.member_id,
        None if options.join => {
            find_id(peers, &options.name, &initial_nodes(&options.initial_members)).await?
        }
        None => position(&options.initial_members, &options.name),
    };
    let identity = Identity {
        cluster_id: options.cluster_id.clone(),
        member_id,
        name: options.name.clone(),
        instance: rand::random_range(1..=u64::MAX),
    };
    Ok(identity.claim(&options.data_dir)?.0)
}

/// This master under its id, and the others: their positions may be wrong in a cluster that has
/// changed, but they are only asked questions.
fn nodes_around(id: MemberId, options: &Options) -> BTreeMap<MemberId, MemberInfo> {
    let nodes = initial_nodes(&options.initial_members);
    let (own, mut others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        nodes.into_iter().partition(|(_, info)| info.name == options.name);
    others.extend(own.into_values().map(|info| (id, info)));
    others
}

fn listen(listen: &PeerListen) -> Result<TcpListener, RaftStoreError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let (address, socket) = match listen {
        PeerListen::Address(address) => (*address, std::net::TcpListener::bind(address)),
        PeerListen::Socket(socket) => (socket.local_addr().unwrap_or(unknown), socket.try_clone()),
    };
    socket
        .and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        })
        .map_err(|source| RaftStoreError::Listen { address, source })
}
