//! One test per rule, through the public face of the state machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use bytes::Bytes;

use super::{Entry, StateMachine, check_command};
use crate::backend::{Backend, BackendError, Batch, Space};
use crate::command::*;
use crate::error::StoreError;
use crate::memory::{MemoryBackend, MemoryView};
use crate::types::*;
use crate::{MAX_COMMAND_BYTES, MAX_TXN_DEPTH, MAX_TXN_OPS, REQUEST_IDS_KEPT};

pub(super) struct Rig {
    pub machine: StateMachine<MemoryBackend>,
    index: u64,
}

impl Rig {
    pub fn new() -> Self {
        Self { machine: StateMachine::open(Arc::default(), 64).unwrap(), index: 0 }
    }

    pub fn try_command(&mut self, command: Command) -> Result<CommandResult, BackendError> {
        self.index += 1;
        let entry = Entry { term: 1, index: self.index, command: Some(command) };
        Ok(self.machine.apply(&[entry], Vec::new())?.remove(0))
    }

    pub fn command(&mut self, command: impl Into<Command>) -> CommandResult {
        self.try_command(command.into()).unwrap()
    }

    fn txn(&mut self, request: TxnRequest) -> TxnResponse {
        let result = self.command(request);
        assert_eq!(result.rejection, None);
        result.txn.unwrap()
    }

