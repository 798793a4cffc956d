//! The one thread that writes the log: it takes everything that is queued, writes it as one
//! batch, syncs once, and only then reports.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use openraft::storage::IOFlushed;
use prost::Message as _;
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::mpsc;

use super::{Shared, keys};
use crate::codec;
use crate::failpoint::{self, Defect};
use crate::fatal::Fatal;
use crate::types::TypeConfig;

/// Bytes after which a batch is closed.
const BATCH_BYTES: usize = 4 << 20;
/// Jobs after which a batch is closed.
const BATCH_JOBS: usize = 1024;

/// How long a write that was acknowledged too early is not on disk.
const DEFECT_DELAY: std::time::Duration = std::time::Duration::from_millis(150);

/// One change of the log, with whom to tell when it is on disk.
pub(super) struct Job {
    pub change: Change,
    pub done: IOFlushed<TypeConfig>,
}

pub(super) enum Change {
    /// An encoded vote.
    Vote(Vec<u8>),
    /// Encoded entries with their indexes; the ticket tells the tail what is durable.
    Append { entries: Vec<(u64, Vec<u8>)>, ticket: u64 },
    /// Remove `first` and everything after it.
    Truncate { first: u64 },
    /// Remove everything up to `last`; the encoded log id is remembered.
    Purge { last: u64, purged: Vec<u8> },
}

impl Change {
    /// Changes go into the batch in the order of the queue: later ones win over earlier ones.
    fn put(&self, batch: &mut WriteBatch) {
        match self {
            Self::Vote(vote) => batch.put(keys::VOTE, vote),
            Self::Append { entries, .. } => {
                for (index, entry) in entries {
                    batch.put(keys::entry(*index), entry);
                }
            }
            Self::Truncate { first } => {
                batch.delete_range(keys::entry(*first).as_slice(), &keys::AFTER_ENTRIES);
            }
            Self::Purge { last, purged } => {
                batch.put(keys::PURGED, purged);
                batch.delete_range(keys::entry(0), keys::entry(last + 1));
            }
        }
    }
}

/// Runs until the queue is closed or a write fails.
pub(super) fn run(shared: &Shared, mut jobs: mpsc::Receiver<Job>, fatal: &Fatal) {
    let mut group = Vec::new();
    let mut synced = WriteOptions::default();
    synced.set_sync(!Defect::SkipSync.is_present());
    // Keys of one batch follow one another.
    synced.set_memtable_insert_hint_per_batch(true);
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = WriteBatch::default();
        first.change.put(&mut batch);
        group.push(first);
        while group.len() < BATCH_JOBS && batch.size_in_bytes() < BATCH_BYTES {
            let Ok(job) = jobs.try_recv() else { break };
            job.change.put(&mut batch);
            group.push(job);
        }
        put_committed(shared, &mut batch);
        let (before, after) = places(&group);
        if Defect::EarlyAcknowledgement.is_present() {
            report(shared, group.drain(..));
            std::thread::sleep(DEFECT_DELAY);
        }
        let begin = Instant::now();
        failpoint::pass(before);
        match write(shared, batch, &synced) {
            Ok(()) => {
                failpoint::pass(after);
                shared.metrics.log_sync.observe(begin.elapsed());
                shared.metrics.log_groups.fetch_add(1, Relaxed);
                report(shared, group.drain(..));
            }
            Err(error) => return fail(group, jobs, fatal, &error),
        }
    }
    let mut batch = WriteBatch::default();
    if put_committed(shared, &mut batch)
        && let Err(error) = shared.db.write_opt(batch, &synced)
    {
        tracing::warn!(%error, "the committed index was not saved; the next start replays more");
    }
}

/// Where a test lets the process die: by the first change of the group.
fn places(group: &[Job]) -> (&'static str, &'static str) {
    match group.first().map(|job| &job.change) {
        Some(Change::Vote(_)) => ("vote-before-sync", "vote-after-sync"),
        Some(Change::Purge { .. }) => ("purge-before-sync", "purge-after-sync"),
        Some(Change::Truncate { .. }) => ("truncate-before-sync", "truncate-after-sync"),
        Some(Change::Append { .. }) | None => ("append-before-sync", "append-after-sync"),
    }
}

fn write(shared: &Shared, batch: WriteBatch, options: &WriteOptions) -> io::Result<()> {
    #[cfg(test)]
    if shared.broken.load(Relaxed) {
        return Err(io::Error::other("a broken disk"));
    }
    shared.db.write_opt(batch, options).map_err(io::Error::other)
}

fn put_committed(shared: &Shared, batch: &mut WriteBatch) -> bool {
    let committed = shared.tail.lock().take_committed();
    if let Some(committed) = committed {
        batch.put(keys::COMMITTED, codec::log_id_to(committed).encode_to_vec());
    }
    committed.is_some()
}

fn report(shared: &Shared, group: std::vec::Drain<'_, Job>) {
    let ticket = group.as_slice().iter().rev().find_map(|job| match job.change {
        Change::Append { ticket, .. } => Some(ticket),
        _ => None,
    });
    let entries = group.as_slice().iter().map(|job| match &job.change {
        Change::Append { entries, .. } => entries.len() as u64,
        _ => 0,
    });
    shared.metrics.log_entries.fetch_add(entries.sum(), Relaxed);
    if let Some(ticket) = ticket {
        shared.tail.lock().durable(ticket);
    }
    for job in group {
        job.done.io_completed(Ok(()));
    }
}

/// A failed write or sync leaves the disk in an unknown state: a retry could report data as
/// durable that is not. So nothing is written any more and the process must end.
fn fail(group: Vec<Job>, jobs: mpsc::Receiver<Job>, fatal: &Fatal, error: &io::Error) {
    let reason = format!("writing the raft log failed: {error}");
    fatal.signal(reason.clone());
    for job in group {
        job.done.io_completed(Err(io::Error::other(reason.clone())));
    }
    drop(jobs);
}
