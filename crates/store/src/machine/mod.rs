//! [`StateMachine`]: the one place where the store's state changes.
//!
//! [`StateMachine::apply`] is a pure function of the state and the log entries: no clock, no
//! randomness, no unordered map. How entries are grouped makes no difference to the outcome.

mod check;
mod codec;
mod compact;
mod history;
mod overlay;
mod range;
mod requests;
mod txn;

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::backend::{Backend, BackendError, Batch, Direction, Space, View, Write};
use crate::error::StoreError;
use crate::types::{
    Command, CommandKind, CommandResult, Event, RangeRequest, RangeResponse, Rejection, Revision,
    Term, TxnResponse,
};
use crate::watch::WatchHub;

pub use check::check_command;
use codec::Counters;
use history::{BackendHistory, Published};
use overlay::Overlay;

/// One entry of the log, as the state machine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The term it was proposed in.
    pub term: Term,
    /// Its place in the log.
    pub index: u64,
    /// What to do; `None` for blank and membership entries.
    pub command: Option<Command>,
}

/// The store's state, and the only code that changes it. Shared by reference; one caller applies
/// at a time, any number read.
pub struct StateMachine<B: Backend> {
    backend: Arc<B>,
    published: Arc<Published>,
    hub: Arc<WatchHub>,
    /// The counters as committed; locked while a group is applied.
    counters: Mutex<Counters>,
}

/// Why an operation did not happen.
#[derive(Debug)]
enum Refusal {
    /// Every replica refuses alike.
    Rejected(Rejection),
    /// This replica cannot go on.
    Broken(BackendError),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        Self::Broken(error)
    }
}

impl<B: Backend> StateMachine<B> {
    /// Opens the state in `backend`, which may be empty; the hub's ring holds `ring_capacity`
    /// events.
    ///
    /// # Errors
    /// When the storage fails or holds a format that this version does not know.
    pub fn open(backend: Arc<B>, ring_capacity: usize) -> Result<Self, BackendError> {
        let published = Arc::new(Published::default());
        let history = BackendHistory::new(backend.clone(), published.clone());
        let hub = Arc::new(WatchHub::new(Arc::new(history), ring_capacity));
        let machine = Self { backend, published, hub, counters: Mutex::default() };
        machine.reload()?;
        Ok(machine)
    }

    /// Applies a group of entries in one atomic batch, `extra` included, then publishes their
    /// events. Returns one result per entry.
    ///
    /// # Errors
    /// When the storage fails, or a command holds an operation that this version does not know:
    /// nothing of the group was applied, and the process must stop.
    pub fn apply(
        &self,
        entries: &[Entry],
        extra: Vec<Write>,
    ) -> Result<Vec<CommandResult>, BackendError> {
        let mut counters = self.counters.lock();
        let (group, results) = {
            let view = self.backend.view();
            let mut group = Group {
                state: Overlay::new(&view),
                counters: counters.clone(),
                events: Vec::new(),
            };
            let results =
                entries.iter().map(|entry| group.apply(entry)).collect::<Result<Vec<_>, _>>()?;
            (group.finish(), results)
        };
        let Applied { mut ops, counters: after, events } = group;
        ops.extend(extra);
        self.published.replace(|| {
            self.backend.commit(Batch { ops })?;
            Ok(after.read_point())
        })?;
        *counters = after;
        self.hub.publish_group(events);
        Ok(results)
    }

