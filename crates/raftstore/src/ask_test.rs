//! Questions to the other members' memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_store::{MemberId, Store as _};

use super::cluster_test::{Cluster, PATIENCE, until};

/// What `i` hears when it asks.
async fn asked(cluster: &Cluster, i: usize, patience: Duration) -> Vec<(MemberId, Bytes)> {
    let ask = async move |store: Arc<super::RaftStore>| {
        store.ask_members(Bytes::from_static(b"who"), patience).await
    };
    let mut answers = cluster.on(i, ask).await;
    answers.sort();
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_members_answer_from_memory_and_without_a_quorum() {
    let mut cluster = Cluster::start(|_| {}).await;
    let (leader, _) = cluster.leader().await;
    assert!(asked(&cluster, leader, PATIENCE).await.is_empty(), "nobody has said how to answer");
    let say = |i: usize| format!("who? {i}");
    for i in 0..3 {
        let answer = move |question: Bytes| format!("{}? {i}", str::from_utf8(&question).unwrap());
        cluster.store(i).answer_members(Arc::new(move |question| answer(question).into()));
    }
    let others = (0..3).filter(|i| *i != leader);
    let expected = others.map(|i| (cluster.store(i).id(), Bytes::from(say(i))));
    let expected: Vec<_> = expected.collect();
    // Whoever could not be reached in time is left out.
    let both = async || Some(asked(&cluster, leader, PATIENCE).await).filter(|all| all.len() == 2);
    assert_eq!(until("both have answered", both).await, expected);

    // Without a quorum, and with one that is gone: its silence costs no more than the patience.
    let left = (0..3).find(|i| *i != leader).unwrap();
    let dead = (0..3).find(|i| *i != leader && *i != left).unwrap();
    let left_id = cluster.store(left).id();
    cluster.kill(dead);
    until("one answer is left", async || {
        let begin = Instant::now();
        let answers = asked(&cluster, leader, Duration::from_millis(500)).await;
        assert!(begin.elapsed() < PATIENCE);
        (answers == [(left_id, Bytes::from(say(left)))]).then_some(())
    })
    .await;
    cluster.kill(left);
    until("nobody is left", async || {
        asked(&cluster, leader, Duration::from_millis(500)).await.is_empty().then_some(())
    })
    .await;
    cluster.stop().await;
}
