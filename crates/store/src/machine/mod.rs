//! [`StateMachine`]: the one place where the store's state changes.
//!
//! [`StateMachine::apply`] is a pure function of the state and the log entries: no clock, no
//! randomness, no unordered map. How entries are grouped makes no difference to the outcome.

mod check;
mod codec;
mod compact;
mod contents;
mod hash;
mod history;
mod instances;
mod leases;
mod overlay;
mod range;
mod recent;
mod requests;
mod txn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::{Backend, BackendError, Batch, Space, View, Write};
use crate::command::{Alarm, Command, CommandKind, CommandResult, LeaseGrantRequest, Rejection};
use crate::error::StoreError;
use crate::image::write_image;
use crate::lessor::{LeaseChange, Lessor};
use crate::types::{
    Event, HashKv, LeaseId, MemberId, OpResult, RangeRequest, RangeResponse, Revision, Term,
    TxnRequest, TxnResponse,
};
use crate::watch::WatchHub;

pub use check::{check_command, check_known, needs_space, reads_only};
use codec::Counters;
use contents::Contents;
use history::{BackendHistory, Published};
use overlay::Overlay;
use recent::Recent;
use txn::Changes;

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
    lessor: Arc<Lessor>,
    alarms: watch::Sender<Vec<Alarm>>,
    contents: Mutex<Contents>,
    /// The counters as committed; locked while a group is applied.
    counters: Mutex<Counters>,
    /// As committed too.
    recent: Recent,
    /// Of the counters: nobody who asks for it waits for a group that is being applied.
    compacting: AtomicBool,
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

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Broken(error) => error.into(),
        }
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
        let machine = Self {
            backend,
            published,
            hub,
            lessor: Arc::default(),
            alarms: watch::Sender::default(),
            contents: Mutex::default(),
            counters: Mutex::default(),
            recent: Recent::default(),
            compacting: AtomicBool::default(),
        };
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
                state: Overlay::of_applied(&view, &self.recent),
                counters: counters.clone(),
                events: Vec::new(),
                leases: Vec::new(),
                contents: Vec::new(),
            };
            let results =
                entries.iter().map(|entry| group.apply(entry)).collect::<Result<Vec<_>, _>>()?;
            (group.finish(), results)
        };
        let Applied { mut ops, counters: after, events, leases, contents } = group;
        ops.extend(extra);
        let latest: Vec<_> = ops.iter().filter(|op| op.0 == Space::Latest).cloned().collect();
        self.published.replace(|| {
            self.backend.commit(Batch { ops })?;
            Ok(after.read_point())
        })?;
        latest.into_iter().for_each(|(_, key, record)| self.recent.set(&key, record));
        self.contents.lock().push(after.revision, contents);
        self.lessor.change(leases);
        self.publish_alarms(&after.alarms);
        self.compacting.store(after.compacting, SeqCst);
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
        Ok(range::range(&view, request, at)?)
    }

    /// Carries out a transaction that [`reads_only`], for which no entry is needed.
    ///
    /// # Errors
    /// As [`StateMachine::range`]; [`StoreError::Invalid`] for one that would change something.
    pub fn read(&self, command: &Command) -> Result<TxnResponse, StoreError> {
        let Some(CommandKind::Txn(request)) = command.kind.as_ref().filter(|_| reads_only(command))
        else {
            return Err(StoreError::Invalid("not a transaction that only reads".into()));
        };
        let (view, at) = self.published.view(&*self.backend)?;
        Ok(txn::execute(&mut Overlay::new(&view), request, at)?.response)
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.published.revision()
    }

    /// The revision up to which history is compacted; it can itself still be read.
    pub fn compact_revision(&self) -> Revision {
        self.published.compact_revision()
    }

    /// Is there anything left to remove that is compacted?
    pub fn compacting(&self) -> bool {
        self.compacting.load(SeqCst)
    }

    /// The leases, and on the leader the time they have left.
    pub fn lessor(&self) -> &Arc<Lessor> {
        &self.lessor
    }

    /// Which instance of each member's data has registered.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn instances(&self) -> Result<Vec<(MemberId, u64)>, BackendError> {
        instances::all(&self.backend.view())
    }

    /// The keys attached to a lease, in order.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, BackendError> {
        leases::keys(&self.backend.view(), id)
    }

    /// The alarms that are on, in order.
    pub fn alarms(&self) -> watch::Receiver<Vec<Alarm>> {
        self.alarms.subscribe()
    }

    fn publish_alarms(&self, now: &[Alarm]) {
        self.alarms.send_if_modified(|alarms| {
            let changed = alarms != now;
            if changed {
                now.clone_into(alarms);
            }
            changed
        });
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
            self.recent.clear();
            let view = self.backend.view();
            *counters = Counters::load(&view)?;
            self.lessor.reset(leases::all(&view)?);
            Ok(counters.read_point())
        })?;
        self.compacting.store(counters.compacting, SeqCst);
        self.contents.lock().reset(counters.revision, counters.content);
        self.publish_alarms(&counters.alarms);
        self.hub.reset(counters.revision);
        Ok(())
    }

    /// A complete image of the state: `begin` learns its revision, then `send` gets the chunks in
    /// order until it says no. Holds a view all the time, so for a backend in memory `send` must
    /// not wait. See [`crate::read_image`].
    ///
    /// # Errors
    /// When the storage fails.
    pub fn image(
        &self,
        begin: impl FnOnce(Revision),
        send: impl FnMut(Bytes) -> bool,
    ) -> Result<(), BackendError> {
        let view = self.backend.view();
        begin(Counters::load(&view)?.revision);
        write_image(&view, send)
    }

    /// A hash of the present keys and the revision, equal on all replicas at equal revisions.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn hash(&self) -> Result<u64, BackendError> {
        hash::present(&self.backend.view())
    }

    /// The present revision and the hash of the content at it, kept up to date while applying:
    /// replicas at one revision have the same one.
    pub fn content(&self) -> (Revision, u64) {
        self.contents.lock().last()
    }

    /// The same at a revision that was not long ago; `None` when that is forgotten or to come.
    pub fn content_at(&self, revision: Revision) -> Option<u64> {
        self.contents.lock().at(revision)
    }

    /// Turns the state into that of a new cluster: alarms and registrations of members are
    /// forgotten, and `extra` is written with it.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn forget_members(&self, extra: Vec<Write>) -> Result<(), BackendError> {
        let mut counters = self.counters.lock();
        let mut ops = {
            let view = self.backend.view();
            let mut state = Overlay::new(&view);
            counters.alarms.clear();
            counters.save(&mut state);
            instances::forget(&mut state)?;
            state.into_ops()
        };
        ops.extend(extra);
        self.backend.commit(Batch { ops })?;
        self.publish_alarms(&counters.alarms);
        Ok(())
    }

    /// Reads everything that is there now and compares it with the hash that was kept while it
    /// was applied: what differs was changed behind our back.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn scrub(&self) -> Result<bool, BackendError> {
        let view = self.backend.view();
        Ok(Counters::load(&view)?.content == hash::content(&view)?)
    }

    /// A hash of everything that can be read or watched at `revision` (0: the present one),
    /// equal on all replicas with the same compaction revision, however far each has come with
    /// removing what is compacted. Reads the whole history: for checks, not for requests.
    ///
    /// # Errors
    /// As [`StateMachine::range`].
    pub fn hash_kv(&self, revision: Revision) -> Result<HashKv, StoreError> {
        let (view, at) = self.published.view(&*self.backend)?;
        at.check(revision)?;
        let revision = if revision == 0 { at.revision } else { revision };
        let hash = hash::history(&view, revision, at.compact_revision)?;
        Ok(HashKv { hash, compact_revision: at.compact_revision, revision })
    }
}

