//! The replicated state: `quorate_store`'s state machine on RocksDB, driven by openraft.

mod backend;
mod meta;
mod snapshot;
mod tables;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_store::{Backend as _, BackendError, Command, CommandResult, StateMachine, StoreError};
use rocksdb::Cache;
use tokio::sync::{mpsc, oneshot, watch};

use crate::codec::Malformed;
use crate::error::RaftStoreError;
use crate::failpoint::{self, Defect};
use crate::fatal::Fatal;
use crate::metrics::Metrics;
use crate::types::{Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, TypeConfig};
pub(crate) use backend::{RocksBackend, Sink};
pub(crate) use meta::StateMeta;
pub(crate) use snapshot::{Digest, ReceivedFile, SnapshotData, Snapshots, snapshot_meta};

/// Most entries applied in one batch.
const GROUP_ENTRIES: usize = 512;
/// Most bytes of commands applied in one batch.
const GROUP_BYTES: usize = 4 << 20;
/// Events kept in memory for watchers.
const RING_EVENTS: usize = 16_384;
/// Chunks of an image that wait for their reader.
const IMAGE_CHUNKS: usize = 4;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The last entry applied; its data is readable when this is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub term: u64,
    /// Index of the entry + 1, so that 0 means "nothing".
    pub next_index: u64,
}

impl From<Option<LogId>> for Applied {
    fn from(id: Option<LogId>) -> Self {
        id.map_or_else(Self::default, |id| Self {
            term: id.leader_id.term,
            next_index: id.index + 1,
        })
    }
}

/// What openraft's half and the readers share.
pub(crate) struct State {
    pub machine: StateMachine<RocksBackend>,
    pub backend: Arc<RocksBackend>,
    pub snapshots: Snapshots,
    applied: watch::Sender<Applied>,
    meta: Mutex<StateMeta>,
    pub metrics: Arc<Metrics>,
    /// Is this member's CORRUPT alarm on? Then it serves nobody and does not lead.
    pub corrupt: AtomicBool,
    fatal: Fatal,
}

impl State {
    /// Opens or creates the state in `directory`, with its snapshots in `snapshots`.
    pub(crate) fn open(
        directory: &Path,
        snapshots: &Path,
        cache: &Cache,
        metrics: Arc<Metrics>,
        fatal: Fatal,
    ) -> Result<Arc<Self>, RaftStoreError> {
        let backend = Arc::new(RocksBackend::open(directory, cache)?);
        let damaged = |reason: String| RaftStoreError::Damaged { path: directory.into(), reason };
        let machine = StateMachine::open(Arc::clone(&backend), RING_EVENTS)
            .map_err(|error| damaged(error.to_string()))?;
        let meta = StateMeta::load(&backend.view()).map_err(|error| damaged(error.to_string()))?;
        Ok(Arc::new(Self {
            machine,
            snapshots: Snapshots::open(snapshots)?,
            applied: watch::Sender::new(meta.applied.into()),
            meta: Mutex::new(meta),
            backend,
            metrics,
            corrupt: AtomicBool::new(false),
            fatal,
        }))
    }

    /// The membership applied.
    pub(crate) fn membership(&self) -> Membership {
        self.meta.lock().membership.membership().clone()
    }

    /// The index of the entry of that membership.
    pub(crate) fn membership_index(&self) -> u64 {
        self.meta.lock().membership.log_id().map_or(0, |id| id.index)
    }