    fn refused(&mut self, request: TxnRequest) -> Rejection {
        let before = self.machine.hash().unwrap();
        let rejection = self.command(request).rejection.expect("a refusal");
        assert_eq!(self.machine.hash().unwrap(), before, "a refusal changed something");
        rejection
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> Revision {
        self.txn(TxnRequest::put(key, value)).revision
    }

    fn delete(&mut self, key: &'static str) -> Revision {
        self.txn(TxnRequest::delete(KeyRange::single(key))).revision
    }

    fn compact(&mut self, revision: Revision) -> CommandResult {
        self.command(compact(revision))
    }

    pub fn blank(&mut self, term: Term) {
        self.index += 1;
        let entry = Entry { term, index: self.index, command: None };
        self.machine.apply(&[entry], Vec::new()).unwrap();
    }

    fn range(&self, request: RangeRequest) -> RangeResponse {
        self.machine.range(&request).unwrap()
    }

    fn get(&self, key: &'static str) -> Option<KeyValue> {
        self.range(RangeRequest::key(key)).kvs.pop()
    }

    fn at(&self, revision: Revision) -> Vec<(Bytes, Bytes)> {
        let all = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
        self.range(all).kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
    }

    fn count(&self, space: Space) -> usize {
        self.machine.backend().dump().iter().filter(|(s, ..)| *s == space).count()
    }
}

pub(super) fn compact(revision: Revision) -> Command {
    let kind = CommandKind::Compact(CompactRequest { revision });
    Command { kind: Some(kind), ..Command::default() }
}

fn success(ops: Vec<Op>) -> TxnRequest {
    let success = ops.into_iter().map(RequestOp::from).collect();
    TxnRequest { success, ..TxnRequest::default() }
}

fn put_op(key: &'static str, value: &'static str) -> Op {
    Op::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

fn delete_op(range: KeyRange) -> Op {
    Op::DeleteRange(DeleteRangeRequest { range, prev_kv: true })
}

fn keys(response: &RangeResponse) -> Vec<&[u8]> {
    response.kvs.iter().map(|kv| kv.key.as_ref()).collect()
}

#[test]
fn counters_move_as_in_etcd() {
    let mut rig = Rig::new();
    assert_eq!(rig.machine.revision(), 1);
    assert_eq!(rig.put("a", "1"), 2);
    assert_eq!(rig.put("a", "2"), 3);
    let kv = rig.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    assert_eq!(rig.delete("a"), 4);
    assert_eq!(rig.delete("a"), 4, "nothing was deleted");
    assert_eq!(rig.txn(TxnRequest::default()).revision, 4, "nothing was written");
    rig.put("a", "3");
    let kv = rig.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn a_transaction_is_one_revision_and_reads_its_writes() {
    let mut rig = Rig::new();
    rig.put("a", "old");
    let read = || Op::Range(RangeRequest::new(KeyRange::all()));
    let old = Op::Range(RangeRequest { revision: 2, ..RangeRequest::new(KeyRange::all()) });
    let ops =
        vec![read(), put_op("b", "new"), read(), delete_op(KeyRange::single("a")), read(), old];
    let response = rig.txn(success(ops));
    assert_eq!(response.revision, 3);
    let reads: Vec<_> = response
        .responses
        .iter()
        .filter_map(|r| match &r.result {
            Some(OpResult::Range(range)) => Some((range.revision, keys(range))),
            _ => None,
        })
        .collect();
    let (a, b): (&[u8], &[u8]) = (b"a", b"b");
    assert_eq!(reads, [(2, vec![a]), (3, vec![a, b]), (3, vec![b]), (3, vec![a])]);
}

#[test]
fn comparisons_look_at_every_part_of_a_record() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.put("a", "2");
    let mut holds = |key: &'static str, relation: CompareResult, target: CompareTarget| {
        let range = KeyRange::single(key);
        let compare = vec![Compare { range, result: relation.into(), target: Some(target) }];
        rig.txn(TxnRequest { compare, ..TxnRequest::default() }).succeeded
    };
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{CreateRevision, Lease, ModRevision, Value, Version};
    assert!(holds("a", Equal, Version(2)) && !holds("a", NotEqual, Version(2)));
    assert!(holds("a", Greater, CreateRevision(1)) && !holds("a", Greater, CreateRevision(2)));
    assert!(holds("a", Less, ModRevision(4)) && !holds("a", Less, ModRevision(3)));
    assert!(holds("a", Equal, Value("2".into())) && holds("a", Greater, Value("1".into())));
    assert!(holds("a", Equal, Lease(0)));
    // A key that does not exist has zeros, but no value.
    assert!(holds("x", Equal, Version(0)) && holds("x", Equal, ModRevision(0)));
    assert!(!holds("x", Equal, Value(Bytes::new())) && !holds("x", NotEqual, Value("1".into())));
}

#[test]
fn a_comparison_over_a_range_holds_for_all_its_keys() {
    let mut rig = Rig::new();
    rig.put("p/a", "1");
    rig.put("p/b", "1");
    rig.put("q", "2");
    let mut all_equal = |prefix: &'static str, value: &'static str| {
        let target = Some(CompareTarget::Value(value.into()));
        let range = KeyRange::prefix(prefix);
        let compare = vec![Compare { range, result: CompareResult::Equal.into(), target }];
        rig.txn(TxnRequest { compare, ..TxnRequest::default() }).succeeded
    };
    assert!(all_equal("p/", "1"));
    assert!(!all_equal("", "1"));
    assert!(!all_equal("none/", "1"));
}

#[test]
fn nested_comparisons_look_at_the_state_before() {
    let mut rig = Rig::new();
    let nested = TxnRequest {
        compare: vec![Compare::mod_revision("a", 0)],
        success: vec![put_op("absent", "").into()],
        failure: vec![put_op("present", "").into()],
    };
    let response = rig.txn(success(vec![put_op("a", "1"), Op::Txn(nested)]));
    let Some(OpResult::Txn(inner)) = &response.responses[1].result else { panic!() };
    assert!(inner.succeeded);
    assert!(rig.get("absent").is_some() && rig.get("present").is_none());
}

#[test]
fn no_key_is_put_twice_or_put_and_deleted() {
    let mut rig = Rig::new();
    let nested = |ops| Op::Txn(success(ops));
    for ops in [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("a", "1"), delete_op(KeyRange::prefix("a"))],
        vec![nested(vec![put_op("a", "1")]), put_op("a", "2")],
        vec![nested(vec![delete_op(KeyRange::single("a"))]), put_op("a", "2")],
    ] {
        let Rejection::Invalid(text) = rig.refused(success(ops)) else { panic!() };
        assert_eq!(text, "duplicate key given in txn request");
    }
    // Branches exclude each other.
    let either = TxnRequest {
        success: vec![put_op("a", "1").into()],
        failure: vec![put_op("a", "2").into()],
        ..TxnRequest::default()
    };
    rig.txn(success(vec![Op::Txn(either)]));
}

#[test]
fn senseless_requests_are_refused() {
    let mut rig = Rig::new();
    assert!(matches!(rig.refused(TxnRequest::put("", "x")), Rejection::Invalid(_)));
    let many = (0..=MAX_TXN_OPS).map(|_| delete_op(KeyRange::single("a"))).collect();
    assert!(matches!(rig.refused(success(many)), Rejection::Invalid(_)));
    let leased = PutRequest { key: "a".into(), lease: 7, ..PutRequest::default() };
    assert_eq!(rig.refused(success(vec![Op::Put(leased)])), Rejection::LeaseNotFound(7));
    let future = Op::Range(RangeRequest { revision: 9, ..RangeRequest::key("a") });
    let ops = vec![put_op("a", "1"), future];
    assert_eq!(rig.refused(success(ops)), Rejection::FutureRevision(1));
    let empty = rig.machine.range(&RangeRequest::key(""));
    assert!(matches!(empty, Err(StoreError::Invalid(_))));
}

