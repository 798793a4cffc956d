//! What becomes of writes: planned changes of the leader, overload, transactions that only read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_store::{
    Command, CommandResult, Compare, CompareResult, CompareTarget, KeyRange, Op, OpResult,
    PutRequest, RangeRequest, Role, Store, StoreError, TxnRequest,
};

use super::RaftStore;
use super::cluster_test::{Cluster, PATIENCE, until};
use crate::forward::Refusal;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_fences_the_old_leader() {
    let cluster = Cluster::start(|_| {}).await;
    let (old, old_term) = cluster.leader().await;
    let fenced = |term| {
        let mut command = Command::from(TxnRequest::put("k", "v"));
        command.fence = term;
        command
    };
    let command = fenced(old_term);
    cluster.on(old, |store| async move { store.propose(command).await }).await.unwrap();
    cluster.equal_hashes().await;
    let target = cluster.other_than(old);
    let to = cluster.store(target).id();
    cluster
        .on(old, move |store| async move { store.transfer_leadership(Some(to)).await })
        .await
        .unwrap();
    let (new, new_term) = until("the new leader", async || {
        let (leader, term) = cluster.leader().await;
        (term > old_term).then_some((leader, term))
    })
    .await;
    assert_eq!(new, target);
    let command = fenced(old_term);
    let error =
        cluster.on(old, |store| async move { store.propose(command).await }).await.unwrap_err();
    assert_eq!(error, StoreError::Fenced(new_term));
    until("the old leader knows", async || {
        cluster.store(old).leadership().borrow().ready.is_none().then_some(())
    })
    .await;
    cluster.stop().await;
}

/// Role, term and leader of a status are of one look, at any moment of a change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_itself_the_leader_is_the_leader_of_its_term() {
    let cluster = Cluster::start(|_| {}).await;
    let (old, old_term) = cluster.leader().await;
    let to = cluster.store(cluster.other_than(old)).id();
    // Without a pause: the moments in question are short.
    let looks = cluster.alive().into_iter().map(|member| {
        let store = cluster.store(member);
        let deadline = Instant::now() + PATIENCE;
        tokio::task::spawn_blocking(move || {
            loop {
                let status = store.status();
                let leads = status.leadership.leader.as_ref().is_some_and(|m| m.id == status.id);
                assert_eq!(status.role == Role::Leader, leads, "{status:?}");
                if status.leadership.term > old_term && status.leadership.leader.is_some() {
                    return;
                }
                assert!(Instant::now() < deadline, "no new leader: {status:?}");
            }
        })
    });
    let looks: Vec<_> = looks.collect();
    let transfer = cluster.on(old, move |s| async move { s.transfer_leadership(Some(to)).await });
    transfer.await.unwrap();
    for look in looks {
        look.await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_shutdown_hands_over_first() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (leader, term) = cluster.leader().await;
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.on(leader, |store| async move { store.shutdown().await }).await;
    let (new, new_term) = {
        cluster.kill(leader);
        cluster.leader().await
    };
    assert!(new != leader && new_term > term);
    cluster.put(new, "k", "w").await.unwrap();
    cluster.restart(leader).await;
    assert_eq!(cluster.get(leader, "k").await.as_deref(), Some("w"));
    cluster.stop().await;
}

/// A follower that does not know the new leader yet still sends its writes to the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_after_the_end_is_known_not_to_be_done() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let late = |store: Arc<RaftStore>| async move {
        let request = together([TxnRequest::put("late", "v").into()]);
        store.forwarded.handle(request).await.results[0].outcome()
    };
    assert_eq!(cluster.on(leader, late).await, pb::forward_result::Outcome::Applied);
    cluster.on(leader, |store| async move { store.shutdown().await }).await;
    assert_eq!(cluster.on(leader, late).await, pb::forward_result::Outcome::NotLeader);
    cluster.stop().await;
}

