//! Random logs against a model that is too simple to be wrong: it keeps a full copy of all keys
//! for every revision.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::semantics_test::compact;
use super::{Entry, StateMachine, check_command};
use crate::command::*;
use crate::contract::WatchRequest;
use crate::error::StoreError;
use crate::memory::MemoryBackend;
use crate::types::*;

type State = BTreeMap<Bytes, KeyValue>;

#[derive(Default)]
struct Model {
    /// The keys at each revision, by revision; index 0 is never used.
    states: Vec<State>,
    events: Vec<Event>,
    compact_revision: Revision,
    term: Term,
    results: BTreeMap<Bytes, CommandResult>,
    leases: BTreeSet<LeaseId>,
    /// The member without space.
    full: Option<MemberId>,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![State::new(); 2], ..Self::default() }
    }

    fn revision(&self) -> Revision {
        self.states.len() as u64 - 1
    }

    fn entry(&mut self, entry: &Entry) -> CommandResult {
        self.term = self.term.max(entry.term);
        let Some(command) = &entry.command else { return self.result(None, None) };
        if let Some(first) = self.results.get(&command.request_id) {
            return first.clone();
        }
        let result = match self.command(command) {
            Ok(txn) => self.result(txn, None),
            Err(rejection) => self.result(None, Some(rejection)),
        };
        if !command.request_id.is_empty() {
            self.results.insert(command.request_id.clone(), result.clone());
        }
        result
    }

    fn result(&self, txn: Option<TxnResponse>, rejection: Option<Rejection>) -> CommandResult {
        CommandResult { revision: self.revision(), txn, rejection }
    }

    fn command(&mut self, command: &Command) -> Result<Option<TxnResponse>, Rejection> {
        if command.fence != 0 && command.fence < self.term {
            return Err(Rejection::Fenced(self.term));
        }
        // Which requests make sense in themselves has tests of its own.
        if let Err(StoreError::Invalid(text)) = check_command(command) {
            return Err(Rejection::Invalid(text));
        }
        let kind = command.kind.as_ref().unwrap();
        if let (Some(member), true) = (self.full, stores(kind)) {
            return Err(Rejection::NoSpace(member));
        }
        match kind {
            CommandKind::LeaseGrant(grant) => match self.leases.insert(grant.id) {
                true => Ok(None),
                false => Err(Rejection::LeaseExists(grant.id)),
            },
            CommandKind::LeaseRevoke(LeaseRevokeRequest { id }) => {
                if !self.leases.remove(id) {
                    return Err(Rejection::LeaseNotFound(*id));
                }
                let mut now = self.states.last().unwrap().clone();
                let attached: Vec<_> =
                    now.values().filter(|kv| kv.lease == *id).map(|kv| kv.key.clone()).collect();
                let (next, mut events) = (self.revision() + 1, Vec::new());
                for key in attached {
                    let range = KeyRange::single(key);
                    let delete = DeleteRangeRequest { range, prev_kv: false };
                    erase(&mut now, &delete, next, &mut events);
                }
                if !events.is_empty() {
                    self.states.push(now);
                    self.events.extend(events);
                }
                Ok(None)
            }
            CommandKind::Register(_) => Ok(None),
            CommandKind::Alarm(AlarmRequest { alarm, active }) => {
                self.full = active.then_some(alarm.member);
                Ok(None)
            }
            CommandKind::Compact(CompactRequest { revision }) => {
                if *revision <= self.compact_revision {
                    return Err(Rejection::Compacted(self.compact_revision));
                }
                if *revision > self.revision() {
                    return Err(Rejection::FutureRevision(self.revision()));
                }
                self.compact_revision = *revision;
                Ok(None)
            }
            CommandKind::Txn(request) => self.whole_txn(request).map(Some),
            CommandKind::Batch(request) => {
                let each = request.txns.iter().map(|txn| self.whole_txn(txn));
                let responses: Result<Vec<_>, _> =
                    each.map(|done| done.map(|done| OpResult::Txn(done).into())).collect();
                let responses = responses?;
                Ok(Some(TxnResponse { revision: self.revision(), succeeded: true, responses }))
            }
        }
    }

    fn whole_txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Rejection> {
        let before = self.states.last().unwrap().clone();
        self.refuses(&before, request)?;
        let mut events = Vec::new();
        let mut now = before.clone();
        let response = self.txn(&before, &mut now, request, &mut events);
        if !events.is_empty() {
            self.states.push(now);
            self.events.extend(events);
        }
        Ok(response)
    }

    fn refuses(&self, before: &State, txn: &TxnRequest) -> Result<(), Rejection> {
        branch(before, txn).1.iter().try_for_each(|op| match op.op.as_ref().unwrap() {
            Op::Range(range) if range.revision > self.revision() => {
                Err(Rejection::FutureRevision(self.revision()))
            }
            Op::Range(range) if range.revision != 0 && range.revision < self.compact_revision => {
                Err(Rejection::Compacted(self.compact_revision))
            }
            Op::Put(put) if put.lease != 0 && !self.leases.contains(&put.lease) => {
                Err(Rejection::LeaseNotFound(put.lease))
            }
            Op::Put(put)
                if (put.ignore_value || put.ignore_lease) && !before.contains_key(&put.key) =>
            {
                Err(Rejection::KeyNotFound(put.key.clone()))
            }
            Op::Txn(nested) => self.refuses(before, nested),
            _ => Ok(()),
        })
    }

    fn txn(
        &self,
        before: &State,
        now: &mut State,
        txn: &TxnRequest,
        events: &mut Vec<Event>,
    ) -> TxnResponse {
        let next = self.revision() + 1;
        let current = |events: &[Event]| if events.is_empty() { next - 1 } else { next };
        let (succeeded, ops) = branch(before, txn);
        let mut responses = Vec::new();
        for op in ops {
            let result = match op.op.as_ref().unwrap() {
                Op::Range(range) if range.revision == 0 => {
                    OpResult::Range(read(now, range, current(events)))
                }
                Op::Range(range) => {
                    let old = &self.states[range.revision as usize];
                    OpResult::Range(read(old, range, current(events)))
                }
                Op::Put(put) => OpResult::Put(write(now, put, next, events)),
                Op::DeleteRange(delete) => OpResult::DeleteRange(erase(now, delete, next, events)),
                Op::Txn(nested) => OpResult::Txn(self.txn(before, now, nested, events)),
            };
            responses.push(result.into());
        }
        TxnResponse { revision: current(events), succeeded, responses }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let revision = if request.revision == 0 { self.revision() } else { request.revision };
        if revision > self.revision() {
            return Err(StoreError::FutureRevision(self.revision()));
        }
        if revision < self.compact_revision {
            return Err(StoreError::Compacted(self.compact_revision));
        }
        Ok(read(&self.states[revision as usize], request, self.revision()))
    }
}

