#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::Duration;

use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;

use super::*;
use crate::state::{ReplicatedState, State};
use crate::types::{Payload, Proposal, log_id};

fn cache() -> Cache {
    Cache::new_lru_cache(1 << 20)
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, ReplicatedState, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, ReplicatedState), openraft::StorageError<TypeConfig>>
    {
        let dir = tempfile::tempdir().unwrap();
        let fatal = Fatal::new();
        let (log, _) =
            LogStore::open(&dir.path().join("log"), &cache(), Arc::default(), fatal.clone())
                .unwrap();
        let (state, snapshots) = (dir.path().join("state"), dir.path().join("snapshots"));
        let state = State::open(&state, &snapshots, &cache(), Arc::default(), fatal).unwrap();
        Ok((dir, log, ReplicatedState(state)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_suite() {
    Suite::test_all(Builder).await.unwrap();
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = Payload::Normal(Proposal(vec![vec![b'x'; 1000].into()]));
    Entry { log_id: log_id(term, index), payload }
}

fn open(dir: &Path) -> (LogStore, WriterThread) {
    LogStore::open(dir, &cache(), Arc::default(), Fatal::new()).unwrap()
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().collect();
    let (done, durable) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(done)).await.unwrap();
    durable.await.unwrap().unwrap();
}

async fn indexes(log: &LogStore, start: u64, end: u64) -> Vec<u64> {
    let entries = log.reader().try_get_log_entries(start..end).await.unwrap();
    entries.iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn entries_are_readable_before_they_are_durable_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, writer) = open(dir.path());
    log.append((0..10).map(|i| entry(1, i)), IOFlushed::noop()).await.unwrap();
    assert_eq!(indexes(&log, 0, 100).await, (0..10).collect::<Vec<_>>());
    let vote = Vote::new(3, 2);
    log.save_vote(&vote).await.unwrap();
    log.save_committed(Some(log_id(1, 7))).await.unwrap();
    drop(log);
    writer.join();

    let (mut log, _writer) = open(dir.path());
    assert_eq!(indexes(&log, 3, 100).await, (3..10).collect::<Vec<_>>());
    assert_eq!(log.reader().read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 7)));
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 9)));
}

#[tokio::test]
async fn truncated_entries_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, writer) = open(dir.path());
    append(&mut log, (0..10).map(|i| entry(1, i))).await;
    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    append(&mut log, (5..7).map(|i| entry(2, i))).await;
    drop(log);
    writer.join();

    let (mut log, _writer) = open(dir.path());
    let entries = log.reader().try_get_log_entries(..).await.unwrap();
    let ids: Vec<_> = entries.iter().map(|entry| entry.log_id).collect();
    let expected = (0..5).map(|i| log_id(1, i)).chain([log_id(2, 5), log_id(2, 6)]);
    assert_eq!(ids, expected.collect::<Vec<_>>());
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(2, 6)));
}

#[tokio::test]
async fn purged_entries_are_gone_and_a_fully_purged_log_knows_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, writer) = open(dir.path());
    append(&mut log, (0..10).map(|i| entry(1, i))).await;
    log.purge(log_id(1, 3)).await.unwrap();
    assert_eq!(indexes(&log, 0, 100).await, (4..10).collect::<Vec<_>>());
    // After a snapshot was installed the log may end before it.
    log.purge(log_id(2, 20)).await.unwrap();
    append(&mut log, [entry(2, 21)]).await;
    drop(log);
    writer.join();

    let (mut log, _writer) = open(dir.path());
    assert_eq!(indexes(&log, 0, 100).await, vec![21]);
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(2, 20)));
    assert_eq!(state.last_log_id, Some(log_id(2, 21)));
}

#[tokio::test]
async fn old_entries_leave_the_memory_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _writer) = open(dir.path());
    let count = u64::try_from(TAIL_BYTES / 1000 + 2000).unwrap();
    for start in (0..count).step_by(500) {
        append(&mut log, (start..(start + 500).min(count)).map(|i| entry(1, i))).await;
    }
    assert_eq!(indexes(&log, 0, u64::MAX).await, (0..count).collect::<Vec<_>>());
    // A limited read returns a part, and the parts join across the border of the memory.
    let mut next = 0;
    while next < count {
        let part = log.reader().limited_get_log_entries(next, count).await.unwrap();
        assert!(!part.is_empty(), "nothing at {next}");
        assert!(part.len() <= READ_BYTES / 1000 + 1, "{} entries", part.len());
        for entry in part {
            assert_eq!(entry.log_id.index, next);
            next += 1;
        }
    }
    let mut stream = log.reader();
    let all: Vec<_> =
        futures::TryStreamExt::try_collect(stream.entries_stream(0..count).await).await.unwrap();
    assert_eq!(all.len(), usize::try_from(count).unwrap());
}

#[tokio::test]
async fn an_append_with_a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _writer) = open(dir.path());
    append(&mut log, [entry(1, 0)]).await;
    assert!(log.append([entry(1, 2)], IOFlushed::noop()).await.is_err());
}

/// What a crash leaves: the files as they are at this moment.
fn crashed_copy(from: &Path) -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    let is_wal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let wals = std::fs::read_dir(copy.path()).unwrap().map(|file| file.unwrap().path());
    let wal = wals.filter(is_wal).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    (copy, wal)
}

#[tokio::test]
async fn a_torn_tail_costs_only_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _writer) = open(dir.path());
    for index in 0..10 {
        append(&mut log, [entry(1, index)]).await;
    }
    let (copy, wal) = crashed_copy(dir.path());
    let whole = std::fs::metadata(&wal).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(whole - 7).unwrap();
    let (log, _writer) = open(copy.path());
    assert_eq!(indexes(&log, 0, 100).await, (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_and_forgets_nothing_silently() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _writer) = open(dir.path());
    for index in 0..10 {
        append(&mut log, [entry(1, index)]).await;
    }
    let (copy, wal) = crashed_copy(dir.path());
    let mut bytes = std::fs::read(&wal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&wal, bytes).unwrap();
    let opened = LogStore::open(copy.path(), &cache(), Arc::default(), Fatal::new());
    let error = opened.map(|_| ()).unwrap_err();
    assert!(matches!(error, RaftStoreError::Database { .. }), "{error}");
}

#[tokio::test]
async fn a_failed_write_is_fatal_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Fatal::new();
    let (mut log, _writer) =
        LogStore::open(dir.path(), &cache(), Arc::default(), fatal.clone()).unwrap();
    append(&mut log, [entry(1, 0)]).await;
    log.shared.broken.store(true, std::sync::atomic::Ordering::Relaxed);
    let (done, durable) = TypeConfig::oneshot();
    log.append([entry(1, 1)], IOFlushed::signal(done)).await.unwrap();
    assert!(durable.await.unwrap().is_err());
    let reason = tokio::time::timeout(Duration::from_secs(5), fatal.wait()).await.unwrap();
    assert!(reason.contains("raft log"), "{reason}");
    assert!(log.save_vote(&Vote::new(9, 1)).await.is_err(), "nothing is written any more");
}

/// What is committed is noted before all of it is on disk; a crash in between must not leave a log
/// that openraft cannot replay.
#[tokio::test]
async fn no_more_is_committed_after_a_restart_than_the_log_has() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, writer) = open(dir.path());
    append(&mut log, (0..5).map(|i| entry(1, i))).await;
    log.save_committed(Some(log_id(1, 9))).await.unwrap();
    log.save_vote(&Vote::new(3, 2)).await.unwrap();
    drop(log);
    writer.join();

    let (mut log, _writer) = open(dir.path());
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 4)));
}
