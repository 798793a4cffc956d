#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::backend::Direction;
use crate::command::{Command, CommandKind, CompactRequest};
use crate::machine::{Entry, StateMachine};
use crate::memory::MemoryBackend;
use crate::types::{DeleteRangeRequest, EventType, Op, PutRequest, Term, TxnRequest};
use crate::{Backend, Batch, Space, View};

type Machine = StateMachine<MemoryBackend>;

fn machine(ring: usize) -> Machine {
    StateMachine::open(Arc::new(MemoryBackend::default()), ring).unwrap()
}

fn entry(term: Term, command: impl Into<Command>) -> Entry {
    Entry { term, index: 0, command: Some(command.into()) }
}

fn apply(machine: &Machine, command: impl Into<Command>) -> Revision {
    let result = machine.apply(&[entry(1, command)], Vec::new()).unwrap().remove(0);
    assert_eq!(result.rejection, None);
    result.revision
}

fn put(machine: &Machine, key: &'static str) -> Revision {
    apply(machine, TxnRequest::put(key, "v"))
}

fn put_many(machine: &Machine, prefix: &str, count: usize) -> Revision {
    let op = |n| PutRequest { key: format!("{prefix}{n:03}").into(), ..PutRequest::default() };
    let success = (0..count).map(|n| Op::Put(op(n)).into()).collect();
    apply(machine, TxnRequest { success, ..TxnRequest::default() })
}

fn delete(machine: &Machine, key: &'static str) -> Revision {
    apply(machine, TxnRequest::delete(KeyRange::single(key)))
}

fn compact(machine: &Machine, revision: Revision) {
    let kind = Some(CommandKind::Compact(CompactRequest { revision }));
    apply(machine, Command { kind, ..Command::default() });
}

fn watch(machine: &Machine, range: KeyRange, from: Revision) -> Watcher {
    let request =
        WatchRequest { range, start_revision: from, prev_kv: true, ..WatchRequest::default() };
    machine.hub().watch(request).unwrap()
}

/// Everything that is there to read now; checks that batches hold whole revisions.
fn drain(watcher: &mut Watcher) -> Result<Vec<Event>, StoreError> {
    let mut all: Vec<Event> = Vec::new();
    while let Some(batch) = watcher.try_next()? {
        assert_eq!(batch.revision, watcher.progress());
        if let (Some(last), Some(first)) = (all.last(), batch.events.first()) {
            assert!(last.kv.mod_revision < first.kv.mod_revision, "a revision in two batches");
        }
        assert!(batch.events.iter().all(|event| event.kv.mod_revision <= batch.revision));
        all.extend(batch.events);
    }
    Ok(all)
}

fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|event| event.kv.mod_revision).collect()
}

#[tokio::test]
async fn a_waiting_watcher_is_woken() {
    let machine = Arc::new(machine(64));
    let mut watcher = watch(&machine, KeyRange::prefix("a"), 0);
    let waiting = tokio::spawn(async move { watcher.next().await });
    tokio::task::yield_now().await;
    let revision = put(&machine, "a1");
    let batch = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    let batch = batch.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (revision, 1));
}

#[test]
fn from_now_on_means_after_the_applied_revision() {
    let machine = machine(64);
    put(&machine, "a");
    let mut watcher = watch(&machine, KeyRange::all(), 0);
    assert_eq!(drain(&mut watcher).unwrap(), []);
    let revision = put(&machine, "a");
    assert_eq!(revisions(&drain(&mut watcher).unwrap()), [revision]);
}

#[test]
fn other_keys_are_progress_without_events() {
    let machine = machine(64);
    let mut watcher = watch(&machine, KeyRange::single("a"), 0);
    let revision = put(&machine, "b");
    let batch = watcher.try_next().unwrap().unwrap();
    assert_eq!((batch.revision, batch.events), (revision, vec![]));
    assert_eq!(watcher.try_next().unwrap(), None);
}