/// Commands, passed on together as by a follower.
fn together(commands: impl IntoIterator<Item = Command>) -> pb::ForwardRequest {
    let commands = commands.into_iter().map(|command| command.encode_to_vec().into());
    pb::ForwardRequest { commands: commands.collect(), timeout_ms: 10_000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_together_is_one_entry_and_each_has_its_own_outcome() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let put = |key: &'static str, lease: i64| {
        let put = PutRequest { key: key.into(), lease, ..PutRequest::default() };
        let success = vec![Op::Put(put).into()];
        Command::from(TxnRequest { success, ..TxnRequest::default() })
    };
    // There is no such lease.
    let commands = [put("a", 0), put("b", 4711), put("c", 0), put("a", 0)];
    let handle = |store: Arc<RaftStore>| async move {
        let reply = store.forwarded.handle(together(commands)).await;
        let decode = |result: pb::ForwardResult| {
            assert_eq!(result.outcome(), pb::forward_result::Outcome::Applied);
            (CommandResult::decode(result.result).unwrap(), result.index)
        };
        reply.results.into_iter().map(decode).collect::<Vec<_>>()
    };
    let results = cluster.on(leader, handle).await;
    let first = results[0].0.revision;
    let seen: Vec<_> = results
        .iter()
        .map(|(result, _)| (result.revision - first, result.rejection.is_some()))
        .collect();
    assert_eq!(seen, [(0, false), (0, true), (1, false), (2, false)]);
    assert!(results.iter().all(|(_, index)| *index == results[0].1), "{results:?}");
    assert_eq!(cluster.get(cluster.other_than(leader), "c").await.as_deref(), Some(""));
    assert_eq!(cluster.get(leader, "b").await, None);
    cluster.equal_hashes().await;
    cluster.stop().await;
}

/// Two entries are on their way, and raft does nothing: what waits behind them has never been
/// proposed, and that can be said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_never_proposed_is_known_not_to_be_done() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    cluster.put(leader, "k", "before").await.unwrap();
    let stalled = stall(&cluster, leader);
    let propose = |store: Arc<RaftStore>| async move {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(50);
        let write = |key: &str| {
            let command = Command::from(TxnRequest::put(key.to_owned(), "v"));
            store.forwarded.propose(command.encode_to_vec().into(), deadline)
        };
        tokio::join!(write("a"), write("b"), write("c"))
    };
    let (a, b, c) = cluster.on(leader, propose).await;
    drop(stalled);
    assert!(matches!(a, Err(Refusal::Unknown(_))), "{a:?}");
    assert!(matches!(b, Err(Refusal::Unknown(_))), "{b:?}");
    assert!(matches!(c, Err(Refusal::NotLeader)), "{c:?}");
    cluster.put(leader, "k", "after").await.unwrap();
    assert_eq!(cluster.get(leader, "c").await, None);
    cluster.equal_hashes().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_change_of_the_leader_fails_no_write() {
    // However slow the disk is, what is in flight is waited for.
    let cluster = Cluster::start(|options| {
        (options.drain, options.last_words) = (Duration::from_secs(5), Duration::from_secs(5));
    })
    .await;
    cluster.leader().await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let store = cluster.store(writer % 3);
            cluster.nodes[writer % 3].runtime.as_ref().unwrap().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let put = TxnRequest::put(format!("w{writer}"), "v");
                    store.propose(put.into()).await.unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let before = written.load(Ordering::Relaxed);
        until("writes", async || (written.load(Ordering::Relaxed) > before + 100).then_some(()))
            .await;
        let (leader, _) = cluster.leader().await;
        let hand_over = |store: Arc<RaftStore>| async move { store.hand_over().await };
        until("handed over", async || cluster.on(leader, hand_over).await.ok()).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no write fails");
    }
    cluster.equal_hashes().await;
    cluster.stop().await;
}