fn stores(kind: &CommandKind) -> bool {
    fn puts(txn: &TxnRequest) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match op.op.as_ref().unwrap() {
            Op::Put(_) => true,
            Op::Txn(nested) => puts(nested),
            _ => false,
        })
    }
    match kind {
        CommandKind::Txn(txn) => puts(txn),
        CommandKind::Batch(batch) => batch.txns.iter().any(puts),
        kind => matches!(kind, CommandKind::LeaseGrant(_)),
    }
}

fn branch<'t>(before: &State, txn: &'t TxnRequest) -> (bool, &'t [RequestOp]) {
    let succeeded = txn.compare.iter().all(|compare| {
        let inside: Vec<_> = before.values().filter(|kv| compare.range.contains(&kv.key)).collect();
        let target = compare.target.as_ref().unwrap();
        match (inside.as_slice(), target) {
            ([], CompareTarget::Value(_)) => false,
            ([], _) => relates(&KeyValue::default(), target, compare.result),
            (all, _) => all.iter().all(|kv| relates(kv, target, compare.result)),
        }
    });
    (succeeded, if succeeded { &txn.success } else { &txn.failure })
}

fn relates(kv: &KeyValue, target: &CompareTarget, relation: i32) -> bool {
    let order = match target {
        CompareTarget::Version(x) => kv.version.cmp(x),
        CompareTarget::CreateRevision(x) => kv.create_revision.cmp(x),
        CompareTarget::ModRevision(x) => kv.mod_revision.cmp(x),
        CompareTarget::Value(x) => kv.value.cmp(x),
        CompareTarget::Lease(x) => kv.lease.cmp(x),
    } as i32;
    [order == 0, order > 0, order < 0, order != 0][relation as usize]
}

