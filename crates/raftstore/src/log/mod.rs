//! The Raft log and the vote, on disk: openraft's `RaftLogStorage` over a RocksDB of its own.
//!
//! Invariant: what was reported as done survives a crash of the machine. One thread
//! ([`writer`]) writes; each of its writes carries everything that is queued and is synced once.

mod keys;
mod sizes;
mod tail;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use rocksdb::{Cache, DB, Direction, IteratorMode};
use tokio::sync::mpsc;

use crate::codec;
use crate::error::RaftStoreError;
use crate::fatal::Fatal;
use crate::metrics::Metrics;
use crate::rocks::{self, Sizes};
use crate::torn;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use tail::Tail;
use writer::{Change, Job};

/// Jobs that may wait for the writer.
const QUEUE: usize = 4096;
/// Bytes of recent entries kept in memory for replication and apply.
const TAIL_BYTES: usize = 4 << 20;
/// Bytes after which a limited read stops.
const READ_BYTES: usize = 1 << 20;

const SIZES: Sizes = Sizes { write_buffer: 4 << 20, write_buffers: 3, wal: 64 << 20 };

/// What the writer and all readers share.
struct Shared {
    db: DB,
    tail: Mutex<Tail>,
    metrics: Arc<Metrics>,
    /// Makes the next write fail.
    #[cfg(test)]
    broken: std::sync::atomic::AtomicBool,
}

/// The log; owned by openraft.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
}

/// Reads the log; any number of them.
#[derive(Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

/// The writer's thread; ends when the [`LogStore`] is dropped.
pub(crate) struct WriterThread(std::thread::JoinHandle<()>);

impl WriterThread {
    /// Waits until everything queued is on disk and the thread has ended.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the log writer panicked");
        }
    }
}

impl LogStore {
    /// Opens or creates the log in `directory`.
    pub(crate) fn open(
        directory: &Path,
        cache: &Cache,
        metrics: Arc<Metrics>,
        fatal: Fatal,
    ) -> Result<(Self, WriterThread), RaftStoreError> {
        let database = |error| RaftStoreError::database(directory, error);
        let mut options = rocks::family_options(&SIZES, cache, false);
        // Family options and database options are one type, and there is only one family.
        apply_database_options(&mut options);
        torn::mend(directory)
            .map_err(|error| RaftStoreError::io("cannot mend the log in", directory, error))?;
        let db = DB::open(&options, directory).map_err(database)?;
        let tail = load(&db)
            .map_err(|error| RaftStoreError::io("cannot read the log in", directory, error))?;
        let shared = Arc::new(Shared {
            db,
            tail: Mutex::new(tail),
            metrics,
            #[cfg(test)]
            broken: std::sync::atomic::AtomicBool::new(false),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("raft-log-writer".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || writer::run(&shared, jobs, &fatal)
            })
            .map_err(|error| RaftStoreError::io("cannot start the writer of", directory, error))?;
        Ok((Self { shared, queue }, WriterThread(thread)))
    }

    /// Has anything ever been written here?
    pub(crate) fn is_pristine(&self) -> bool {
        let tail = self.shared.tail.lock();
        tail.vote.is_none() && tail.last().is_none()
    }

    pub(crate) fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    async fn enqueue(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).await.map_err(|_| io::Error::other("the log writer has stopped"))
    }

    /// Queues a change and waits until it is on disk.
    async fn write(&self, change: Change) -> io::Result<()> {
        let (done, result) = TypeConfig::oneshot();
        self.enqueue(Job { change, done: IOFlushed::signal(done) }).await?;
        result.await.map_err(|_| io::Error::other("the log writer has stopped"))?
    }
}

fn apply_database_options(options: &mut rocksdb::Options) {
    use rocksdb::DBRecoveryMode;
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options.set_max_total_wal_size(SIZES.wal);
    options.set_max_background_jobs(2);
    options.set_max_open_files(128);
    options.set_keep_log_file_num(3);
    options.set_stats_dump_period_sec(0);
}