#[test]
fn ignore_value_and_previous_record() {
    let mut rig = Rig::new();
    let keep = PutRequest {
        key: "a".into(),
        ignore_value: true,
        ignore_lease: true,
        prev_kv: true,
        ..PutRequest::default()
    };
    let refused = rig.refused(success(vec![put_op("b", ""), Op::Put(keep.clone())]));
    assert_eq!(refused, Rejection::KeyNotFound("a".into()));
    rig.put("a", "kept");
    let before = rig.get("a");
    let response = rig.txn(success(vec![Op::Put(keep)]));
    let Some(OpResult::Put(put)) = &response.responses[0].result else { panic!() };
    assert_eq!(put.prev_kv, before);
    let kv = rig.get("a").unwrap();
    assert_eq!((kv.value.as_ref(), kv.version), (b"kept".as_ref(), 2));
    let response = rig.txn(success(vec![delete_op(KeyRange::all())]));
    let Some(OpResult::DeleteRange(deleted)) = &response.responses[0].result else { panic!() };
    assert_eq!((deleted.deleted, &deleted.prev_kvs), (1, &vec![kv]));
}

#[test]
fn ranges_take_all_options() {
    let mut rig = Rig::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1"), ("a", "4")] {
        rig.put(key, value);
    }
    let all = || RangeRequest::new(KeyRange::all());
    let limited = rig.range(RangeRequest { limit: 2, ..all() });
    assert_eq!((keys(&limited), limited.more, limited.count), (vec![b"a".as_ref(), b"b"], true, 3));
    let exact = rig.range(RangeRequest { limit: 3, ..all() });
    assert!(!exact.more);
    let counted = rig.range(RangeRequest { count_only: true, limit: 1, ..all() });
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (0, 3, false));
    let bare = rig.range(RangeRequest { keys_only: true, ..all() });
    assert!(bare.kvs.len() == 3 && bare.kvs.iter().all(|kv| kv.value.is_empty()));
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target.into(),
        sort_order: order.into(),
        limit: 2,
        ..all()
    };
    let expect: [(_, _, [&[u8]; 2]); 4] = [
        (SortTarget::Value, SortOrder::None, [b"c", b"b"]),
        (SortTarget::Version, SortOrder::Descend, [b"a", b"b"]),
        (SortTarget::Mod, SortOrder::Descend, [b"a", b"c"]),
        (SortTarget::Key, SortOrder::Descend, [b"c", b"b"]),
    ];
    for (target, order, wanted) in expect {
        for revision in [0, 5] {
            let found = rig.range(RangeRequest { revision, ..sorted(target, order) });
            assert_eq!((keys(&found), found.more), (wanted.to_vec(), true), "{target:?}");
        }
    }
    let bounded = rig.range(RangeRequest { min_mod_revision: 4, max_create_revision: 2, ..all() });
    assert_eq!((keys(&bounded), bounded.count), (vec![b"a".as_ref()], 3));
}

#[test]
fn old_revisions_stay_readable_until_compacted() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.put("b", "1");
    rig.put("a", "2");
    rig.delete("b");
    let pair = |k: &'static str, v: &'static str| (Bytes::from(k), Bytes::from(v));
    assert_eq!(rig.at(2), [pair("a", "1")]);
    assert_eq!(rig.at(3), [pair("a", "1"), pair("b", "1")]);
    assert_eq!(rig.at(4), [pair("a", "2"), pair("b", "1")]);
    assert_eq!(rig.at(5), [pair("a", "2")]);
    assert_eq!(rig.compact(4).rejection, None);
    assert_eq!(rig.at(4), [pair("a", "2"), pair("b", "1")]);
    let old = RangeRequest { revision: 3, ..RangeRequest::key("a") };
    assert_eq!(rig.machine.range(&old), Err(StoreError::Compacted(4)));
    let future = RangeRequest { revision: 6, ..RangeRequest::key("a") };
    assert_eq!(rig.machine.range(&future), Err(StoreError::FutureRevision(5)));
    assert_eq!(rig.compact(4).rejection, Some(Rejection::Compacted(4)));
    assert_eq!(rig.compact(9).rejection, Some(Rejection::FutureRevision(5)));
}