#[test]
fn ring_and_history_tell_the_same() {
    for ring in [0, 3, 1000] {
        let machine = machine(ring);
        put(&machine, "a");
        put_many(&machine, "m", 20);
        delete(&machine, "a");
        put(&machine, "a");
        let events = drain(&mut watch(&machine, KeyRange::all(), 1)).unwrap();
        assert_eq!(events.len(), 23, "ring of {ring}");
        let kinds: Vec<_> = events.iter().filter(|e| e.kv.key == "a").map(|e| e.kind).collect();
        assert_eq!(kinds, [EventType::Put, EventType::Delete, EventType::Put]);
        let deleted = &events[21];
        assert_eq!(deleted.prev_kv.as_ref().unwrap().mod_revision, 2);
        assert!(deleted.kv.value.is_empty() && deleted.kv.mod_revision == 4);
        assert_eq!(events[22].prev_kv, None);
    }
}

#[test]
fn a_slow_watcher_resyncs_from_history_and_misses_nothing() {
    let machine = machine(4);
    let mut watcher = watch(&machine, KeyRange::all(), 0);
    let mut expected = Vec::new();
    for _ in 0..100 {
        expected.push(put(&machine, "a"));
    }
    assert_eq!(revisions(&drain(&mut watcher).unwrap()), expected);
}

#[test]
fn large_revisions_are_never_split() {
    for ring in [0, 4096] {
        let machine = machine(ring);
        for _ in 0..40 {
            put_many(&machine, "k", 100);
        }
        let mut watcher = watch(&machine, KeyRange::all(), 2);
        let mut batches = 0;
        let mut events = 0;
        while let Some(batch) = watcher.try_next().unwrap() {
            assert_eq!(batch.events.len() % 100, 0);
            events += batch.events.len();
            batches += 1;
        }
        assert_eq!(events, 4000);
        assert!(batches > 4, "batches are bounded");
    }
}

#[test]
fn quiet_history_is_walked_in_bounded_steps() {
    let machine = machine(0);
    for _ in 0..50 {
        put_many(&machine, "noise", 100);
    }
    let last = put(&machine, "a");
    let mut watcher = watch(&machine, KeyRange::single("a"), 2);
    let first = watcher.try_next().unwrap().unwrap();
    assert!(first.events.is_empty() && first.revision < last);
    assert_eq!(revisions(&drain(&mut watcher).unwrap()), [last]);
}

#[test]
fn compacted_history_is_an_error_never_a_gap() {
    let machine = machine(2);
    let mut slow = watch(&machine, KeyRange::all(), 0);
    for _ in 0..10 {
        put(&machine, "a");
    }
    compact(&machine, 8);
    assert_eq!(drain(&mut slow), Err(StoreError::Compacted(8)));
    let late =
        WatchRequest { range: KeyRange::all(), start_revision: 7, ..WatchRequest::default() };
    assert_eq!(machine.hub().watch(late).err(), Some(StoreError::Compacted(8)));
}

#[test]
fn a_delete_at_the_compaction_revision_is_not_lost() {
    // etcd #18089 and #19179.
    for ring in [0, 64] {
        let machine = machine(ring);
        put(&machine, "a");
        put(&machine, "b");
        let deleted = delete(&machine, "a");
        compact(&machine, deleted);
        let events = drain(&mut watch(&machine, KeyRange::all(), deleted)).unwrap();
        assert_eq!(revisions(&events), [deleted], "from the compaction revision itself");
        let next = delete(&machine, "b");
        let events = drain(&mut watch(&machine, KeyRange::all(), deleted + 1)).unwrap();
        assert_eq!(revisions(&events), [next]);
        assert_eq!(events[0].kind, EventType::Delete);
        assert!(events[0].prev_kv.is_some(), "the latest record of a key survives compaction");
    }
}

#[test]
fn a_watch_from_the_future_gets_nothing_older() {
    // etcd #20221.
    for ring in [0, 64] {
        let machine = machine(ring);
        put(&machine, "a");
        let mut watcher = watch(&machine, KeyRange::all(), 5);
        assert_eq!(watcher.progress(), 2);
        for _ in 3..=4 {
            put(&machine, "a");
            assert_eq!(watcher.try_next().unwrap(), None);
        }
        // A resync must not bring old events either.
        machine.reload().unwrap();
        assert_eq!(watcher.try_next().unwrap(), None);
        put(&machine, "a");
        assert_eq!(revisions(&drain(&mut watcher).unwrap()), [5]);
    }
}

