//! A simulated disk with the log on it, and the state machine in memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use openraft::AsyncRuntime as _;
use openraft::OptionalSend;
use openraft::storage::{
    ApplyResponder, EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage,
    RaftSnapshotBuilder, RaftStateMachine,
};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_store::{Backend as _, Batch, Command, MemberId, MemoryBackend, Space, StateMachine};
use tokio::sync::{mpsc, oneshot};

use super::{
    Defect, Entry, LogId, Runtime, Simulated, SnapshotMeta, StoredMembership, Vote, World,
};
use crate::types::Payload;

/// Microseconds that a sync takes.
const SYNC: std::ops::Range<u64> = 100..4_000;
/// The same for one that was reported before.
const LATE: std::ops::Range<u64> = 20_000..200_000;
/// Events for watchers, of which there are none.
const RING: usize = 16;

/// Everything that a snapshot holds.
pub(super) type Image = Arc<Vec<(Space, Bytes, Bytes)>>;
type Snapshot = openraft::type_config::alias::SnapshotOf<Simulated, Image>;

/// What the log holds.
#[derive(Clone, Debug, Default)]
struct Log {
    vote: Option<Vote>,
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
}

/// A disk: what is on it, and what a running process believes is on it.
#[derive(Default)]
pub(super) struct Disk {
    seen: Mutex<Log>,
    synced: Mutex<Log>,
    snapshot: Mutex<Option<(SnapshotMeta, Image)>>,
    /// The process that may write.
    life: AtomicU64,
}

impl Disk {
    /// What was not synced is gone, and whoever writes still writes nothing.
    pub(super) fn crash(&self) {
        self.life.store(0, Relaxed);
        let synced = self.synced.lock().clone();
        *self.seen.lock() = synced;
    }

    /// For the process `life`; starts its writer.
    pub(super) fn open(self: &Arc<Self>, world: &Arc<World>, life: u64) -> SimulatedLog {
        self.life.store(life, Relaxed);
        let (queue, jobs) = mpsc::unbounded_channel();
        let writer = write(Arc::clone(self), Arc::clone(world), life, jobs);
        // Task "writer": it ends with its queue.
        drop(Runtime::spawn(writer));
        SimulatedLog { disk: Arc::clone(self), queue, defect: world.defect }
    }
}

type Change = Box<dyn FnOnce(&mut Log) + Send>;

enum Done {
    Append(IOFlushed<Simulated>),
    Wait(oneshot::Sender<()>),
    Nobody,
}

/// One change after the other, each synced before it is reported; as the real writer does.
async fn write(
    disk: Arc<Disk>,
    world: Arc<World>,
    life: u64,
    mut jobs: mpsc::UnboundedReceiver<(Change, Done)>,
) {
    let late = world.defect == Defect::EarlyAcknowledgement;
    while let Some((change, done)) = jobs.recv().await {
        tokio::time::sleep(world.delay(if late { LATE } else { SYNC })).await;
        if disk.life.load(Relaxed) != life {
            return;
        }
        change(&mut disk.synced.lock());
        report(done);
    }
}

fn report(done: Done) {
    match done {
        Done::Append(callback) => callback.io_completed(Ok(())),
        // Who does not wait any more needs no answer.
        Done::Wait(waiting) => drop(waiting.send(())),
        Done::Nobody => {}
    }
}

/// The log as openraft sees it.
pub(super) struct SimulatedLog {
    disk: Arc<Disk>,
    queue: mpsc::UnboundedSender<(Change, Done)>,
    defect: Defect,
}

impl SimulatedLog {
    fn put(&self, change: impl Fn(&mut Log) + Send + 'static, done: Done) -> io::Result<()> {
        change(&mut self.disk.seen.lock());
        let gone = |_| io::Error::other("the process has crashed");
        if self.defect == Defect::EarlyAcknowledgement {
            self.queue.send((Box::new(change), Done::Nobody)).map_err(gone)?;
            report(done);
            return Ok(());
        }
        self.queue.send((Box::new(change), done)).map_err(gone)
    }

    async fn put_and_wait(&self, change: impl Fn(&mut Log) + Send + 'static) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.put(change, Done::Wait(done))?;
        written.await.map_err(|_| io::Error::other("the process has crashed"))
    }
}

/// Reads what a process believes is there.
#[derive(Clone)]
pub(super) struct Reader(Arc<Disk>);

impl Reader {
    fn read(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        self.0.seen.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect()
    }
}

impl RaftLogReader<Simulated> for Reader {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        futures::stream::iter(self.read(range).into_iter().map(Ok))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.seen.lock().vote)
    }
}

