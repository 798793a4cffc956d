//! Transactions: look, check, then do.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::Refusal;
use super::check::unknown;
use super::codec::{
    Change, Moment, copy_record, decode_record, encode_record, index_key, mark, tombstone,
};
use super::hash::record_hash;
use super::leases;
use super::overlay::{Overlay, try_scan};
use super::range::{ReadPoint, range};
use crate::backend::{BackendError, Direction, Space, View};
use crate::command::Rejection;
use crate::types::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Event,
    EventType, KeyRange, KeyValue, LeaseId, Op, OpResult, PutRequest, PutResponse, RangeRequest,
    RequestOp, Revision, TxnRequest, TxnResponse,
};

/// What a transaction did.
pub(super) struct Done {
    pub response: TxnResponse,
    pub changes: Changes,
}

/// What a command changed.
#[derive(Default)]
pub(super) struct Changes {
    /// Empty when nothing changed; then the revision does not move.
    pub events: Vec<Event>,
    /// What is to be added to the content's hash, wrapping.
    pub content: u64,
}

/// Carries out a transaction that [`super::check`] found sensible. After the first write only
/// the storage can fail, so a refusal leaves no trace.
pub(super) fn execute<V: View>(
    state: &mut Overlay<'_, V>,
    request: &TxnRequest,
    at: ReadPoint,
) -> Result<Done, Refusal> {
    let plan = Plan::new(state, request)?;
    plan.check(state, at)?;
    let mut txn = Txn { state, at, events: Vec::new(), content: 0 };
    let response = txn.run(&plan)?;
    let changes = Changes { events: txn.events, content: txn.content };
    Ok(Done { response, changes })
}

/// Ends a lease: its keys are deleted at one revision, which is a new one if there were any.
pub(super) fn revoke<V: View>(
    state: &mut Overlay<'_, V>,
    lease: LeaseId,
    at: ReadPoint,
) -> Result<Changes, Refusal> {
    if leases::ttl(state, lease)?.is_none() {
        return Err(Rejection::LeaseNotFound(lease).into());
    }
    let mut txn = Txn { state, at, events: Vec::new(), content: 0 };
    for key in leases::keys(txn.state, lease)? {
        txn.delete(&DeleteRangeRequest { range: KeyRange::single(key), prev_kv: false })?;
    }
    let changes = Changes { events: txn.events, content: txn.content };
    leases::remove(state, lease);
    Ok(changes)
}

/// The branches that a transaction takes. All comparisons, nested ones too, look at the state
/// before the transaction, as in etcd.
struct Plan<'r> {
    succeeded: bool,
    steps: Vec<Step<'r>>,
}

enum Step<'r> {
    Range(&'r RangeRequest),
    Put(&'r PutRequest),
    Delete(&'r DeleteRangeRequest),
    Txn(Plan<'r>),
}

impl<'r> Plan<'r> {
    fn new(view: &impl View, request: &'r TxnRequest) -> Result<Self, BackendError> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = succeeded && holds(view, compare)?;
        }
        let ops = if succeeded { &request.success } else { &request.failure };
        let steps = ops.iter().map(|op| Step::new(view, op)).collect::<Result<_, _>>()?;
        Ok(Self { succeeded, steps })
    }

    /// Refuses what the state does not allow.
    fn check(&self, view: &impl View, at: ReadPoint) -> Result<(), Refusal> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Range(request) => Ok(at.check(request.revision)?),
            Step::Put(put) => check_put(view, put),
            Step::Delete(_) => Ok(()),
            Step::Txn(plan) => plan.check(view, at),
        })
    }
}

impl<'r> Step<'r> {
    fn new(view: &impl View, op: &'r RequestOp) -> Result<Self, BackendError> {
        Ok(match op.op.as_ref().ok_or_else(|| unknown("operation"))? {
            Op::Range(request) => Self::Range(request),
            Op::Put(request) => Self::Put(request),
            Op::DeleteRange(request) => Self::Delete(request),
            Op::Txn(request) => Self::Txn(Plan::new(view, request)?),
        })
    }
}

fn check_put(view: &impl View, put: &PutRequest) -> Result<(), Refusal> {
    if put.lease != 0 && leases::ttl(view, put.lease)?.is_none() {
        return Err(Rejection::LeaseNotFound(put.lease).into());
    }
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && view.get(Space::Latest, &put.key)?.is_none() {
        return Err(Rejection::KeyNotFound(put.key.clone()).into());
    }
    Ok(())
}

