//! [`MemoryBackend`] and [`MemoryStore`]: the same state machine without Raft and disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::{mpsc, watch};

use crate::backend::{Backend, BackendError, Batch, Direction, Space, View, Visit};
use crate::command::{
    Alarm, Command, CommandKind, CommandResult, CompactRequest, LeaseRevokeRequest,
};
use crate::contract::{
    Consistency, Leadership, LeaseGranted, LeaseInfo, Member, MemberStatus, NewMember, Role,
    Snapshot, Store, StoreStatus, WatchRequest,
};
use crate::error::StoreError;
use crate::lessor::{NotLeading, Revocation, grant_lease};
use crate::machine::{Entry, StateMachine, check_command};
use crate::metrics;
use crate::types::{HashKv, LeaseId, MemberId, RangeRequest, RangeResponse, Revision, Term};
use crate::watch::Watcher;

type Spaces = [BTreeMap<Bytes, Bytes>; Space::COUNT];

/// Key spaces in memory. A view holds writers off while it lives.
#[derive(Default)]
pub struct MemoryBackend {
    spaces: RwLock<Spaces>,
}

impl MemoryBackend {
    /// Everything it holds, in order: for comparisons in tests.
    #[must_use]
    pub fn dump(&self) -> Vec<(Space, Bytes, Bytes)> {
        let spaces = self.spaces.read();
        let all = Space::ALL.iter().zip(spaces.iter());
        all.flat_map(|(space, map)| map.iter().map(|(k, v)| (*space, k.clone(), v.clone())))
            .collect()
    }
}

/// A view of a [`MemoryBackend`].
pub struct MemoryView<'a>(RwLockReadGuard<'a, Spaces>);

impl Backend for MemoryBackend {
    type View<'a> = MemoryView<'a>;

    fn view(&self) -> MemoryView<'_> {
        MemoryView(self.spaces.read())
    }

    fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        let mut spaces = self.spaces.write();
        for (space, key, value) in batch.ops {
            let map = &mut spaces[space as usize];
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }
}

impl View for MemoryView<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Ok(self.0[space as usize].get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), BackendError> {
        if end.is_some_and(|end| start >= end) {
            return Ok(());
        }
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries = self.0[space as usize].range::<[u8], _>((Bound::Included(start), upper));
        loop {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Backward => entries.next_back(),
            };
            let Some((key, value)) = entry else { return Ok(()) };
            if visit(key, value).is_break() {
                return Ok(());
            }
        }
    }
}

/// Events that the watch ring of a [`MemoryStore`] keeps.
const RING_EVENTS: usize = 4096;
const MEMBER_ID: u64 = 1;
/// How often the task that ends leases looks whether its store is still there.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

/// A store of one master in memory, which always leads unless a test says otherwise.
pub struct MemoryStore {
    machine: StateMachine<MemoryBackend>,
    leadership: watch::Sender<Leadership>,
    /// Fenced commands until a new term begins: see [`Self::depose_after`].
    until_deposed: Mutex<Option<u64>>,
    /// Index of the last entry; held while applying, so that entries stay in order.
    last_index: Mutex<u64>,
    /// For the task that ends leases; it starts with the first one.
    this: Weak<Self>,
    expiry: Once,
}

impl MemoryStore {
    /// An empty store that leads in term 1.
    #[must_use]
    pub fn new() -> Arc<Self> {
        #[expect(clippy::expect_used, reason = "a new backend in memory is empty and cannot fail")]
        let machine = StateMachine::open(Arc::default(), RING_EVENTS).expect("open in memory");
        let leadership = Leadership { term: 0, leader: None, ready: None };
        let store = Arc::new_cyclic(|this| Self {
            machine,
            leadership: watch::Sender::new(leadership),
            until_deposed: Mutex::default(),
            last_index: Mutex::default(),
            this: this.clone(),
            expiry: Once::new(),
        });
        store.set_term(1);
        store
    }

    /// The state machine within.
    pub fn machine(&self) -> &StateMachine<MemoryBackend> {
        &self.machine
    }

    /// Leads in `term` from now on; work fenced with an older term is refused.
    pub fn set_term(&self, term: Term) {
        #[expect(clippy::expect_used, reason = "a blank entry in memory cannot fail")]
        self.apply(term, None).expect("a blank entry");
        self.leadership.send_replace(Leadership {
            term,
            leader: Some(member()),
            ready: Some(term),
        });
        self.machine.lessor().lead(Some(term));
    }

    /// Begins a new term after so many more commands with a fence: a leader that dies between
    /// any two of its writes.
    pub fn depose_after(&self, commands: u64) {
        *self.until_deposed.lock() = Some(commands);
        self.begin_term_when_due();
    }

    fn count_down(&self) {
        if let Some(left) = self.until_deposed.lock().as_mut() {
            *left = left.saturating_sub(1);
        }
        self.begin_term_when_due();
    }

    fn begin_term_when_due(&self) {
        let due = self.until_deposed.lock().take_if(|left| *left == 0).is_some();
        if due {
            let term = self.leadership.borrow().term;
            self.set_term(term + 1);
        }
    }

    /// Leads no longer, and knows no leader. Writes are still taken, as if they were forwarded.
    pub fn step_down(&self) {
        self.leadership.send_modify(|leadership| {
            leadership.leader = None;
            leadership.ready = None;
        });
        self.machine.lessor().lead(None);
    }