/// A group of entries on its way: each sees the effects of those before it.
struct Group<'v, V: View> {
    state: Overlay<'v, V>,
    counters: Counters,
    events: Vec<(Revision, Vec<Event>)>,
    leases: Vec<LeaseChange>,
    /// The content's hash after each of the revisions in `events`.
    contents: Vec<u64>,
}

/// What a group comes to.
struct Applied {
    ops: Vec<Write>,
    counters: Counters,
    events: Vec<(Revision, Vec<Event>)>,
    leases: Vec<LeaseChange>,
    contents: Vec<u64>,
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
        if let Some(member) = self.counters.no_space()
            && needs_space(command)
        {
            return Err(Rejection::NoSpace(member).into());
        }
        let at = self.counters.read_point();
        match &command.kind {
            Some(CommandKind::Txn(request)) => {
                let done = txn::execute(&mut self.state, request, at)?;
                self.changed(done.changes);
                Ok(Some(done.response))
            }
            Some(CommandKind::Batch(request)) => self.batch(&request.txns).map(Some),
            Some(CommandKind::LeaseGrant(request)) => {
                leases::grant(&mut self.state, *request)?;
                let LeaseGrantRequest { id, ttl_seconds } = *request;
                self.leases.push(LeaseChange::Granted { id, ttl_seconds });
                Ok(None)
            }
            Some(CommandKind::LeaseRevoke(request)) => {
                let changes = txn::revoke(&mut self.state, request.id, at)?;
                self.changed(changes);
                self.leases.push(LeaseChange::Revoked { id: request.id });
                Ok(None)
            }
            Some(CommandKind::Register(request)) => {
                instances::register(&mut self.state, *request)?;
                Ok(None)
            }
            Some(CommandKind::Alarm(request)) => {
                self.counters.set_alarm(*request);
                Ok(None)
            }
            Some(CommandKind::Compact(request)) => {
                compact::begin(&mut self.counters, request.revision)?;
                Ok(None)
            }
            None => Err(check::unknown("command").into()),
        }
    }

    /// Carries out transactions of which `check` has found that none can be refused.
    fn batch(&mut self, txns: &[TxnRequest]) -> Result<TxnResponse, Refusal> {
        let mut responses = Vec::with_capacity(txns.len());
        for request in txns {
            let done = txn::execute(&mut self.state, request, self.counters.read_point())?;
            self.changed(done.changes);
            responses.push(OpResult::Txn(done.response).into());
        }
        Ok(TxnResponse { revision: self.counters.revision, succeeded: true, responses })
    }

    /// Takes note of what one transaction changed; nothing leaves the revision as it is.
    fn changed(&mut self, changes: Changes) {
        let Changes { events, content } = changes;
        if !events.is_empty() {
            self.counters.revision += 1;
            self.counters.content = self.counters.content.wrapping_add(content);
            self.events.push((self.counters.revision, events));
            self.contents.push(self.counters.content);
        }
    }

    fn result(&self, txn: Option<TxnResponse>, rejection: Option<Rejection>) -> CommandResult {
        CommandResult { revision: self.counters.revision, txn, rejection }
    }

    fn finish(mut self) -> Applied {
        self.counters.save(&mut self.state);
        let Self { state, counters, events, leases, contents } = self;
        Applied { ops: state.into_ops(), counters, events, leases, contents }
    }
}

#[cfg(test)]
mod leases_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod semantics_test;
