//! Faults that need a look inside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_store::{
    AlarmKind, Backend as _, Batch, Consistency, RangeRequest, Space, Store, StoreError, View as _,
};
use rocksdb::Cache;

use crate::cluster_test::{Cluster, until};
use crate::options::PeerListen;
use crate::state::RocksBackend;

/// Each member's port is held open by the test, so it never refuses: what tells a new process
/// from the old one is its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_back_at_once_is_replaced_at_once() {
    let sockets: Arc<Mutex<Vec<(String, TcpListener)>>> = Arc::default();
    let held = Arc::clone(&sockets);
    let mut cluster = Cluster::start(move |options| {
        options.election_timeout = Duration::from_secs(20);
        let PeerListen::Address(address) = options.peer_listen else { return };
        let mut held = held.lock();
        if !held.iter().any(|(name, _)| *name == options.name) {
            held.push((options.name.clone(), TcpListener::bind(address).unwrap()));
        }
        let (_, socket) = held.iter().find(|(name, _)| *name == options.name).unwrap();
        options.peer_listen = socket.try_clone().unwrap().into();
    })
    .await;
    let (leader, term) = cluster.leader().await;
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.kill(leader);
    cluster.restart(leader).await;
    let new = until("an election by the restarted leader's number", async || {
        let (_, new) = cluster.leader().await;
        (new > term).then_some(new)
    })
    .await;
    assert!(
        cluster.alive().into_iter().any(|i| cluster.store(i).peers.ignores_lease(new)),
        "nobody has noticed, only the election timeout has"
    );
    assert_eq!(cluster.get(leader, "k").await.as_deref(), Some("v"));
    cluster.stop().await;
}

/// Both followers have voted for themselves, so neither wins that term.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_that_nobody_wins_is_repeated_before_the_election_timeout() {
    let mut cluster =
        Cluster::start(|options| options.election_timeout = Duration::from_secs(300)).await;
    let (leader, term) = cluster.leader().await;
    cluster.put(leader, "k", "v").await.unwrap();
    let followers: Vec<_> = cluster.alive().into_iter().filter(|i| *i != leader).collect();
    for follower in &followers {
        cluster.store(*follower).raft.trigger().elect(false).await.unwrap();
    }
    cluster.kill(leader);
    let (new, _) = until("a leader after the election that failed", async || {
        let (new, after) = cluster.leader().await;
        (after > term).then_some((new, after))
    })
    .await;
    assert_eq!(cluster.get(new, "k").await.as_deref(), Some("v"));
    cluster.stop().await;
}

/// Changes a value behind the back of a member that does not run.
async fn tamper(cluster: &Cluster, i: usize, key: &str) {
    let path = cluster.data_dir(i).join("state");
    let backend = until("the database is free", async || {
        RocksBackend::open(&path, &Cache::new_lru_cache(1 << 20)).ok()
    })
    .await;
    let record = backend.view().get(Space::Latest, key.as_bytes()).unwrap().unwrap();
    let mut changed = record.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let op = (Space::Latest, Bytes::copy_from_slice(key.as_bytes()), Some(changed.into()));
    backend.commit(Batch { ops: vec![op] }).unwrap();
    backend.flush().unwrap();
}

async fn is_corrupt(cluster: &Cluster, i: usize) {
    let id = cluster.store(i).id();
    until("the alarm is raised", async || {
        let alarms = cluster.store(i).alarms().borrow().clone();
        let ours =
            |alarm: &quorate_store::Alarm| alarm.member == id && alarm.kind() == AlarmKind::Corrupt;
        alarms.iter().any(ours).then_some(())
    })
    .await;
    until("it serves nobody", async || {
        let read = RangeRequest::key("k");
        let read = move |store: Arc<crate::RaftStore>| async move {
            store.range(read, Consistency::Serializable).await
        };
        matches!(cluster.on(i, read).await, Err(StoreError::Corrupt(_))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_data_was_changed_finds_out_and_is_rebuilt() {
    let mut cluster =
        Cluster::start(|options| options.scrub_every = Duration::from_millis(200)).await;
    let (leader, _) = cluster.leader().await;
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.equal_hashes().await;
    let victim = cluster.other_than(leader);
    cluster.kill(victim);
    tamper(&cluster, victim, "k").await;
    cluster.restart(victim).await;
    is_corrupt(&cluster, victim).await;
    // The others go on.
    let (leader, _) = cluster.leader().await;
    assert_ne!(leader, victim);
    cluster.put(leader, "k2", "v").await.unwrap();
    // A restart alone does not make it sound.
    cluster.kill(victim);
    cluster.restart(victim).await;
    is_corrupt(&cluster, victim).await;
    cluster.kill(victim);
    let restored =
        until("rebuilt", async || match crate::rebuild(&cluster.options(victim)).await {
            Ok(restored) => Some(restored),
            Err(error) => {
                eprintln!("{error}");
                None
            }
        })
        .await;
    assert!(restored.index > 0);
    cluster.restart(victim).await;
    until("it serves again", async || {
        let read = RangeRequest::key("k2");
        let read = move |store: Arc<crate::RaftStore>| async move {
            store.range(read, Consistency::Linearizable).await
        };
        cluster.on(victim, read).await.ok().filter(|response| response.count == 1)
    })
    .await;
    cluster.equal_hashes().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_from_the_others_is_found_by_the_leader() {
    let mut cluster =
        Cluster::start(|options| options.check_every = Duration::from_millis(200)).await;
    let (leader, _) = cluster.leader().await;
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.equal_hashes().await;
    let victim = cluster.other_than(leader);
    cluster.kill(victim);
    tamper(&cluster, victim, "k").await;
    cluster.restart(victim).await;
    // The next change of the key tells.
    cluster.put(leader, "k", "w").await.unwrap();
    is_corrupt(&cluster, victim).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_not_handed_to_a_member_with_wrong_data() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let others = (0..3).filter(|i| *i != leader);
    // Of two that are equally far ahead the one with the greater id is taken.
    let corrupt = others.max_by_key(|i| cluster.store(*i).id()).unwrap();
    let id = cluster.store(corrupt).id();
    let alarm = quorate_store::Alarm { member: id, kind: AlarmKind::Corrupt.into() };
    let raised = cluster.on(leader, move |store| async move { store.set_alarm(alarm, true).await });
    raised.await.unwrap();
    until("it knows", async || {
        cluster
            .store(corrupt)
            .state
            .corrupt
            .load(std::sync::atomic::Ordering::Relaxed)
            .then_some(())
    })
    .await;
    let to_it = cluster
        .on(leader, move |store| async move { store.transfer_leadership(Some(id)).await })
        .await;
    assert!(matches!(to_it, Err(StoreError::Membership(_))), "{to_it:?}");
    let hand_over = |store: Arc<crate::RaftStore>| async move { store.hand_over().await };
    until("it is handed over", async || cluster.on(leader, hand_over).await.ok()).await;
    let new = until("another leader", async || {
        let (new, _) = cluster.leader().await;
        (new != leader).then_some(new)
    })
    .await;
    assert_ne!(new, corrupt);
    cluster.stop().await;
}