    /// Starts the task "leases", once; it ends with the store.
    fn start_expiry(&self) {
        self.expiry.call_once(|| {
            let (store, lessor) = (self.this.clone(), Arc::clone(self.machine.lessor()));
            tokio::spawn(async move {
                let expire = lessor.expire(|id, fence| {
                    let store = store.clone();
                    async move {
                        let revoke = CommandKind::LeaseRevoke(LeaseRevokeRequest { id });
                        let command = Command { fence, ..revoke.into() };
                        match store.upgrade() {
                            Some(store) if store.propose(command).await.is_err() => {
                                Revocation::NotProposed
                            }
                            _ => Revocation::Done,
                        }
                    }
                });
                let ended = async {
                    while store.strong_count() > 0 {
                        tokio::time::sleep(EXPIRY_CHECK).await;
                    }
                };
                tokio::select! {
                    () = expire => {}
                    () = ended => {}
                }
            });
        });
    }

    fn apply(&self, term: Term, command: Option<Command>) -> Result<CommandResult, BackendError> {
        let mut last_index = self.last_index.lock();
        let index = *last_index + 1;
        let mut results = self.machine.apply(&[Entry { term, index, command }], Vec::new())?;
        *last_index = index;
        results.pop().ok_or_else(|| BackendError::new("an entry without a result"))
    }
}

fn member() -> Member {
    Member {
        id: MEMBER_ID,
        name: "memory".into(),
        peer_url: String::new(),
        client_url: String::new(),
        learner: false,
    }
}

fn no_leader() -> StoreError {
    StoreError::Unavailable { reason: "no leader is known".into(), leader: None }
}

fn now_ms() -> u64 {
    u64::try_from(quorate_clock::since_epoch().as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(
        &self,
        request: RangeRequest,
        _consistency: Consistency,
    ) -> Result<RangeResponse, StoreError> {
        self.machine.range(&request)
    }

    async fn propose(&self, mut command: Command) -> Result<CommandResult, StoreError> {
        check_command(&command)?;
        command.time_ms = now_ms();
        let term = self.leadership.borrow().term;
        let fenced = command.fence != 0;
        let result = self.apply(term, Some(command))?;
        if fenced {
            self.count_down();
        }
        match result.rejection {
            Some(rejection) => Err(rejection.into()),
            None => Ok(result),
        }
    }

    async fn read_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.machine.revision())
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        self.machine.hub().watch(request)
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.machine.hub().applied()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn status(&self) -> StoreStatus {
        let leadership = self.leadership.borrow().clone();
        let leads = leadership.ready.is_some();
        let index = *self.last_index.lock();
        StoreStatus {
            id: MEMBER_ID,
            name: member().name,
            role: if leads { Role::Leader } else { Role::Follower },
            leadership,
            members: vec![MemberStatus {
                member: member(),
                matched_index: leads.then_some(index),
                last_contact_ms: leads.then_some(0),
            }],
            last_index: index,
            applied_index: index,
            revision: self.machine.revision(),
            compact_revision: self.machine.compact_revision(),
            quorum_ack_ms: leads.then_some(0),
            disk_bytes: 0,
            state_bytes: 0,
            state_bytes_in_use: 0,
            budget_bytes: 0,
            alarms: self.alarms().borrow().clone(),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<LeaseGranted, StoreError> {
        self.start_expiry();
        grant_lease(self, id, ttl_seconds).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, StoreError> {
        self.machine.lessor().renew(id).await.map_err(|NotLeading| no_leader())
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<LeaseInfo>, StoreError> {
        let remaining = self.machine.lessor().remaining(id).map_err(|NotLeading| no_leader())?;
        let Some((granted_ttl, left)) = remaining else { return Ok(None) };
        let keys = if with_keys { self.machine.lease_keys(id)? } else { Vec::new() };
        let ttl = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Ok(Some(LeaseInfo { id, granted_ttl, ttl, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        Ok(self.machine.lessor().ids())
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<Revision, StoreError> {
        let result = self.propose(CommandKind::Compact(CompactRequest { revision }).into()).await?;
        while physical && self.machine.compacting() {
            self.apply(self.leadership.borrow().term, None)?;
        }
        Ok(result.revision)
    }

    async fn member_add(&self, _member: NewMember) -> Result<Member, StoreError> {
        Err(StoreError::Unsupported("change its members"))
    }

    async fn member_promote(&self, _id: MemberId) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("change its members"))
    }

    async fn member_remove(&self, _id: MemberId) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("change its members"))
    }

    async fn transfer_leadership(&self, _to: Option<MemberId>) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("hand leadership over"))
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, StoreError> {
        self.machine.hash_kv(revision)
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let (mut revision, mut image) = (0, Vec::new());
        let take = |chunk| {
            image.push(chunk);
            true
        };
        self.machine.image(|at| revision = at, take)?;
        let bytes = image.iter().map(Bytes::len).sum::<usize>();
        let (sender, chunks) = mpsc::channel(image.len());
        for chunk in image {
            // There is room for all.
            let _ = sender.try_send(Ok(chunk));
        }
        Ok(Snapshot { revision, bytes: bytes as u64, chunks })
    }

    async fn defragment(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn write_metrics(&self, text: &mut String) {
        let watchers = self.machine.hub().watchers() as f64;
        metrics::gauge(text, metrics::WATCHERS, "Watchers", watchers);
    }

    fn alarms(&self) -> watch::Receiver<Vec<Alarm>> {
        self.machine.alarms()
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