fn read(state: &State, request: &RangeRequest, revision: Revision) -> RangeResponse {
    let mut kvs: Vec<_> =
        state.values().filter(|kv| request.range.contains(&kv.key)).cloned().collect();
    let count = kvs.len() as u64;
    if request.count_only {
        return RangeResponse { count, revision, ..RangeResponse::default() };
    }
    let max = |bound| if bound == 0 { u64::MAX } else { bound };
    kvs.retain(|kv| {
        (request.min_mod_revision..=max(request.max_mod_revision)).contains(&kv.mod_revision)
            && (request.min_create_revision..=max(request.max_create_revision))
                .contains(&kv.create_revision)
    });
    let number = |kv: &KeyValue| match request.sort_target() {
        SortTarget::Version => kv.version,
        SortTarget::Create => kv.create_revision,
        SortTarget::Mod => kv.mod_revision,
        SortTarget::Key | SortTarget::Value => 0,
    };
    kvs.sort_by(|a, b| {
        let order = match request.sort_target() {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Value => a.value.cmp(&b.value),
            _ => number(a).cmp(&number(b)),
        };
        if request.sort_order() == SortOrder::Descend { order.reverse() } else { order }
    });
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    RangeResponse { kvs, more, count, revision }
}

fn write(
    now: &mut State,
    put: &PutRequest,
    next: Revision,
    events: &mut Vec<Event>,
) -> PutResponse {
    let previous = now.get(&put.key).cloned();
    let old = previous.clone();
    let kv = KeyValue {
        key: put.key.clone(),
        create_revision: old.as_ref().map_or(next, |kv| kv.create_revision),
        mod_revision: next,
        version: old.as_ref().map_or(0, |kv| kv.version) + 1,
        lease: if put.ignore_lease { old.as_ref().unwrap().lease } else { put.lease },
        value: if put.ignore_value { old.unwrap().value } else { put.value.clone() },
    };
    now.insert(put.key.clone(), kv.clone());
    events.push(Event { kind: EventType::Put, kv, prev_kv: previous.clone() });
    PutResponse { prev_kv: previous.filter(|_| put.prev_kv) }
}

fn erase(
    now: &mut State,
    delete: &DeleteRangeRequest,
    next: Revision,
    events: &mut Vec<Event>,
) -> DeleteRangeResponse {
    let doomed: Vec<_> =
        now.values().filter(|kv| delete.range.contains(&kv.key)).cloned().collect();
    for kv in &doomed {
        now.remove(&kv.key);
        let gone = KeyValue { key: kv.key.clone(), mod_revision: next, ..KeyValue::default() };
        events.push(Event { kind: EventType::Delete, kv: gone, prev_kv: Some(kv.clone()) });
    }
    let deleted = doomed.len() as u64;
    DeleteRangeResponse { deleted, prev_kvs: if delete.prev_kv { doomed } else { Vec::new() } }
}

fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&[u8]; 7] = [b"a", b"a\0", b"a\0\xff", b"b", b"b/1", b"b/2", b"\xff"];
    select(keys.map(Bytes::from_static).to_vec())
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::single),
        1 => key().prop_map(KeyRange::prefix),
        1 => Just(KeyRange::all()),
        1 => (key(), key()).prop_map(|(key, end)| KeyRange { key, end }),
        1 => key().prop_map(|key| KeyRange { key, end: Bytes::from_static(&[0]) }),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    select(vec![Bytes::new(), Bytes::from_static(b"x"), Bytes::from_static(b"yy")])
}

/// Mostly "no bound", else a small revision.
fn bound() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 1 => 1u64..30]
}

prop_compose! {
    fn range_request()(
        range in key_range(),
        revision in bound(),
        limit in 0u64..4,
        (keys_only, count_only) in (any::<bool>(), proptest::bool::weighted(0.1)),
        (sort_order, sort_target) in (0i32..3, 0i32..5),
        bounds in [bound(), bound(), bound(), bound()],
    ) -> RangeRequest {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        RangeRequest {
            range, revision, limit, keys_only, count_only, sort_order, sort_target,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0u64..4).prop_map(CompareTarget::Version),
        (0u64..20).prop_map(CompareTarget::CreateRevision),
        (0u64..20).prop_map(CompareTarget::ModRevision),
        value().prop_map(CompareTarget::Value),
        (-1i64..2).prop_map(CompareTarget::Lease),
    ];
    (key_range(), 0i32..4, target).prop_map(|(range, result, target)| Compare {
        range,
        result,
        target: Some(target),
    })
}