#[test]
fn compaction_removes_what_nobody_can_read_in_steps() {
    let mut rig = Rig::new();
    for _ in 0..300 {
        rig.put("a", "x");
    }
    rig.put("gone", "x");
    let last = rig.delete("gone");
    assert_eq!(rig.count(Space::History), 302);
    rig.compact(last);
    assert!(rig.count(Space::History) > 100, "all at once");
    while rig.machine.counters.lock().compacting {
        rig.blank(1);
    }
    // The latest record of "a", and the tombstone at the compaction revision.
    assert_eq!(rig.count(Space::History), 2);
    assert_eq!(rig.count(Space::Index), 2);
    let next = rig.put("b", "x");
    rig.compact(next);
    assert_eq!(rig.count(Space::History), 2, "the old tombstone goes, b comes");
}

#[test]
fn an_older_fence_is_refused() {
    let mut rig = Rig::new();
    let fenced = |fence| Command { fence, ..Command::from(TxnRequest::put("a", "x")) };
    assert_eq!(rig.command(fenced(1)).rejection, None);
    rig.blank(3);
    assert_eq!(rig.command(fenced(1)).rejection, Some(Rejection::Fenced(3)));
    assert_eq!(rig.command(fenced(3)).rejection, None);
    // The term survives a restart.
    let backend = rig.machine.backend().clone();
    rig.machine = StateMachine::open(backend, 0).unwrap();
    assert_eq!(rig.command(fenced(2)).rejection, Some(Rejection::Fenced(3)));
}

#[test]
fn a_retry_returns_the_first_result() {
    let mut rig = Rig::new();
    let once = |id: u64, fence| Command {
        request_id: Bytes::copy_from_slice(&id.to_be_bytes()),
        fence,
        ..Command::from(TxnRequest::put("a", "x"))
    };
    let first = rig.command(once(0, 1));
    rig.blank(2);
    assert_eq!(rig.command(once(0, 1)), first, "what was done stays done in a later term");
    let refused = rig.command(once(u64::MAX, 1));
    assert_eq!(rig.command(once(u64::MAX, 1)), refused);
    assert_eq!(rig.machine.revision(), first.revision);
    for id in 1..REQUEST_IDS_KEPT as u64 - 1 {
        rig.command(once(id, 0));
    }
    assert_eq!(rig.command(once(0, 0)), first, "still among the last");
    rig.command(once(1 << 40, 0));
    assert_ne!(rig.command(once(0, 0)), first, "forgotten");
    assert_eq!(rig.count(Space::Requests), 2 * REQUEST_IDS_KEPT);
}

#[test]
fn what_is_unknown_stops_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let before = rig.machine.backend().dump();
    let mut compare = Compare::mod_revision("a", 2);
    compare.target = None;
    let mut relation = Compare::mod_revision("a", 2);
    relation.result = 99;
    let unknown = [
        Command::default(),
        success(vec![put_op("b", "1")]).tap(|t| t.failure.push(RequestOp { op: None })),
        TxnRequest { compare: vec![compare], ..TxnRequest::default() }.into(),
        TxnRequest { compare: vec![relation], ..TxnRequest::default() }.into(),
        success(vec![Op::Range(RangeRequest { sort_target: 99, ..RangeRequest::key("a") })]).into(),
    ];
    for command in unknown {
        assert!(matches!(check_command(&command), Err(StoreError::Invalid(_))));
        rig.try_command(command).unwrap_err();
        assert_eq!(rig.machine.backend().dump(), before);
    }
    // Not even the entries before it in the group.
    let entry = |index, command| Entry { term: 1, index, command: Some(command) };
    let group = [entry(2, Command::from(TxnRequest::put("b", "1"))), entry(3, Command::default())];
    rig.machine.apply(&group, Vec::new()).unwrap_err();
    assert_eq!(rig.machine.backend().dump(), before);
}

trait Tap {
    fn tap(self, change: impl FnOnce(&mut TxnRequest)) -> Command;
}

impl Tap for TxnRequest {
    fn tap(mut self, change: impl FnOnce(&mut TxnRequest)) -> Command {
        change(&mut self);
        self.into()
    }
}

#[test]
fn commands_have_a_largest_size() {
    let fits = Command::from(TxnRequest::put("a", vec![0; MAX_COMMAND_BYTES - 100]));
    assert_eq!(check_command(&fits), Ok(()));
    let large = Command::from(TxnRequest::put("a", vec![0; MAX_COMMAND_BYTES]));
    assert!(matches!(check_command(&large), Err(StoreError::TooLarge { .. })));
}

