//! Clusters of three in one process, over real sockets. Each member has a runtime of its own:
//! dropping that runtime closes its sockets as the death of a process would.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_proto::peer::{StateReply, StateRequest};
use quorate_store::{
    Command, Consistency, KeyRange, RangeRequest, Store, StoreError, TxnRequest, WatchRequest,
};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::peer::Peers;
use crate::types::MemberInfo;
use crate::{InitialMember, Options, RaftStore, RaftStoreError};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Node {
    pub runtime: Option<Runtime>,
    pub store: Option<Arc<RaftStore>>,
}

pub(super) struct Cluster {
    pub dir: tempfile::TempDir,
    pub members: Vec<InitialMember>,
    pub nodes: Vec<Node>,
    tune: Box<dyn Fn(&mut Options) + Send + Sync>,
}

pub(super) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(super) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address where nobody listens, and that nobody else is given: it is held, without listening,
/// until the process ends.
pub(super) fn free_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

impl Cluster {
    pub async fn start(tune: impl Fn(&mut Options) + Send + Sync + 'static) -> Self {
        Self::start_with("http", tune).await
    }

    pub async fn start_with(
        scheme: &str,
        tune: impl Fn(&mut Options) + Send + Sync + 'static,
    ) -> Self {
        let mut cluster = Self::empty(scheme, tune);
        for i in 0..3 {
            cluster.restart(i).await;
        }
        // Before that a member has no vote, and when another one is killed it may never get it.
        until("all take part", async || {
            (0..3).all(|i| *cluster.store(i).admitted.borrow()).then_some(())
        })
        .await;
        cluster
    }

    /// Three members that do not run and have no data.
    pub fn empty(scheme: &str, tune: impl Fn(&mut Options) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let members = (1..=3)
            .map(|id| InitialMember {
                name: format!("m{id}"),
                peer_url: format!("{scheme}://{}", free_address()),
                client_url: format!("http://client-{id}"),
            })
            .collect();
        let nodes = (0..3).map(|_| Node { runtime: None, store: None }).collect();
        Self { dir, members, nodes, tune: Box::new(tune) }
    }