fn op() -> impl Strategy<Value = Op> {
    let lease = prop_oneof![3 => Just(0), 2 => 1i64..4];
    let ignores = [proptest::bool::weighted(0.15), proptest::bool::weighted(0.15)];
    let put = (key(), value(), lease, any::<bool>(), ignores).prop_map(
        |(key, value, lease, prev_kv, [ignore_value, ignore_lease])| {
            let value = if ignore_value { Bytes::new() } else { value };
            let lease = if ignore_lease { 0 } else { lease };
            Op::Put(PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease })
        },
    );
    let delete = (key_range(), any::<bool>())
        .prop_map(|(range, prev_kv)| Op::DeleteRange(DeleteRangeRequest { range, prev_kv }));
    let leaf = prop_oneof![5 => put, 2 => delete, 2 => range_request().prop_map(Op::Range)];
    leaf.prop_recursive(2, 6, 2, |inner| txn_of(inner).prop_map(Op::Txn))
}

fn txn_of(op: impl Strategy<Value = Op> + Clone) -> impl Strategy<Value = TxnRequest> {
    let ops = vec(op.prop_map(RequestOp::from), 0..3);
    (vec(compare(), 0..2), ops.clone(), ops).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

fn make_certain(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match op.op.as_mut().unwrap() {
            Op::Range(range) => range.revision = 0,
            Op::Put(put) => {
                (put.lease, put.ignore_lease, put.ignore_value) = (0, false, false);
            }
            Op::Txn(nested) => make_certain(nested),
            Op::DeleteRange(_) => {}
        }
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let single = op().prop_map(|op| TxnRequest { success: vec![op.into()], ..Default::default() });
    let command = prop_oneof![
        6 => single.prop_map(Command::from),
        6 => txn_of(op().boxed()).prop_map(Command::from),
        6 => vec(txn_of(op().boxed()), 0..4).prop_map(|mut txns| {
            // What could be refused is refused as a whole, mostly.
            txns.iter_mut().for_each(make_certain);
            CommandKind::Batch(BatchRequest { txns }).into()
        }),
        1 => vec(txn_of(op().boxed()), 0..3)
            .prop_map(|txns| CommandKind::Batch(BatchRequest { txns }).into()),
        1 => (0u64..40).prop_map(compact),
        2 => (1i64..4).prop_map(|id| {
            CommandKind::LeaseGrant(LeaseGrantRequest { id, ttl_seconds: 5 }).into()
        }),
        1 => (1i64..4).prop_map(|id| CommandKind::LeaseRevoke(LeaseRevokeRequest { id }).into()),
        // Off more often than on, or little else would be tried.
        1 => proptest::bool::weighted(0.2).prop_map(|active| {
            let alarm = Alarm { member: 1, kind: AlarmKind::NoSpace.into() };
            CommandKind::Alarm(AlarmRequest { alarm, active }).into()
        }),
    ];
    let id = prop_oneof![5 => Just(Bytes::new()), 1 => (0u8..3).prop_map(|id| vec![id; 16].into())];
    let fence = prop_oneof![4 => Just(0), 1 => 1u64..4];
    let command = (command, id, fence).prop_map(|(command, request_id, fence)| Command {
        request_id,
        fence,
        ..command
    });
    (proptest::option::weighted(0.95, command), proptest::bool::weighted(0.05))
        .prop_map(|(command, new_term)| Entry { term: u64::from(new_term), index: 0, command })
}

/// A log: indexes and terms count up.
fn log() -> impl Strategy<Value = Vec<Entry>> {
    vec(entry(), 1..60).prop_map(|mut log| {
        let mut term = 1;
        for (index, entry) in log.iter_mut().enumerate() {
            term += entry.term;
            (entry.term, entry.index) = (term, index as u64 + 1);
        }
        log
    })
}

fn machine(ring: usize) -> StateMachine<MemoryBackend> {
    StateMachine::open(Arc::default(), ring).unwrap()
}

/// All events a watcher gets, with what compaction may have taken away taken away.
fn watched(
    machine: &StateMachine<MemoryBackend>,
    range: &KeyRange,
    start_revision: Revision,
) -> Result<Vec<Event>, StoreError> {
    let range = range.clone();
    let request = WatchRequest { range, start_revision, prev_kv: true, ..WatchRequest::default() };
    let mut watcher = machine.hub().watch(request)?;
    let mut events = Vec::new();
    while let Some(batch) = watcher.try_next()? {
        events.extend(batch.events);
    }
    Ok(normal(events, machine.compact_revision()))
}

fn normal(mut events: Vec<Event>, compact_revision: Revision) -> Vec<Event> {
    for event in events.iter_mut().filter(|event| event.kv.mod_revision <= compact_revision) {
        event.prev_kv = None;
    }
    events
}

fn check_reads(machine: &StateMachine<MemoryBackend>, model: &Model) {
    for revision in 0..=model.revision() + 1 {
        let all = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
        assert_eq!(machine.range(&all), model.range(&all), "at revision {revision}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_does_what_the_model_does(
        log in log(),
        ring in select(vec![0usize, 5, 1000]),
        reads in vec(range_request(), 0..8),
        watches in vec((key_range(), 1u64..40), 0..8),
    ) {
        let (machine, mut model) = (machine(ring), Model::new());
        for entry in log {
            let result = machine.apply(std::slice::from_ref(&entry), Vec::new()).unwrap().remove(0);
            prop_assert_eq!(result, model.entry(&entry), "of {:?}", entry);
            prop_assert_eq!(machine.revision(), model.revision());
        }
        check_reads(&machine, &model);
        for read in &reads {
            prop_assert_eq!(machine.range(read), model.range(read), "{:?}", read);
        }
        for (range, start) in &watches {
            let expected = if *start < model.compact_revision {
                Err(StoreError::Compacted(model.compact_revision))
            } else {
                let wanted = model.events.iter().filter(|event| {
                    event.kv.mod_revision >= *start && range.contains(&event.kv.key)
                });
                Ok(normal(wanted.cloned().collect(), model.compact_revision))
            };
            prop_assert_eq!(watched(&machine, range, *start), expected);
        }
        for id in &model.leases {
            let state = model.states.last().unwrap().values();
            let attached = state.filter(|kv| kv.lease == *id).map(|kv| kv.key.clone());
            let attached: Vec<_> = attached.collect();
            prop_assert_eq!(machine.lease_keys(*id).unwrap(), attached);
        }
        let ids: Vec<_> = model.leases.iter().copied().collect();
        prop_assert_eq!(machine.lessor().ids(), ids);
        prop_assert!(machine.scrub().unwrap(), "the hash of the content");
        // A restart changes nothing.
        let reopened = StateMachine::open(machine.backend().clone(), 0).unwrap();
        prop_assert_eq!(reopened.hash(), machine.hash());
        check_reads(&reopened, &model);
    }

    #[test]
    fn grouping_makes_no_difference(log in log(), cuts in vec(1usize..9, 60)) {
        let (together, apart, grouped) = (machine(0), machine(5), machine(1000));
        let expected = together.apply(&log, Vec::new()).unwrap();
        let mut results = Vec::new();
        for entry in &log {
            results.extend(apart.apply(std::slice::from_ref(entry), Vec::new()).unwrap());
        }
        prop_assert_eq!(&results, &expected);
        results.clear();
        let mut rest = log.as_slice();
        for cut in cuts {
            let (group, later) = rest.split_at(cut.min(rest.len()));
            results.extend(grouped.apply(group, Vec::new()).unwrap());
            rest = later;
        }
        prop_assert_eq!(&results, &expected);
        let dump = together.backend().dump();
        prop_assert_eq!(&apart.backend().dump(), &dump);
        prop_assert_eq!(&grouped.backend().dump(), &dump);
        prop_assert_eq!(apart.hash(), together.hash());
        for revision in 1..=together.revision() {
            prop_assert_eq!(apart.content_at(revision), together.content_at(revision));
            prop_assert!(apart.content_at(revision).is_some());
        }
        prop_assert_eq!(grouped.hash(), together.hash());
    }
}

/// Nothing that nobody can read stays once compaction has done its steps.
#[test]
fn compaction_leaves_what_the_model_would() {
    let runner = &mut proptest::test_runner::TestRunner::default();
    let check = |log: Vec<Entry>| {
        let (machine, mut model) = (machine(0), Model::new());
        for entry in &log {
            machine.apply(std::slice::from_ref(entry), Vec::new()).unwrap();
            model.entry(entry);
        }
        let blank = Entry { term: 9, index: 0, command: None };
        while machine.counters.lock().compacting {
            machine.apply(std::slice::from_ref(&blank), Vec::new()).unwrap();
        }
        let at = model.compact_revision;
        let kept = model.states[at as usize].values().filter(|kv| kv.mod_revision < at).count()
            + model.events.iter().filter(|event| event.kv.mod_revision >= at).count();
        let count = |space| machine.backend().dump().iter().filter(|e| e.0 == space).count();
        assert_eq!(count(crate::Space::History), kept);
        assert_eq!(count(crate::Space::Index), kept);
        Ok(())
    };
    runner.run(&log(), check).unwrap();
}