/// Raft does nothing on this member until the sender is dropped. Its connections live, so that nobody
/// learns from them that its answers will not come.
fn stall(cluster: &Cluster, i: usize) -> std::sync::mpsc::Sender<()> {
    let (stalled, until_then) = std::sync::mpsc::channel::<()>();
    let raft = cluster.store(i).raft.clone();
    cluster.nodes[i].runtime.as_ref().unwrap().spawn(async move {
        raft.with_raft_state(move |_| until_then.recv().unwrap_err()).await.unwrap();
    });
    stalled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_leader_that_is_silent_when_another_leads() {
    // Longer than this test waits: nothing may need it.
    let cluster = Cluster::start(|options| options.request_timeout = PATIENCE * 3).await;
    let (silent, _) = cluster.leader().await;
    cluster.put(silent, "k", "before").await.unwrap();
    let others: Vec<_> = (0..3).filter(|i| *i != silent).collect();
    let stalled = stall(&cluster, silent);
    // More than are passed on at once.
    let calls: Vec<_> = others
        .iter()
        .flat_map(|i| std::iter::repeat_n(*i, 40))
        .map(|i| {
            let (writes, reads) = (cluster.store(i), cluster.store(i));
            let runtime = cluster.nodes[i].runtime.as_ref().unwrap();
            let write = async move { writes.propose(TxnRequest::put("k", "v").into()).await };
            (runtime.spawn(write), runtime.spawn(async move { reads.read_revision().await }))
        })
        .collect();
    until("another leader", async || {
        let ready = |i: &usize| cluster.store(*i).leadership().borrow().ready.is_some();
        others.iter().any(ready).then_some(())
    })
    .await;
    for (write, read) in calls {
        let write = tokio::time::timeout(PATIENCE, write).await.expect("a write is stuck");
        assert!(matches!(write.unwrap(), Ok(_) | Err(StoreError::OutcomeUnknown(_))));
        let read = tokio::time::timeout(PATIENCE, read).await.expect("a read is stuck");
        read.unwrap().unwrap();
    }
    for i in others {
        cluster.put(i, "k", "after").await.unwrap();
    }
    drop(stalled);
    cluster.equal_hashes().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_and_later_it_works_again() {
    let cluster = Cluster::start(|options| options.max_in_flight = 4).await;
    let (leader, _) = cluster.leader().await;
    let (mut done, mut refused) = (0, 0);
    // At the leader and at a follower, each of which has a limit of its own.
    for at in [leader, cluster.other_than(leader)] {
        let writes: Vec<_> = (0..64)
            .map(|n| {
                let store = cluster.store(at);
                let put = TxnRequest::put(format!("k{n}"), "v");
                let write = async move { store.propose(put.into()).await };
                cluster.nodes[at].runtime.as_ref().unwrap().spawn(write)
            })
            .collect();
        for write in writes {
            match write.await.unwrap() {
                Ok(_) => done += 1,
                Err(StoreError::Overloaded(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        cluster.put(at, "k", "w").await.expect("when the others are done there is room again");
    }
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_only_reads_is_fresh_and_enters_no_log() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    // What the members themselves write at their start is one registration each.
    until("all members have registered", async || {
        (cluster.store(leader).state.machine.instances().unwrap().len() == 3).then_some(())
    })
    .await;
    // A new leader writes an entry of its own.
    until("rounds within one term", async || {
        let (leader, term) = cluster.leader().await;
        cluster.put(leader, "k", "before").await.unwrap();
        let before = cluster.store(leader).state.next_index();
        for round in 0..20 {
            let value = round.to_string();
            cluster.put(leader, "k", &value).await.unwrap();
            reads_fresh(&cluster, cluster.other_than(leader), value).await;
        }
        cluster.put(leader, "k", "after").await.unwrap();
        let after = cluster.store(leader).state.next_index();
        (cluster.leader().await == (leader, term)).then(|| {
            assert_eq!(after, before + 21, "21 puts, and nothing else");
        })
    })
    .await;
    cluster.stop().await;
}

/// Reads `k` on `i` in a transaction whose condition is that it has this value.
async fn reads_fresh(cluster: &Cluster, i: usize, value: String) {
    let compare = Compare {
        range: KeyRange::single("k"),
        result: CompareResult::Equal.into(),
        target: Some(CompareTarget::Value(value.clone().into())),
    };
    let request = TxnRequest {
        compare: vec![compare],
        success: vec![Op::Range(RangeRequest::key("k")).into()],
        failure: Vec::new(),
    };
    let done = cluster.on(i, |store| async move { store.txn(request).await }).await.unwrap();
    assert!(done.succeeded, "a stale state in round {value}");
    let Some(OpResult::Range(range)) = &done.responses[0].result else { panic!("{done:?}") };
    assert_eq!(range.kvs[0].value, value);
}

/// It would stop every member, and at every start again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_nobody_could_decode_never_enters_the_log() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let deep = (0..50).fold(TxnRequest::put("k", "v"), |inner, _| TxnRequest {
        success: vec![Op::Txn(inner).into()],
        ..TxnRequest::default()
    });
    let refused = cluster.on(leader, move |store| async move { store.propose(deep.into()).await });
    let refused = refused.await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    cluster.put(leader, "k", "w").await.unwrap();
    cluster.equal_hashes().await;
    cluster.stop().await;
}

/// A pause holds everything that could be acquired until it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_ends_is_not_taken_for_overload() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let store = cluster.store(leader);
    let stop = Arc::new(AtomicBool::new(false));
    let (pauses, until_then) = (Arc::clone(&store), Arc::clone(&stop));
    let pausing = tokio::spawn(async move {
        for _ in 0..20_000 {
            drop(pauses.forwarded.pause().await);
        }
        until_then.store(true, Ordering::Relaxed);
    });
    let admitting = tokio::task::spawn_blocking(move || {
        while !stop.load(Ordering::Relaxed) {
            let refused = store.forwarded.admit(1).err();
            let overloaded = matches!(refused, Some(Refusal::Overloaded(_)));
            assert!(!overloaded, "{refused:?}");
        }
    });
    admitting.await.unwrap();
    pausing.await.unwrap();
    cluster.stop().await;
}