impl RaftLogStorage<Simulated> for SimulatedLog {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> Result<LogState<Simulated>, io::Error> {
        let log = self.disk.seen.lock();
        let last = log.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.max(log.purged) })
    }

    async fn get_log_reader(&mut self) -> Reader {
        Reader(Arc::clone(&self.disk))
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        if self.defect == Defect::ForgottenVote {
            self.disk.seen.lock().vote = Some(vote);
            return Ok(());
        }
        self.put_and_wait(move |log| log.vote = Some(vote)).await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<Simulated>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let change = move |log: &mut Log| {
            log.entries.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
        };
        self.put(change, Done::Append(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |id| id.index + 1);
        self.put_and_wait(move |log| drop(log.entries.split_off(&first))).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.put_and_wait(move |log| {
            log.entries = log.entries.split_off(&(upto.index + 1));
            log.purged = log.purged.max(Some(upto));
        })
        .await
    }
}

struct State {
    machine: StateMachine<MemoryBackend>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// One master's state machine. It is in memory: after a crash it begins with the last snapshot.
#[derive(Clone)]
pub(super) struct Replica {
    id: MemberId,
    disk: Arc<Disk>,
    world: Arc<World>,
    state: Arc<Mutex<State>>,
}

impl Replica {
    pub(super) fn new(id: MemberId, disk: &Arc<Disk>, world: &Arc<World>) -> Self {
        let backend = Arc::<MemoryBackend>::default();
        let (mut applied, mut membership) = (None, StoredMembership::default());
        if let Some((meta, image)) = disk.snapshot.lock().clone() {
            fill(&backend, &image);
            (applied, membership) = (meta.last_log_id, meta.last_membership);
        }
        let machine = StateMachine::open(backend, RING).expect("a state in memory");
        let state = Arc::new(Mutex::new(State { machine, applied, membership }));
        Self { id, disk: Arc::clone(disk), world: Arc::clone(world), state }
    }

    /// The value of a key, and how often it was written.
    pub(super) fn get(&self, key: &str) -> (u64, u64) {
        let request = quorate_store::RangeRequest::key(key.to_owned());
        let found = self.state.lock().machine.range(&request).expect("a read");
        let Some(kv) = found.kvs.first() else { return (0, 0) };
        let text = String::from_utf8_lossy(&kv.value).into_owned();
        (text.parse().unwrap_or(u64::MAX), kv.version)
    }

    pub(super) fn applied(&self) -> Option<LogId> {
        self.state.lock().applied
    }

    /// Everything, for comparisons.
    pub(super) fn dump(&self) -> Vec<(Space, Bytes, Bytes)> {
        self.state.lock().machine.backend().dump()
    }

    fn apply_one(&self, (entry, responder): EntryResponder<Simulated>) {
        let mut state = self.state.lock();
        let command = match &entry.payload {
            Payload::Normal(proposal) => {
                let [command] = proposal.0.as_slice() else { panic!("one command: {proposal}") };
                Some(Command::decode(command.clone()).expect("a command"))
            }
            Payload::Blank => None,
            Payload::Membership(membership) => {
                state.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                None
            }
        };
        let term = entry.log_id.leader_id.term;
        let fence = command.as_ref().map_or(0, |command| command.fence);
        let entry = quorate_store::Entry { term, index: entry.log_id.index, command };
        let before = state.machine.revision();
        let mut results =
            state.machine.apply(std::slice::from_ref(&entry), Vec::new()).expect("applied");
        if fence != 0 && fence < term && state.machine.revision() > before {
            let id = self.id;
            self.world.violation(format!("master {id}: a decision of term {fence} in term {term}"));
        }
        let index = entry.index;
        let next = state.applied.map_or(0, |id| id.index + 1);
        if index != next {
            self.world.violation(format!("master {} applied {index}, not {next}", self.id));
        }
        state.applied = Some(crate::types::log_id(term, index));
        drop(state);
        if let (Some(responder), Some(result)) = (responder, results.pop()) {
            ApplyResponder::send(responder, result);
        }
    }
}

fn fill(backend: &MemoryBackend, image: &Image) {
    let clear = backend.dump().into_iter().map(|(space, key, _)| (space, key, None));
    let put = image.iter().map(|(space, key, value)| (*space, key.clone(), Some(value.clone())));
    backend.commit(Batch { ops: clear.chain(put).collect() }).expect("a commit in memory");
}

impl RaftStateMachine<Simulated> for Replica {
    type SnapshotData = Image;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Simulated>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            self.apply_one(entry?);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, image: Image) -> io::Result<()> {
        let mut state = self.state.lock();
        let backend = Arc::clone(state.machine.backend());
        let swap = || {
            fill(&backend, &image);
            Ok(())
        };
        state.machine.replace(swap).map_err(io::Error::other)?;
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        *self.disk.snapshot.lock() = Some((meta.clone(), image));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshot = self.disk.snapshot.lock().clone();
        Ok(snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<Simulated> for Replica {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.lock();
        let meta =
            SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        let image = Arc::new(state.machine.backend().dump());
        *self.disk.snapshot.lock() = Some((meta.clone(), Arc::clone(&image)));
        Ok(Snapshot { meta, snapshot: image })
    }
}
