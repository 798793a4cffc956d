#![allow(clippy::unwrap_used)]

use quorate_store::{
    Alarm, AlarmKind, AlarmRequest, Compare, KeyRange, MemoryStore, PutRequest, RangeRequest, Store,
};

use super::*;

fn put(key: &'static str, at: u64) -> TxnRequest {
    let put = PutRequest { key: key.into(), value: "x".into(), ..PutRequest::default() };
    TxnRequest {
        compare: vec![Compare::mod_revision(key, at)],
        success: vec![quorate_store::Op::Put(put).into()],
        failure: vec![quorate_store::Op::Range(RangeRequest::key(key)).into()],
    }
}

fn proposer() -> (Arc<MemoryStore>, Proposer) {
    let store = MemoryStore::new();
    (Arc::clone(&store), Proposer::new(store, Duration::from_secs(5)))
}

#[tokio::test]
async fn what_waits_together_is_one_command_and_each_has_its_own_revision_and_outcome() {
    let (store, proposer) = proposer();
    let before = store.status().last_index;
    let txns = [put("a", 0), put("b", 0), put("a", 0), put("c", 0), put("a", 2)];
    let answers = join_all(txns.into_iter().map(|txn| proposer.propose(txn, None))).await;
    let came: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let seen: Vec<_> = came.iter().map(|answer| (answer.succeeded, answer.revision)).collect();
    assert_eq!(seen, [(true, 2), (true, 3), (false, 3), (true, 4), (true, 5)]);
    assert_eq!(store.status().last_index, before + 1);
    let Some(OpResult::Range(found)) = &came[2].responses[0].result else { panic!("{came:?}") };
    assert_eq!(found.kvs[0].mod_revision, 2, "the one that was first");
}

#[tokio::test]
async fn one_that_is_refused_is_no_harm_to_the_others() {
    let (store, proposer) = proposer();
    proposer.propose(put("old", 0), None).await.unwrap();
    let alarm = Alarm { member: 1, kind: AlarmKind::NoSpace.into() };
    let full = CommandKind::Alarm(AlarmRequest { alarm, active: true });
    store.propose(full.into()).await.unwrap();
    let txns = [put("new", 0), TxnRequest::delete(KeyRange::single("old"))];
    let answers = join_all(txns.into_iter().map(|txn| proposer.propose(txn, None))).await;
    assert!(matches!(answers[0], Err(RegistryError::Unavailable { .. })), "{:?}", answers[0]);
    assert!(answers[1].as_ref().unwrap().succeeded);
}

/// Found by chaos: the answer of the leader was lost, and the master that had asked it had no
/// space left when it asked again. Its refusal sent the client to the next master, which found
/// the client's own object.
#[tokio::test]
async fn a_refusal_after_a_lost_answer_is_an_unknown_outcome() {
    for together in [1, 2] {
        let store = MemoryStore::new();
        let asked = Arc::new(Mutex::new(0));
        let (count, behind) = (Arc::clone(&asked), Arc::clone(&store));
        let carry_out = move |command| {
            let store = Arc::clone(&behind);
            *count.lock() += 1;
            let first = *count.lock() == 1;
            async move {
                if !first {
                    return Err(StoreError::NoSpace("the disk is used up".into()));
                }
                store.propose(command).await?;
                Err(StoreError::OutcomeUnknown("the leader went away".into()))
            }
            .boxed()
        };
        let proposer = Proposer::over(Arc::new(carry_out), Duration::from_secs(5));
        let keys = ["a", "b"].into_iter().take(together);
        let answers = join_all(keys.map(|key| proposer.propose(put(key, 0), None))).await;
        for answer in answers {
            assert!(matches!(answer, Err(RegistryError::OutcomeUnknown(_))), "{answer:?}");
        }
        assert_eq!(*asked.lock(), 2, "nothing is asked anew under another id");
    }
}

#[tokio::test]
async fn fences_count_for_those_that_have_them() {
    let (store, proposer) = proposer();
    store.set_term(5);
    let of = |key, fence| proposer.propose(put(key, 0), fence);
    let (a, b, c, d, e) = tokio::join!(
        of("a", None),
        of("b", Some(4)),
        of("c", None),
        of("d", Some(5)),
        of("e", Some(4))
    );
    assert!(a.is_ok() && c.is_ok() && d.is_ok());
    assert!(matches!(b, Err(RegistryError::Forbidden(_))), "{b:?}");
    assert!(matches!(e, Err(RegistryError::Forbidden(_))), "{e:?}");
}

#[tokio::test]
async fn more_than_one_command_holds_are_several() {
    let (store, proposer) = proposer();
    let before = store.status().last_index;
    let all = (0..2 * MAX_BATCH).map(|_| proposer.propose(put("a", 0), None));
    let answers = join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.as_ref().unwrap().succeeded).count(), 1);
    assert_eq!(store.status().last_index, before + 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_leader_that_has_gone_holds_nobody_up() {
    let store = MemoryStore::new();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    // The first ones are never answered.
    let carry_out = move |command| {
        let store = Arc::clone(&store);
        *count.lock() += 1;
        let hangs = *count.lock() <= IN_FLIGHT;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            store.propose(command).await
        }
        .boxed()
    };
    let proposer = Proposer::over(Arc::new(carry_out), Duration::from_secs(5));
    let mut hanging = Vec::new();
    for key in ["a", "b"] {
        let proposer = proposer.clone();
        hanging.push(tokio::spawn(async move { proposer.propose(put(key, 0), None).await }));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    let (c, d) =
        tokio::join!(proposer.propose(put("c", 0), None), proposer.propose(put("d", 0), None),);
    assert!(c.is_ok() && d.is_ok());
    assert!(start.elapsed() < 2 * STUCK, "{:?}", start.elapsed());
    assert_eq!(*asked.lock(), IN_FLIGHT + 1, "together");
    for hanging in hanging {
        let answer = hanging.await.unwrap();
        assert!(matches!(answer, Err(RegistryError::OutcomeUnknown(_))), "{answer:?}");
    }
}