#[test]
fn extra_writes_are_in_the_same_batch() {
    let rig = Rig::new();
    let extra = vec![(Space::Meta, "raft/x".into(), Some("y".into()))];
    let entry = Entry { term: 1, index: 1, command: Some(TxnRequest::put("a", "1").into()) };
    rig.machine.apply(&[entry], extra).unwrap();
    let dump = rig.machine.backend().dump();
    assert!(dump.contains(&(Space::Meta, "raft/x".into(), "y".into())));
    let meta = dump.iter().filter(|(space, ..)| *space == Space::Meta).count();
    assert_eq!(meta, 2, "counters and extra");
}

/// A backend whose disk fails when told to.
#[derive(Default)]
struct Failing {
    inner: MemoryBackend,
    fails: std::sync::atomic::AtomicBool,
}

impl Backend for Failing {
    type View<'a> = MemoryView<'a>;

    fn view(&self) -> MemoryView<'_> {
        self.inner.view()
    }

    fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(BackendError::new("disk on fire"));
        }
        self.inner.commit(batch)
    }
}

#[test]
fn a_failed_commit_is_an_error_and_publishes_nothing() {
    let machine = StateMachine::open(Arc::new(Failing::default()), 64).unwrap();
    machine.backend().fails.store(true, std::sync::atomic::Ordering::SeqCst);
    let entry = Entry { term: 1, index: 1, command: Some(TxnRequest::put("a", "1").into()) };
    machine.apply(&[entry], Vec::new()).unwrap_err();
    assert_eq!(machine.revision(), 1);
    assert_eq!(*machine.hub().applied().borrow(), 1);
    assert_eq!(machine.range(&RangeRequest::key("a")).unwrap().count, 0);
}

#[test]
fn another_format_is_refused() {
    let rig = Rig::new();
    let entry = Entry { term: 1, index: 1, command: None };
    rig.machine.apply(&[entry], Vec::new()).unwrap();
    let backend = rig.machine.backend().clone();
    // Field 1 of the counters is the format.
    let ops = vec![(Space::Meta, "machine/counters".into(), Some(Bytes::from_static(&[8, 99])))];
    backend.commit(Batch { ops }).unwrap();
    let Err(error) = StateMachine::open(backend, 0) else { panic!("opened") };
    assert!(error.to_string().contains("format 99"));
}

#[test]
fn a_watcher_of_large_values_gets_bearable_batches() {
    let mut rig = Rig::new();
    let value = "x".repeat(1 << 20);
    let mut last = 0;
    // More than the ring holds, so that history is asked.
    for _ in 0..24 {
        last = rig.txn(TxnRequest::put("k", value.clone())).revision;
    }
    let range = KeyRange::single("k");
    let request = crate::WatchRequest { range, start_revision: 2, ..Default::default() };
    let mut watcher = rig.machine.hub().watch(request).unwrap();
    let first = watcher.try_next().unwrap().unwrap();
    assert_eq!(first.events.len(), 4, "4 MiB and no more");
    let mut events = first.events.len();
    while watcher.progress() < last {
        events += watcher.try_next().unwrap().unwrap().events.len();
    }
    assert_eq!(events, 24);
}

/// A put inside so many transactions.
fn nested(levels: usize) -> TxnRequest {
    (1..levels).fold(TxnRequest::put("k", "v"), |inner, _| TxnRequest {
        success: vec![Op::Txn(inner).into()],
        ..TxnRequest::default()
    })
}

#[test]
fn what_not_everyone_could_decode_is_refused_before_the_log() {
    let deepest = Command::from(nested(MAX_TXN_DEPTH));
    assert_eq!(check_command(&deepest), Ok(()));
    let batch = BatchRequest { txns: vec![nested(MAX_TXN_DEPTH)] };
    for command in [deepest, CommandKind::Batch(batch).into()] {
        let bytes = prost::Message::encode_to_vec(&command);
        assert_eq!(<Command as prost::Message>::decode(&*bytes), Ok(command));
    }
    let deeper = check_command(&nested(MAX_TXN_DEPTH + 1).into());
    assert!(matches!(deeper, Err(StoreError::Invalid(_))), "{deeper:?}");
}

/// An entry may take long to apply, and those who keep the cluster alive ask meanwhile.
#[test]
fn whether_it_compacts_is_known_while_a_group_is_applied() {
    let rig = Rig::new();
    let _applying = rig.machine.counters.lock();
    std::thread::scope(|scope| {
        let (told, answer) = std::sync::mpsc::channel();
        let machine = &rig.machine;
        scope.spawn(move || told.send(machine.compacting()));
        let patience = std::time::Duration::from_secs(20);
        assert_eq!(answer.recv_timeout(patience), Ok(false), "it waits for the group");
    });
}