fn load(db: &DB) -> io::Result<Tail> {
    let get = |key| db.get(key).map_err(io::Error::other);
    let vote = get(keys::VOTE)?.map(|bytes| codec::decode_vote(&bytes)).transpose()?;
    let purged = get(keys::PURGED)?.map(|bytes| codec::decode_log_id(&bytes)).transpose()?;
    let committed = get(keys::COMMITTED)?.map(|bytes| codec::decode_log_id(&bytes)).transpose()?;
    let mut newest = db.iterator(IteratorMode::From(&keys::AFTER_ENTRIES, Direction::Reverse));
    let last = match newest.next().transpose().map_err(io::Error::other)? {
        Some((key, value)) if keys::index(&key).is_some() => {
            Some(codec::decode_entry(value.into_vec().into())?.log_id)
        }
        _ => None,
    };
    let last = last.max(purged);
    // It is noted when it is known, which may be before the entries up to it are written: of those
    // that are, it then says that all are committed.
    Ok(Tail::new(TAIL_BYTES, vote, committed.min(last), purged, last))
}

impl LogReader {
    /// Bytes of the entries after an index, roughly.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        self.shared.tail.lock().sizes.after(index)
    }

    /// The first of the newest entries that have so many bytes together, or a little more;
    /// `None`: the log holds less.
    pub(crate) fn first_of_last(&self, bytes: u64) -> Option<u64> {
        self.shared.tail.lock().sizes.first_of_last(bytes)
    }

    /// Entries of `[start, end)`, at least one when there is one, about `bytes` at most.
    fn read(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let (range, cached) = {
            let tail = self.shared.tail.lock();
            let range = tail.clamp(start, end);
            let cached = tail.read(range.clone(), bytes);
            (range, cached)
        };
        let cached_first = cached.first().map_or(range.end, |entry| entry.log_id.index);
        if range.start >= cached_first {
            return Ok(cached);
        }
        let mut entries = self.read_disk(range.start, cached_first, bytes)?;
        // The cached part may follow only where the part on disk ends. None on disk: the log
        // begins with the cached part.
        let complete = entries.last().is_none_or(|entry| entry.log_id.index + 1 == cached_first);
        if complete && (entries.is_empty() || bytes == usize::MAX) {
            entries.extend(cached);
        }
        Ok(entries)
    }

    fn read_disk(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut size = 0;
        let from = keys::entry(start);
        for item in self.shared.db.iterator(IteratorMode::From(&from, Direction::Forward)) {
            let (key, value) = item.map_err(io::Error::other)?;
            let Some(index) = keys::index(&key).filter(|index| *index < end) else { break };
            if entries.last().is_some_and(|before| before.log_id.index + 1 != index) {
                let reason = format!("the log has a hole before index {index}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            size += value.len();
            entries.push(codec::decode_entry(value.into_vec().into())?);
            if size >= bytes {
                break;
            }
        }
        Ok(entries)
    }
}

/// `[start, end)` of any range of indexes.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Read piecewise: after a restart the range may be most of the log.
        let reader = self.clone();
        let (start, end) = bounds(&range);
        let pieces = futures::stream::try_unfold(start, move |next| {
            let piece =
                if next < end { reader.read(next, end, READ_BYTES) } else { Ok(Vec::new()) };
            let step = piece.map(|entries| {
                let after = entries.last().map(|entry| entry.log_id.index + 1);
                after.map(|after| (futures::stream::iter(entries.into_iter().map(Ok)), after))
            });
            std::future::ready(step)
        });
        futures::TryStreamExt::try_flatten(pieces)
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.tail.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.shared.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write(Change::Vote(codec::vote_to(vote).encode_to_vec())).await?;
        self.shared.tail.lock().vote = Some(*vote);
        Ok(())
    }

    /// Only noted: the writer adds it to its next write. So it may be older than the truth after
    /// a crash, which costs a longer replay and nothing else.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.tail.lock().set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.tail.lock().committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let ticket = {
            let mut tail = self.shared.tail.lock();
            let ticket = tail.ticket();
            for entry in entries {
                let bytes = codec::entry_to(&entry).encode_to_vec();
                let index = entry.log_id.index;
                tail.append(entry, bytes.len(), ticket)?;
                encoded.push((index, bytes));
            }
            ticket
        };
        let change = Change::Append { entries: encoded, ticket };
        self.enqueue(Job { change, done: callback }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first = last_log_id.map_or(0, |id| id.index + 1);
        self.shared.tail.lock().truncate(last_log_id);
        self.write(Change::Truncate { first }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.tail.lock().purge(log_id);
        let purged = codec::log_id_to(log_id).encode_to_vec();
        self.write(Change::Purge { last: log_id.index, purged }).await
    }
}

#[cfg(test)]
#[path = "log_test.rs"]
mod tests;