/// Does a comparison hold for every key of its range? One for a key that does not exist sees
/// zeros, except that there is no value to compare with.
fn holds(view: &impl View, compare: &Compare) -> Result<bool, BackendError> {
    let target = compare.target.as_ref().ok_or_else(|| unknown("comparison"))?;
    let relation = CompareResult::try_from(compare.result).map_err(|_| unknown("comparison"))?;
    let with_value = matches!(target, CompareTarget::Value(_));
    let (mut found, mut all) = (false, true);
    let KeyRange { key, end } = &compare.range;
    if compare.range.is_single() {
        if let Some(record) = view.get(Space::Latest, key)? {
            return Ok(relates(&decode_record(key.clone(), &record)?, target, relation));
        }
    } else {
        let end = (!compare.range.is_unbounded()).then_some(end.as_ref());
        try_scan(view, Space::Latest, key, end, Direction::Forward, |key, record| {
            found = true;
            all = relates(&copy_record(key, record, with_value)?, target, relation);
            let flow = if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            Ok::<_, BackendError>(flow)
        })?;
    }
    Ok(if found { all } else { !with_value && relates(&KeyValue::default(), target, relation) })
}

fn relates(kv: &KeyValue, target: &CompareTarget, relation: CompareResult) -> bool {
    let order = match target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
    };
    match relation {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// A transaction at work. Each event so far is one sub-revision.
struct Txn<'t, 'v, V: View> {
    state: &'t mut Overlay<'v, V>,
    /// The state before the transaction.
    at: ReadPoint,
    events: Vec<Event>,
    content: u64,
}

impl<V: View> Txn<'_, '_, V> {
    /// The revision as it stands: the next one as soon as something has changed.
    fn revision(&self) -> Revision {
        self.at.revision + u64::from(!self.events.is_empty())
    }

    fn run(&mut self, plan: &Plan<'_>) -> Result<TxnResponse, Refusal> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let result = match step {
                Step::Range(request) => {
                    let at = ReadPoint { revision: self.revision(), ..self.at };
                    OpResult::Range(range(self.state, request, at)?)
                }
                Step::Put(request) => OpResult::Put(self.put(request)?),
                Step::Delete(request) => OpResult::DeleteRange(self.delete(request)?),
                Step::Txn(plan) => OpResult::Txn(self.run(plan)?),
            };
            responses.push(result.into());
        }
        Ok(TxnResponse { revision: self.revision(), succeeded: plan.succeeded, responses })
    }

    fn put(&mut self, request: &PutRequest) -> Result<PutResponse, BackendError> {
        let previous = match self.state.get(Space::Latest, &request.key)? {
            Some(record) => {
                self.content = self.content.wrapping_sub(record_hash(&request.key, &record));
                Some(decode_record(request.key.clone(), &record)?)
            }
            None => None,
        };
        let revision = self.at.revision + 1;
        let mut kv = KeyValue {
            key: request.key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if let Some(previous) = &previous {
            kv.create_revision = previous.create_revision;
            kv.version = previous.version + 1;
            if request.ignore_value {
                kv.value = previous.value.clone();
            }
            if request.ignore_lease {
                kv.lease = previous.lease;
            }
        }
        let before = previous.as_ref().map_or(0, |previous| previous.lease);
        leases::attach(self.state, &kv.key, before, kv.lease);
        let record = encode_record(&kv);
        self.content = self.content.wrapping_add(record_hash(&kv.key, &record));
        self.record_change(Change { kind: EventType::Put, key: &kv.key, record: &record });
        self.state.put(Space::Latest, kv.key.clone(), record);
        let prev_kv = previous.clone().filter(|_| request.prev_kv);
        self.events.push(Event { kind: EventType::Put, kv, prev_kv: previous });
        Ok(PutResponse { prev_kv })
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Refusal> {
        let all = RangeRequest::new(request.range.clone());
        let at = ReadPoint { revision: self.revision(), ..self.at };
        let doomed = range(self.state, &all, at)?.kvs;
        let deleted = doomed.len() as u64;
        let prev_kvs = if request.prev_kv { doomed.clone() } else { Vec::new() };
        for previous in doomed {
            let key = previous.key.clone();
            let record = encode_record(&previous);
            self.content = self.content.wrapping_sub(record_hash(&key, &record));
            self.record_change(Change { kind: EventType::Delete, key: &key, record: &[] });
            self.state.delete(Space::Latest, key.clone());
            leases::attach(self.state, &key, previous.lease, 0);
            let kv = tombstone(key, self.at.revision + 1);
            self.events.push(Event { kind: EventType::Delete, kv, prev_kv: Some(previous) });
        }
        Ok(DeleteRangeResponse { deleted, prev_kvs })
    }

    /// Writes history; to be called before the change's event is added, as the number of events
    /// is the sub-revision.
    fn record_change(&mut self, change: Change<'_>) {
        // Far fewer than 2^32 changes fit into memory.
        let sub = self.events.len() as u32;
        let moment = Moment { revision: self.at.revision + 1, sub };
        let place = Bytes::copy_from_slice(&moment.encode());
        self.state.put(Space::History, place, change.encode());
        self.state.put(Space::Index, index_key(change.key, moment), mark(change.kind));
    }
}