#[test]
fn progress_is_never_ahead_of_events() {
    // etcd #15220.
    let machine = machine(0);
    for _ in 0..2000 {
        put(&machine, "a");
    }
    let mut watcher = watch(&machine, KeyRange::all(), 2);
    let mut handed_out = 1;
    assert!(watcher.progress() <= handed_out);
    while let Some(batch) = watcher.try_next().unwrap() {
        handed_out = batch.events.last().unwrap().kv.mod_revision;
        assert_eq!(watcher.progress(), handed_out);
    }
    assert_eq!(handed_out, machine.revision());
}

#[tokio::test]
async fn next_can_be_cancelled_without_loss() {
    let machine = machine(64);
    let mut watcher = watch(&machine, KeyRange::all(), 0);
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..20 {
        {
            let mut next = std::pin::pin!(watcher.next());
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx)));
            assert!(poll.await.is_pending());
        }
        expected.push(put(&machine, "a"));
        seen.extend(revisions(&watcher.next().await.unwrap().events));
    }
    assert_eq!(seen, expected);
}

#[test]
fn after_a_snapshot_watchers_resync_from_its_history() {
    let (ahead, behind) = (machine(64), machine(64));
    put(&ahead, "a");
    put(&behind, "a");
    let mut watcher = watch(&behind, KeyRange::all(), 2);
    assert_eq!(drain(&mut watcher).unwrap().len(), 1);
    put(&ahead, "b");
    delete(&ahead, "a");
    copy(&ahead, &behind);
    assert_eq!(revisions(&drain(&mut watcher).unwrap()), [3, 4]);
    // Compacted in the snapshot: an error, not a gap.
    put(&ahead, "c");
    let last = put(&ahead, "c");
    compact(&ahead, last);
    copy(&ahead, &behind);
    assert_eq!(drain(&mut watcher), Err(StoreError::Compacted(last)));
}

#[test]
fn a_state_that_went_back_ends_watchers() {
    let (old, new) = (machine(64), machine(64));
    put(&old, "a");
    put(&new, "a");
    put(&new, "a");
    let mut watcher = watch(&new, KeyRange::all(), 0);
    copy(&old, &new);
    assert!(matches!(watcher.try_next(), Err(StoreError::Compacted(_))));
    assert_eq!(drain(&mut watch(&new, KeyRange::all(), 0)).unwrap(), []);
}

fn copy(from: &Machine, to: &Machine) {
    let mut ops = Vec::new();
    for space in Space::ALL {
        let view = to.backend().view();
        view.scan(space, &[], None, Direction::Forward, &mut |key, _| {
            ops.push((space, bytes::Bytes::copy_from_slice(key), None));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    ops.extend(from.backend().dump().into_iter().map(|(s, k, v)| (s, k, Some(v))));
    to.replace(|| to.backend().commit(Batch { ops })).unwrap();
}

#[tokio::test]
async fn closing_ends_watchers() {
    let machine = machine(64);
    let mut watcher = watch(&machine, KeyRange::all(), 0);
    let hub = machine.hub().clone();
    let waiting = tokio::spawn(async move { watcher.next().await });
    tokio::task::yield_now().await;
    hub.close();
    let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(StoreError::Unavailable { .. })));
}

#[test]
fn a_range_deletion_is_one_batch() {
    let machine = machine(64);
    put_many(&machine, "k", 5);
    let mut watcher = watch(&machine, KeyRange::prefix("k"), 0);
    let range = KeyRange::all();
    let delete = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
    apply(&machine, TxnRequest { success: vec![delete.into()], ..TxnRequest::default() });
    let batch = watcher.try_next().unwrap().unwrap();
    assert_eq!(batch.events.len(), 5);
    assert!(batch.events.iter().all(|event| event.kind == EventType::Delete));
}