    /// Reads a range.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::FutureRevision`], [`StoreError::Invalid`], or
    /// [`StoreError::Internal`] when the storage fails.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        check::check_range(request)?;
        let (view, at) = self.published.view(&*self.backend)?;
        range::range(&view, request, at).map_err(|refusal| match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Broken(error) => error.into(),
        })
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.published.revision()
    }

    /// The revision up to which history is compacted; it can itself still be read.
    pub fn compact_revision(&self) -> Revision {
        self.published.compact_revision()
    }

    /// Where watchers are.
    pub fn hub(&self) -> &Arc<WatchHub> {
        &self.hub
    }

    /// The storage below.
    pub fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// Reads the counters again after the backend's content was replaced by a snapshot.
    ///
    /// # Errors
    /// As [`StateMachine::open`].
    pub fn reload(&self) -> Result<(), BackendError> {
        self.replace(|| Ok(()))
    }

    /// The same, with `swap` replacing the content: readers never see the new content with the
    /// old counters.
    ///
    /// # Errors
    /// As [`StateMachine::open`], and what `swap` returns.
    pub fn replace(
        &self,
        swap: impl FnOnce() -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut counters = self.counters.lock();
        self.published.replace(|| {
            swap()?;
            *counters = Counters::load(&self.backend.view())?;
            Ok(counters.read_point())
        })?;
        self.hub.reset(counters.revision);
        Ok(())
    }

    /// A hash of the present keys and the revision, equal on all replicas at equal revisions.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn hash(&self) -> Result<u64, BackendError> {
        let view = self.backend.view();
        let mut hash = Fnv::default();
        hash.write(&Counters::load(&view)?.revision.to_be_bytes());
        view.scan(Space::Latest, &[], None, Direction::Forward, &mut |key, record| {
            hash.write(&(key.len() as u64).to_be_bytes());
            hash.write(key);
            hash.write(&(record.len() as u64).to_be_bytes());
            hash.write(record);
            ControlFlow::Continue(())
        })?;
        Ok(hash.0)
    }
}

/// FNV-1a: stable across versions, and good enough to compare replicas.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A group of entries on its way: each sees the effects of those before it.
struct Group<'v, V: View> {
    state: Overlay<'v, V>,
    counters: Counters,
    events: Vec<(Revision, Vec<Event>)>,
}

/// What a group comes to.
struct Applied {
    ops: Vec<Write>,
    counters: Counters,
    events: Vec<(Revision, Vec<Event>)>,
}

impl<V: View> Group<'_, V> {
    fn apply(&mut self, entry: &Entry) -> Result<CommandResult, BackendError> {
        // The term moves first, so that an entry fences by its own term too.
        self.counters.term = self.counters.term.max(entry.term);
        let result = match &entry.command {
            Some(command) => self.command(command)?,
            None => self.result(None, None),
        };
        compact::step(&mut self.state, &mut self.counters)?;
        Ok(result)
    }

    fn command(&mut self, command: &Command) -> Result<CommandResult, BackendError> {
        check::known(command)?;
        if command.request_id.is_empty() {
            return self.decide(command);
        }
        // Before the fence: what was done in an earlier term stays done.
        if let Some(first) = requests::recall(&self.state, &command.request_id)? {
            return Ok(first);
        }
        let result = self.decide(command)?;
        requests::remember(&mut self.state, &mut self.counters, &command.request_id, &result)?;
        Ok(result)
    }

    fn decide(&mut self, command: &Command) -> Result<CommandResult, BackendError> {
        match self.execute(command) {
            Ok(txn) => Ok(self.result(txn, None)),
            Err(Refusal::Rejected(rejection)) => Ok(self.result(None, Some(rejection))),
            Err(Refusal::Broken(error)) => Err(error),
        }
    }

    fn execute(&mut self, command: &Command) -> Result<Option<TxnResponse>, Refusal> {
        if command.fence != 0 && command.fence < self.counters.term {
            return Err(Rejection::Fenced(self.counters.term).into());
        }
        check::check(command)?;
        match &command.kind {
            Some(CommandKind::Txn(request)) => {
                let done = txn::execute(&mut self.state, request, self.counters.read_point())?;
                if !done.events.is_empty() {
                    self.counters.revision = done.response.revision;
                    self.events.push((done.response.revision, done.events));
                }
                Ok(Some(done.response))
            }
            Some(CommandKind::Compact(request)) => {
                compact::begin(&mut self.counters, request.revision)?;
                Ok(None)
            }
            None => Err(check::unknown("command").into()),
        }
    }

    fn result(&self, txn: Option<TxnResponse>, rejection: Option<Rejection>) -> CommandResult {
        CommandResult { revision: self.counters.revision, txn, rejection }
    }

    fn finish(mut self) -> Applied {
        self.counters.save(&mut self.state);
        Applied { ops: self.state.into_ops(), counters: self.counters, events: self.events }
    }
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod semantics_test;