    pub fn data_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("m{}", i + 1))
    }

    pub fn options(&self, i: usize) -> Options {
        let address = self.members[i].peer_url.split_once("://").unwrap().1;
        let address: SocketAddr = address.parse().unwrap();
        let name = &self.members[i].name;
        let mut options =
            Options::new(self.data_dir(i), "test", name, address, self.members.clone());
        // A busy machine alone shall neither change the leader nor fail a request.
        options.election_timeout = Duration::from_secs(3);
        options.request_timeout = PATIENCE;
        (self.tune)(&mut options);
        options
    }

    pub async fn restart(&mut self, i: usize) {
        use RaftStoreError as E;
        assert!(self.nodes[i].store.is_none());
        let runtime = runtime();
        // What a killed member held is released when its last thread has ended.
        let store = until("the member starts", async || {
            let start = RaftStore::start(self.options(i), CancellationToken::new());
            match runtime.spawn(start).await.unwrap() {
                Ok(store) => Some(store),
                Err(error @ (E::Locked { .. } | E::Listen { .. } | E::Database { .. })) => {
                    eprintln!("starting again: {error}");
                    None
                }
                Err(error) => panic!("{error}"),
            }
        })
        .await;
        self.nodes[i] = Node { runtime: Some(runtime), store: Some(store) };
    }

    /// As SIGKILL does: nothing gets a chance to say goodbye.
    pub fn kill(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.store = None;
        node.runtime.take().unwrap().shutdown_background();
    }

    pub fn store(&self, i: usize) -> Arc<RaftStore> {
        Arc::clone(self.nodes[i].store.as_ref().unwrap())
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].store.is_some()).collect()
    }

    /// Runs `work` where a master would: on the member's own runtime.
    pub async fn on<T: Send + 'static, F>(
        &self,
        i: usize,
        work: impl FnOnce(Arc<RaftStore>) -> F,
    ) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let work = work(self.store(i));
        self.nodes[i].runtime.as_ref().unwrap().spawn(work).await.unwrap()
    }

    pub async fn put(&self, i: usize, key: &str, value: &str) -> Result<u64, StoreError> {
        let command = Command::from(TxnRequest::put(key.to_owned(), value.to_owned()));
        self.on(i, |store| async move { Ok(store.propose(command).await?.revision) }).await
    }

    pub async fn get(&self, i: usize, key: &str) -> Option<String> {
        let request = RangeRequest::key(key.to_owned());
        let response = self
            .on(i, |store| async move { store.range(request, Consistency::Linearizable).await })
            .await
            .unwrap();
        response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// The member that is ready to lead, with its term.
    pub async fn leader(&self) -> (usize, u64) {
        until("a leader", async || {
            self.alive().into_iter().find_map(|i| {
                let ready = self.store(i).leadership().borrow().ready;
                ready.map(|term| (i, term))
            })
        })
        .await
    }

    /// Another member that lives.
    pub fn other_than(&self, leader: usize) -> usize {
        self.alive().into_iter().find(|i| *i != leader).unwrap()
    }

    pub async fn equal_hashes(&self) {
        until("equal states", async || {
            let hashes: Vec<_> =
                self.alive().iter().map(|i| self.store(*i).hash().unwrap()).collect();
            hashes.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
        })
        .await;
    }

    pub async fn stop(mut self) {
        for i in self.alive() {
            self.on(i, |store| async move { store.shutdown().await }).await;
            self.kill(i);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_writes_reads_and_watches() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let watching = cluster.other_than(leader);
    let request = WatchRequest { range: KeyRange::prefix("k"), ..WatchRequest::default() };
    let mut watcher = cluster.store(watching).watch(request).unwrap();
    for i in 0..3 {
        cluster.put(i, &format!("k{i}"), "v").await.unwrap();
    }
    for reader in 0..3 {
        for i in 0..3 {
            assert_eq!(cluster.get(reader, &format!("k{i}")).await.as_deref(), Some("v"));
        }
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
        seen.extend(batch.events.iter().map(|event| event.kv.key.clone()));
    }
    assert_eq!(seen, ["k0", "k1", "k2"]);
    cluster.equal_hashes().await;
    until("the leader knows how far all are", async || {
        let (leader, _) = cluster.leader().await;
        let members = cluster.store(leader).status().members;
        assert_eq!(members.len(), 3);
        members.iter().all(|member| member.matched_index.is_some()).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_leader_dies() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (leader, term) = cluster.leader().await;
    let writer = cluster.other_than(leader);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (store, acknowledged, stop) =
            (cluster.store(writer), Arc::clone(&acknowledged), Arc::clone(&stop));
        cluster.nodes[writer].runtime.as_ref().unwrap().spawn(async move {
            let mut keys = Vec::new();
            let mut next = 0;
            while !stop.load(Ordering::Relaxed) {
                let key = format!("w{next:06}");
                next += 1;
                match store.propose(TxnRequest::put(key.clone(), "v").into()).await {
                    Ok(_) => {
                        keys.push(key);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(StoreError::OutcomeUnknown(_) | StoreError::Unavailable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            keys
        })
    };
    until("writes", async || (acknowledged.load(Ordering::Relaxed) > 50).then_some(())).await;
    let killed = Instant::now();
    cluster.kill(leader);
    // What was on its way may still be answered: one write more than that is new.
    let before = acknowledged.load(Ordering::Relaxed);
    until("the next write", async || {
        (acknowledged.load(Ordering::Relaxed) > before + 1).then_some(())
    })
    .await;
    eprintln!("leader killed to next acknowledged write: {:?}", killed.elapsed());
    let (new_leader, new_term) = cluster.leader().await;
    assert!(new_leader != leader && new_term > term);
    stop.store(true, Ordering::Relaxed);
    let keys = writing.await.unwrap();

    cluster.restart(leader).await;
    for i in 0..3 {
        let request = RangeRequest::new(KeyRange::prefix("w"));
        let found = cluster
            .on(i, |store| async move { store.range(request, Consistency::Linearizable).await })
            .await
            .unwrap();
        let found: std::collections::BTreeSet<_> =
            found.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect();
        let lost: Vec<_> = keys.iter().filter(|key| !found.contains(*key)).collect();
        assert!(lost.is_empty(), "lost on m{}: {lost:?}", i + 1);
    }
    cluster.equal_hashes().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_neither_writes_nor_reads_linearizably() {
    let mut cluster =
        Cluster::start(|options| options.request_timeout = Duration::from_secs(2)).await;
    cluster.leader().await;
    cluster.put(0, "k", "v").await.unwrap();
    cluster.equal_hashes().await;
    let (leader, _) = cluster.leader().await;
    let followers: Vec<_> = cluster.alive().into_iter().filter(|i| *i != leader).collect();
    // First a leader without followers, later a follower without a leader.
    for i in &followers {
        cluster.kill(*i);
    }
    let error = cluster.put(leader, "k", "lost").await.unwrap_err();
    assert!(
        matches!(error, StoreError::OutcomeUnknown(_) | StoreError::Unavailable { .. }),
        "{error}"
    );
    cluster.kill(leader);
    cluster.restart(followers[0]).await;
    let error = cluster.put(followers[0], "k", "lost").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let error = cluster
        .on(followers[0], |store| async move { store.read_revision().await })
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let request = RangeRequest::key("k");
    let stale = cluster
        .on(
            followers[0],
            |store| async move { store.range(request, Consistency::Serializable).await },
        )
        .await
        .unwrap();
    assert_eq!(stale.kvs[0].value, "v");
    // With a majority it goes on.
    cluster.restart(followers[1]).await;
    cluster.leader().await;
    cluster.put(followers[0], "k", "again").await.unwrap();
    assert_eq!(cluster.get(followers[1], "k").await.as_deref(), Some("again"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_restart_with_everything() {
    let mut cluster = Cluster::start(|_| {}).await;
    cluster.leader().await;
    for i in 0..100 {
        cluster.put(i % 3, &format!("k{i}"), "v").await.unwrap();
    }
    cluster.equal_hashes().await;
    let (revision, hash) = (cluster.store(0).status().revision, cluster.store(0).hash().unwrap());
    for i in 0..3 {
        cluster.kill(i);
    }
    for i in 0..3 {
        cluster.restart(i).await;
    }
    cluster.leader().await;
    assert_eq!(cluster.get(1, "k99").await.as_deref(), Some("v"));
    cluster.equal_hashes().await;
    assert_eq!(cluster.store(2).status().revision, revision);
    assert_eq!(cluster.store(2).hash().unwrap(), hash);
    cluster.stop().await;
}

/// Kills a follower that has something; returns who leads, and the follower.
async fn lose_a_follower(cluster: &mut Cluster) -> (usize, usize) {
    let (leader, _) = cluster.leader().await;
    let lagging = cluster.other_than(leader);
    cluster.put(lagging, "first", "v").await.unwrap();
    cluster.kill(lagging);
    (cluster.leader().await.0, lagging)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::start(|options| {
        options.snapshot_every = 200;
        options.log_keep = 20;
    })
    .await;
    let (leader, lagging) = lose_a_follower(&mut cluster).await;
    // One after the other: each is an entry.
    for i in 0..1_000 {
        cluster.put(leader, &format!("k{i}"), "v").await.unwrap();
    }
    until("the log is purged", async || {
        let metrics = cluster.store(leader).raft_metrics();
        metrics.purged.is_some_and(|purged| purged.index > 500).then_some(())
    })
    .await;
    cluster.restart(lagging).await;
    cluster.equal_hashes().await;
    until("the snapshot is known", async || {
        let snapshot = cluster.store(lagging).raft_metrics().snapshot;
        snapshot.is_some_and(|id| id.index > 500).then_some(())
    })
    .await;
    // It takes part again, and what it got is still there after a restart.
    cluster.put(lagging, "last", "v").await.unwrap();
    cluster.kill(lagging);
    cluster.restart(lagging).await;
    assert_eq!(cluster.get(lagging, "k999").await.as_deref(), Some("v"));
    assert_eq!(cluster.get(lagging, "last").await.as_deref(), Some("v"));
    cluster.equal_hashes().await;
    cluster.stop().await;
}

/// Of large entries there are too few for the limits that count them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_entries_is_kept_short_too() {
    let mut cluster = Cluster::start(|options| {
        options.snapshot_bytes = 8 << 20;
        options.log_keep_bytes = 2 << 20;
    })
    .await;
    let (leader, lagging) = lose_a_follower(&mut cluster).await;
    let value = "v".repeat(256 << 10);
    for i in 0..64 {
        cluster.put(leader, &format!("k{i}"), &value).await.unwrap();
    }
    let kept = until("most of the log is purged", async || {
        let metrics = cluster.store(leader).raft_metrics();
        let kept = metrics.last_log_index? - metrics.purged?.index;
        (kept < 40).then_some(kept)
    })
    .await;
    assert!(kept >= 8, "{kept} entries are kept, which is less than 2 MiB");
    cluster.restart(lagging).await;
    cluster.equal_hashes().await;
    assert_eq!(cluster.get(lagging, "k63").await, Some(value));
    cluster.stop().await;
}

fn info(cluster: &Cluster, i: usize) -> MemberInfo {
    MemberInfo { peer_url: cluster.members[i].peer_url.clone(), ..Default::default() }
}

/// What a member answers. A connection that was not made in time is tried again.
async fn state(peers: &Peers, info: &MemberInfo) -> Result<StateReply, tonic::Status> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = peers.get(1, info).unwrap().urgent();
        let answer = client.state(StateRequest {}).await.map(tonic::Response::into_inner);
        let late = matches!(&answer, Err(status) if status.code() == tonic::Code::Unavailable);
        if !late || Instant::now() >= deadline {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_starts_say_what_is_wrong() {
    let cluster = Cluster::start(|_| {}).await;
    cluster.leader().await;
    let start = |options: Options| RaftStore::start(options, CancellationToken::new());

    let error = start(cluster.options(0)).await.unwrap_err();
    assert!(matches!(error, RaftStoreError::Locked { .. }), "{error}");
    let mut options = cluster.options(0);
    options.data_dir = cluster.dir.path().join("fresh");
    let error = start(options).await.unwrap_err();
    assert!(error.to_string().contains("another process has this port"), "{error}");
    assert!(!cluster.dir.path().join("fresh/identity.json").exists(), "a trace is left");
    let mut options = cluster.options(0);
    options.name = "stranger".into();
    let error = start(options).await.unwrap_err();
    assert!(error.to_string().contains("m1, m2, m3"), "{error}");

    // Another cluster's master is refused by ours and its directory by us.
    let dir = cluster.data_dir(0);
    let peers = Peers::new("other", None).unwrap();
    let status = state(&peers, &info(&cluster, 0)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    let mut foreign = cluster.options(0);
    cluster.stop().await;
    foreign.cluster_id = "other".into();
    // The old port may be in use a moment longer.
    foreign.peer_listen = TcpListener::bind("127.0.0.1:0").unwrap().into();
    assert_eq!(foreign.data_dir, dir);
    // The temporary directory is gone with the cluster: an identity is enough here.
    std::fs::create_dir_all(&dir).unwrap();
    let identity = r#"{"cluster_id":"test","member_id":1,"name":"m1","instance":1}"#;
    std::fs::write(dir.join("identity.json"), identity).unwrap();
    let error = start(foreign).await.unwrap_err();
    assert!(matches!(error, RaftStoreError::OtherCluster { .. }), "{error}");
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

/// Certificates of one authority, for each of these organisations.
fn certificates<const N: usize>(organisations: [&str; N]) -> [quorate_proto::Tls; N] {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    organisations.map(|organisation| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        let cert = params.signed_by(&key, &issuer).unwrap().pem();
        quorate_proto::Tls { ca: ca_pem.clone(), cert, key: key.serialize_pem() }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_speak_tls_and_refuse_strangers() {
    let [tls, node] = certificates(["system:masters", "system:nodes"]);
    let [foreign] = certificates(["system:masters"]);
    let mut cluster =
        Cluster::start_with("https", move |options| options.tls = Some(tls.clone())).await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.other_than(leader);
    cluster.put(follower, "k", "v").await.unwrap();
    cluster.equal_hashes().await;
    let info = info(&cluster, leader);
    let peers = |tls| Peers::new("test", Some(tls)).unwrap();
    // A certificate of another authority opens nothing, and nor does one of a node.
    let mut client = peers(foreign).get(1, &info).unwrap().urgent();
    client.state(StateRequest {}).await.unwrap_err();
    let refused = state(&peers(node), &info).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("is no master"), "{refused}");
    // And a dead leader is noticed as without TLS.
    cluster.kill(leader);
    until("a write", async || cluster.put(follower, "k", "w").await.ok()).await;
    cluster.stop().await;
}

/// Also those that a caller with other threads was the first to use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_live_on_the_threads_of_the_store() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let info = info(&cluster, leader);
    let peers = Peers::new("test", None).unwrap();
    let caller = runtime();
    let asks = Arc::clone(&peers);
    let asked = tokio::task::spawn_blocking(move || {
        caller.block_on(state(&asks, &info)).unwrap();
        info
    });
    let info = asked.await.unwrap();
    // At once: a connection that has to be made anew did not live on.
    let mut client = peers.get(1, &info).unwrap().urgent();
    client.state(StateRequest {}).await.unwrap();
    cluster.stop().await;
}