    /// A complete image of what is applied.
    pub(crate) async fn image(self: &Arc<Self>) -> Result<quorate_store::Snapshot, StoreError> {
        let (sender, chunks) = mpsc::channel(IMAGE_CHUNKS);
        let (begin, begun) = oneshot::channel();
        let state = Arc::clone(self);
        // The task "image": whoever does not read to the end only ends it.
        tokio::task::spawn_blocking(move || {
            let send = |chunk| sender.blocking_send(Ok(chunk)).is_ok();
            let begin = |revision| {
                let _ = begin.send(revision);
            };
            if let Err(error) = state.machine.image(begin, send) {
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        let failed = |_| StoreError::Internal("the state cannot be read".into());
        let revision = begun.await.map_err(failed)?;
        Ok(quorate_store::Snapshot { revision, bytes: self.backend.live_bytes(), chunks })
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Index of the first entry that is not applied.
    pub(crate) fn next_index(&self) -> u64 {
        self.applied.borrow().next_index
    }

    /// Waits until the entry at `index` is applied.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`.
        let _ = applied.wait_for(|applied| applied.next_index > index).await;
    }

    fn apply_group(&self, group: &mut Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let Some((last, _)) = group.last() else { return Ok(()) };
        let mut meta = self.meta.lock().clone();
        meta.applied = Some(last.log_id);
        let mut membership_changed = false;
        let mut entries = Vec::with_capacity(group.len());
        let mut counts = Vec::with_capacity(group.len());
        for (entry, _) in group.iter() {
            if let Payload::Membership(membership) = &entry.payload {
                meta.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                membership_changed = true;
            }
            counts.push(store_entries(entry, &mut entries)?);
        }
        let changes = meta.changes(membership_changed);
        let fences: Vec<u64> = entries.iter().map(fence).collect();
        if Defect::IgnoreFence.is_present() {
            entries.iter_mut().filter_map(|e| e.command.as_mut()).for_each(|c| c.fence = 0);
        }
        let before = self.machine.revision();
        let begin = Instant::now();
        failpoint::pass("apply-before-commit");
        let results = self.machine.apply(&entries, changes).map_err(io::Error::other)?;
        failpoint::pass("apply-after-commit");
        self.metrics.apply.observe(begin.elapsed());
        trace_fences(&entries, &fences, &results, before);
        *self.meta.lock() = meta.clone();
        self.applied.send_replace(meta.applied.into());
        let mut results = results.into_iter();
        for ((_, responder), count) in group.drain(..).zip(counts) {
            let results = results.by_ref().take(count).collect();
            if let Some(responder) = responder {
                ApplyResponder::send(responder, results);
            }
        }
        Ok(())
    }

    fn install(&self, meta: &SnapshotMeta, snapshot: &SnapshotData) -> io::Result<()> {
        let begin = Instant::now();
        let swap = || {
            let installed = snapshot.install(&self.backend, meta);
            installed.map_err(|error| BackendError::new(error.to_string()))
        };
        self.machine.replace(swap).map_err(io::Error::other)?;
        self.metrics.snapshot_install.observe(begin.elapsed());
        let loaded = StateMeta::load(&self.backend.view())?;
        self.applied.send_replace(loaded.applied.into());
        *self.meta.lock() = loaded;
        // The content came as records; from now on it can be passed on from here.
        self.snapshots.build(&self.backend)?;
        Ok(())
    }

    /// Reports a failure that must stop the process; `apply` may not go on after it.
    fn fatal(&self, what: &str, error: io::Error) -> io::Error {
        self.fatal.signal(format!("{what}: {error}"));
        error
    }
}

/// What an entry is to the store: each command on its own. Returns how many there are.
fn store_entries(entry: &Entry, entries: &mut Vec<quorate_store::Entry>) -> io::Result<usize> {
    let (term, index) = (entry.log_id.leader_id.term, entry.log_id.index);
    let Payload::Normal(proposal) = &entry.payload else {
        entries.push(quorate_store::Entry { term, index, command: None });
        return Ok(1);
    };
    for command in &proposal.0 {
        let command = Command::decode(command.clone());
        let command = Some(command.map_err(|_| Malformed("command in the log"))?);
        entries.push(quorate_store::Entry { term, index, command });
    }
    Ok(proposal.0.len())
}

fn fence(entry: &quorate_store::Entry) -> u64 {
    entry.command.as_ref().map_or(0, |command| command.fence)
}

/// Says which decisions of leader work had an effect: the chaos harness reads it to see that
/// those of deposed leaders have none.
fn trace_fences(
    entries: &[quorate_store::Entry],
    fences: &[u64],
    results: &[CommandResult],
    mut revision: u64,
) {
    for ((entry, fence), result) in entries.iter().zip(fences).zip(results) {
        // A repeated request is answered with its first result, which is older.
        let effective = result.rejection.is_none() && result.revision > revision;
        revision = revision.max(result.revision);
        if *fence != 0 {
            tracing::debug!(
                target: "quorate_raftstore::fence",
                decided_in = fence,
                committed_in = entry.term,
                index = entry.index,
                effective,
                "leader work"
            );
        }
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(proposal) => proposal.bytes(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

/// openraft's half of the state.
#[derive(Clone)]
pub(crate) struct ReplicatedState(pub Arc<State>);

/// Runs blocking work away from the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl RaftStateMachine<TypeConfig> for ReplicatedState {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let meta = self.0.meta.lock();
        Ok((meta.applied, meta.membership.clone()))
    }

    /// Everything that is ready goes into one batch, up to the limits.
    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut group = Vec::new();
        while let Some(item) = entries.next().await {
            let first = item?;
            let mut bytes = payload_bytes(&first.0);
            group.push(first);
            while group.len() < GROUP_ENTRIES && bytes < GROUP_BYTES {
                let Some(Some(item)) = entries.next().now_or_never() else { break };
                let item = item?;
                bytes += payload_bytes(&item.0);
                group.push(item);
            }
            self.0
                .apply_group(&mut group)
                .map_err(|error| self.0.fatal("applying the log failed", error))?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let (state, meta) = (Arc::clone(&self.0), meta.clone());
        blocking(move || state.install(&meta, &snapshot))
            .await
            .map_err(|error| self.0.fatal("installing a snapshot failed", error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self
            .0
            .snapshots
            .current()
            .map(|(meta, dir)| Snapshot { meta, snapshot: SnapshotData::Checkpoint(dir) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for ReplicatedState {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = Arc::clone(&self.0);
        let build = move || {
            let begin = Instant::now();
            let built = state.snapshots.build(&state.backend)?;
            state.metrics.snapshot_build.observe(begin.elapsed());
            Ok(built)
        };
        let (meta, dir) = blocking(build)
            .await
            .map_err(|error| self.0.fatal("building a snapshot failed", error))?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Checkpoint(dir) })
    }
}

// Results travel between masters; the type must stay the store's own.
const _: fn(Vec<CommandResult>) -> <TypeConfig as openraft::RaftTypeConfig>::R = |result| result;
