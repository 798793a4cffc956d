//! Leases, members, snapshots: what the store does beyond reading and writing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use quorate_store::{
    Alarm, AlarmKind, LeaseId, MemberId, NewMember, Op, PutRequest, Store, StoreError, TxnRequest,
};

use crate::admission::FORM_WAIT;
use crate::cluster_test::{Cluster, Node, PATIENCE, free_address, until};
use crate::{AutoCompaction, InitialMember, RaftStoreError};

async fn put_leased(cluster: &Cluster, i: usize, key: &'static str, lease: LeaseId) {
    let put = PutRequest { key: key.into(), lease, ..PutRequest::default() };
    let txn = TxnRequest { success: vec![Op::Put(put).into()], ..TxnRequest::default() };
    cluster.on(i, |store| async move { store.txn(txn).await }).await.unwrap();
}

/// On all members: any of them may be asked by one that has lost its disk.
async fn all_have_registered(cluster: &Cluster) {
    until("all have registered", async || {
        let known = |i| cluster.store(i).state.machine.instances().unwrap().len();
        (0..3).all(|i| known(i) == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_by_the_leader_and_get_their_time_again_after_it() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let asked = cluster.other_than(leader);
    let granted =
        cluster.on(asked, |store| async move { store.lease_grant(0, 1).await }).await.unwrap();
    assert!(granted.id > 0 && granted.ttl_seconds > 1, "raised to what makes sense: {granted:?}");
    let id = granted.id;
    put_leased(&cluster, asked, "short", id).await;
    let long =
        cluster.on(asked, |store| async move { store.lease_grant(77, 3600).await }).await.unwrap();
    assert_eq!((long.id, long.ttl_seconds), (77, 3600));
    put_leased(&cluster, leader, "long", 77).await;
    for i in 0..3 {
        let (ttl, info, all) = cluster
            .on(i, |store| async move {
                let ttl = store.lease_keep_alive(77).await.unwrap();
                let info = store.lease_time_to_live(77, true).await.unwrap().unwrap();
                (ttl, info, store.leases().await.unwrap())
            })
            .await;
        assert_eq!((ttl, info.granted_ttl, info.keys.len()), (3600, 3600, 1));
        assert!(info.ttl > 3500 && all.contains(&77), "{info:?} {all:?}");
    }
    until("the lease has ended", async || {
        cluster.get(asked, "short").await.is_none().then_some(())
    })
    .await;
    let gone = move |store: std::sync::Arc<crate::RaftStore>| async move {
        (store.lease_keep_alive(id).await, store.lease_time_to_live(id, false).await)
    };
    assert_eq!(cluster.on(asked, gone).await, (Ok(0), Ok(None)));
    // A new leader does not know what was left, so it gives everything.
    cluster.kill(leader);
    let (new, _) = cluster.leader().await;
    let info =
        cluster.on(new, |store| async move { store.lease_time_to_live(77, true).await }).await;
    assert!(info.unwrap().unwrap().ttl > 3590);
    assert_eq!(cluster.get(new, "long").await.as_deref(), Some(""));
    let revoked = cluster.on(new, |store| async move { store.lease_revoke(77).await }).await;
    revoked.unwrap();
    assert_eq!(cluster.get(new, "long").await, None);
    cluster.restart(leader).await;
    cluster.equal_hashes().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::start(|options| options.join = options.name == "m4").await;
    let (leader, _) = cluster.leader().await;
    cluster.put(0, "k", "v").await.unwrap();
    let new = InitialMember {
        name: "m4".into(),
        peer_url: format!("http://{}", free_address()),
        client_url: "http://client-4".into(),
    };
    let request = NewMember {
        name: new.name.clone(),
        peer_url: new.peer_url.clone(),
        client_url: new.client_url.clone(),
        learner: false,
    };
    let asked = cluster.other_than(leader);
    let again = request.clone();
    let added =
        cluster.on(asked, |store| async move { store.member_add(request).await }).await.unwrap();
    assert!(added.learner && added.id > 1000, "{added:?}");
    let refused = cluster.on(asked, |store| async move { store.member_add(again).await }).await;
    assert!(matches!(refused, Err(StoreError::MemberExists(_))), "{refused:?}");
    // A member that has not started costs no quorum: it has no vote.
    cluster.put(asked, "k", "w").await.unwrap();
    cluster.members.push(new);
    cluster.nodes.push(Node { runtime: None, store: None });
    cluster.restart(3).await;
    assert_eq!(cluster.store(3).id(), added.id);
    until("it has a vote", async || {
        let members = cluster.store(leader).status().members;
        members.iter().any(|m| m.member.id == added.id && !m.member.learner).then_some(())
    })
    .await;
    assert_eq!(cluster.get(3, "k").await.as_deref(), Some("w"));
    // The leader itself goes: it hands over first.
    let gone = cluster.store(leader).id();
    let other = cluster.alive().into_iter().find(|i| *i != leader).unwrap();
    cluster.on(other, move |store| async move { store.member_remove(gone).await }).await.unwrap();
    let unknown = cluster.on(other, |store| async move { store.member_remove(4242).await }).await;
    assert_eq!(unknown, Err(StoreError::MemberNotFound(4242)));
    let reason = tokio::time::timeout(PATIENCE, cluster.store(leader).fatal()).await.unwrap();
    assert!(reason.contains("was removed"), "{reason}");
    cluster.kill(leader);
    cluster.put(3, "k", "x").await.unwrap();
    assert_eq!(cluster.store(3).status().members.len(), 3);
    cluster.equal_hashes().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_is_needed_is_not_removed() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let dead = cluster.other_than(leader);
    let alive = cluster.alive().into_iter().find(|i| *i != leader && *i != dead).unwrap();
    let id = cluster.store(alive).id();
    // One that is about to end counts no more.
    cluster.store(dead).announce_end();
    let refused =
        cluster.on(leader, move |store| async move { store.member_remove(id).await }).await;
    assert!(matches!(refused, Err(StoreError::Membership(_))), "{refused:?}");
    cluster.kill(dead);
    // At once: the leader has heard the dead one a moment ago.
    let refused =
        cluster.on(leader, move |store| async move { store.member_remove(id).await }).await;
    assert!(matches!(refused, Err(StoreError::Membership(_))), "{refused:?}");
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_is_refused() {
    let mut cluster = Cluster::start(|_| {}).await;
    cluster.leader().await;
    all_have_registered(&cluster).await;
    cluster.equal_hashes().await;
    // The first one would form the cluster anew, the last one would vote.
    for i in [0, 2] {
        cluster.kill(i);
        until("the directory is gone", async || {
            let _ = std::fs::remove_dir_all(cluster.data_dir(i));
            (!cluster.data_dir(i).exists()).then_some(())
        })
        .await;
        cluster.restart(i).await;
        let reason = tokio::time::timeout(PATIENCE, cluster.store(i).fatal()).await.unwrap();
        assert!(reason.contains("its data was lost"), "{reason}");
        assert_eq!(cluster.store(i).raft_metrics().last_log_index, None, "it took no part");
        cluster.kill(i);
        // The others are not disturbed; the next one needs all that are left. (The first may have
        // led: then they still have to notice.)
        if i == 0 {
            until("a write of the others", async || cluster.put(1, "k", "v").await.ok()).await;
        }
    }
    cluster.kill(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_member_does_not_begin_anew_when_nobody_can_tell_it_of_the_cluster() {
    let mut cluster = Cluster::start(|_| {}).await;
    cluster.leader().await;
    cluster.put(0, "k", "v").await.unwrap();
    all_have_registered(&cluster).await;
    cluster.equal_hashes().await;
    (0..3).for_each(|i| cluster.kill(i));
    until("the directory is gone", async || {
        let _ = std::fs::remove_dir_all(cluster.data_dir(0));
        (!cluster.data_dir(0).exists()).then_some(())
    })
    .await;
    cluster.restart(0).await;
    // However long it hears nobody.
    tokio::time::sleep(FORM_WAIT + Duration::from_secs(1)).await;
    assert!(!*cluster.store(0).admitted.borrow(), "it votes");
    assert_eq!(cluster.store(0).raft_metrics().current_term, 0);
    cluster.restart(1).await;
    cluster.restart(2).await;
    let reason = tokio::time::timeout(PATIENCE, cluster.store(0).fatal()).await.unwrap();
    assert!(reason.contains("its data was lost"), "{reason}");
    cluster.kill(0);
    until("the others go on", async || cluster.put(1, "k", "w").await.ok()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_file_makes_a_new_cluster() {
    let cluster = Cluster::start(|_| {}).await;
    cluster.leader().await;
    for n in 0..200 {
        cluster.put(n % 3, &format!("k{n}"), "v").await.unwrap();
    }
    let granted = cluster.on(0, |store| async move { store.lease_grant(7, 3600).await }).await;
    granted.unwrap();
    put_leased(&cluster, 0, "leased", 7).await;
    let (revision, image) = cluster
        .on(1, |store| async move {
            store.read_revision().await.unwrap();
            let mut snapshot = store.snapshot().await.unwrap();
            let mut image = Vec::new();
            while let Some(chunk) = snapshot.chunks.recv().await {
                image.extend_from_slice(&chunk.unwrap());
            }
            (snapshot.revision, image)
        })
        .await;
    let mut new = Cluster::empty("http", |options| options.cluster_id = "restored".into());
    let file = new.dir.path().join("snapshot");
    std::fs::write(&file, &image).unwrap();
    assert_eq!(crate::verify(&file).unwrap().revision, revision);
    let damaged = new.dir.path().join("damaged");
    let mut bytes = image.clone();
    bytes[image.len() / 2] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    // A damaged file leaves the directory free for the next try.
    crate::restore(&damaged, &new.options(0), false).await.unwrap_err();
    let error = crate::verify(&damaged).unwrap_err();
    assert!(matches!(error, RaftStoreError::Damaged { .. }), "{error}");
    for i in 0..3 {
        let restored = crate::restore(&file, &new.options(i), false).await.unwrap();
        assert_eq!(restored.revision, revision);
        let error = crate::restore(&file, &new.options(i), false).await.unwrap_err();
        assert!(matches!(error, RaftStoreError::Options(_)), "{error}");
    }
    for i in 0..3 {
        new.restart(i).await;
    }
    new.leader().await;
    assert_eq!(new.get(2, "k199").await.as_deref(), Some("v"));
    assert!(new.put(1, "after", "v").await.unwrap() > revision);
    new.on(0, |store| async move { store.lease_revoke(7).await }).await.unwrap();
    assert_eq!(new.get(0, "leased").await, None);
    new.equal_hashes().await;
    cluster.stop().await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_by_itself() {
    let cluster =
        Cluster::start(|options| options.auto_compaction = AutoCompaction::Revisions(50)).await;
    cluster.leader().await;
    let mut last = 0;
    for _ in 0..100 {
        last = cluster.put(1, "k", "v").await.unwrap();
    }
    // Without another write it is done, too: so far that no more is due, and the same everywhere.
    until("the old records are gone", async || {
        let done = |i| {
            let store = cluster.store(i);
            let status = store.status();
            // More than the 50, but for up to five nothing is done.
            let far = status.compact_revision + 50 + 5 >= last;
            status.revision == last && far && !store.state.machine.compacting()
        };
        (0..3).all(done).then_some(())
    })
    .await;
    let hashes: Vec<_> = {
        let mut hashes = Vec::new();
        for i in 0..3 {
            hashes.push(cluster.on(i, |store| async move { store.hash_kv(0).await }).await);
        }
        hashes
    };
    assert!(hashes.iter().all(|hash| hash == &hashes[0] && hash.is_ok()), "{hashes:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_budget_refuses_puts_and_recovers() {
    let cluster = Cluster::start(|options| {
        options.size_budget = 4 << 20;
        options.auto_compaction = AutoCompaction::Off;
        options.disk_reserve = 0;
    })
    .await;
    cluster.leader().await;
    let value = "x".repeat(64 << 10);
    let refused = until("no space", async || cluster.put(1, "big", &value).await.err()).await;
    assert!(matches!(refused, StoreError::NoSpace(_)), "{refused}");
    until("the alarm is seen everywhere", async || {
        (0..3).all(|i| !cluster.store(i).status().alarms.is_empty()).then_some(())
    })
    .await;
    let delete = TxnRequest::delete(quorate_store::KeyRange::single("big"));
    let revision =
        cluster.on(2, |store| async move { store.txn(delete).await }).await.unwrap().revision;
    let compact = move |store: std::sync::Arc<crate::RaftStore>| async move {
        store.compact(revision, true).await
    };
    tokio::time::timeout(PATIENCE, cluster.on(1, compact)).await.unwrap().unwrap();
    until("there is space again", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.put(1, "small", "v").await.ok()
    })
    .await;
    cluster.stop().await;
}

fn full(member: MemberId) -> Alarm {
    Alarm { member, kind: AlarmKind::NoSpace.into() }
}

async fn raise(cluster: &Cluster, on: usize, alarm: Alarm) {
    cluster.on(on, move |store| async move { store.set_alarm(alarm, true).await }).await.unwrap();
}

async fn no_alarm(cluster: &Cluster, on: usize) {
    until("the alarm is lifted", async || {
        cluster.store(on).status().alarms.is_empty().then_some(())
    })
    .await;
    cluster.put(on, "k", "v").await.unwrap();
}

/// Who fills a disk often dies of it before there is space again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_an_earlier_life_has_raised_is_lifted() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let member = cluster.store(cluster.other_than(leader)).id();
    // The member may lift it before anybody has looked.
    until("the alarm is on", async || {
        raise(&cluster, leader, full(member)).await;
        cluster.store(leader).status().alarms.contains(&full(member)).then_some(())
    })
    .await;
    no_alarm(&cluster, leader).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_alarm_of_a_removed_member_is_lifted() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let gone = cluster.other_than(leader);
    let member = cluster.store(gone).id();
    cluster.kill(gone);
    let (leader, _) = cluster.leader().await;
    // As long as it is not quite dead it lifts it.
    until("nothing is taken", async || {
        raise(&cluster, leader, full(member)).await;
        cluster.put(leader, "k", "v").await.err()
    })
    .await;
    cluster
        .on(leader, move |store| async move { store.member_remove(member).await })
        .await
        .unwrap();
    no_alarm(&cluster, leader).await;
    cluster.stop().await;
}

/// The caller gives up, or the leader dies, when the first of its two steps is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_abandoned_half_way_is_finished() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let removed = cluster.store(cluster.other_than(leader)).id();
    let configurations = |i: usize| {
        let metrics = cluster.store(i).raft_metrics();
        metrics.membership_config.membership().get_joint_config().clone()
    };
    let change = cluster.on(leader, move |store| async move {
        let joint = async {
            let mut metrics = store.raft.server_metrics();
            loop {
                let now = metrics.borrow_and_update().membership_config.clone();
                if now.membership().get_joint_config().len() > 1 {
                    return;
                }
                metrics.changed().await.unwrap();
            }
        };
        tokio::select! {
            biased;
            () = joint => true,
            _ = store.raft.change_membership(
                openraft::ChangeMembers::RemoveVoters([removed].into()), false,
            ) => false,
        }
    });
    assert!(change.await, "the change was not caught half way");
    // These figures are told later than those above: a moment long there may be the old set alone.
    until("one set of voters without the removed one", async || {
        match configurations(leader).as_slice() {
            [voters] => (!voters.contains(&removed)).then_some(()),
            _ => None,
        }
    })
    .await;
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_told_to_end_is_not_counted_on() {
    let cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    let other = cluster.store(cluster.other_than(leader)).id();
    cluster.store(leader).announce_end();
    let removed = cluster.on(leader, move |store| async move { store.member_remove(other).await });
    let refused = removed.await;
    assert!(matches!(refused, Err(StoreError::Membership(_))), "{refused:?}");
    cluster.put(leader, "k", "v").await.unwrap();
    cluster.stop().await;
}
