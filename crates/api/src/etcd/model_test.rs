//! Random operations through the service, against a model of etcd's semantics that is too simple
//! to be wrong: a full copy of all keys for every revision, in the messages of the wire. And
//! random bytes into every method.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request as HttpRequest;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::compare::TargetUnion as Operand;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcd::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcd::etcdserverpb::response_op::Response as Answer;
use quorate_proto::etcd::mvccpb::KeyValue;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tower::ServiceExt as _;

use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, soon};

type State = BTreeMap<Bytes, KeyValue>;
type Refusal = (Code, String);

fn refusal<T>(code: Code, text: &str) -> Result<T, Refusal> {
    Err((code, format!("etcdserver: {text}")))
}

fn within(key: &Bytes, start: &Bytes, end: &Bytes) -> bool {
    match end.as_ref() {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

/// Revision N is `states[N - 1]`.
struct Model {
    states: Vec<State>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        i64::try_from(self.states.len()).unwrap()
    }

    fn at(&self, revision: i64) -> Result<&State, Refusal> {
        if revision > self.revision() {
            return refusal(Code::OutOfRange, "mvcc: required revision is a future revision");
        }
        if revision > 0 && revision < self.compacted {
            return refusal(Code::OutOfRange, "mvcc: required revision has been compacted");
        }
        let revision = if revision > 0 { revision } else { self.revision() };
        Ok(&self.states[usize::try_from(revision - 1).unwrap()])
    }

    fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return refusal(Code::OutOfRange, "mvcc: required revision has been compacted");
        }
        self.at(revision)?;
        self.compacted = revision;
        Ok(())
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        if Puts::of(request).is_none() {
            return refusal(Code::InvalidArgument, "duplicate key given in txn request");
        }
        let before = self.states.last().unwrap().clone();
        self.refused(&before, request)?;
        let (mut now, mut changed) = (before.clone(), false);
        let answer = self.run(&before, &mut now, &mut changed, request);
        if changed {
            self.states.push(now);
        }
        Ok(answer)
    }

    /// What makes the whole transaction fail: looked for in the branches that would be taken.
    fn refused(&self, before: &State, request: &pb::TxnRequest) -> Result<(), Refusal> {
        branch(before, request).1.iter().try_for_each(|op| match op.request.as_ref().unwrap() {
            Op::RequestRange(range) => self.at(range.revision).map(drop),
            Op::RequestPut(put) if put.ignore_value && !before.contains_key(&put.key) => {
                refusal(Code::InvalidArgument, "key not found")
            }
            Op::RequestTxn(nested) => self.refused(before, nested),
            _ => Ok(()),
        })
    }

    fn run(
        &self,
        before: &State,
        now: &mut State,
        changed: &mut bool,
        request: &pb::TxnRequest,
    ) -> pb::TxnResponse {
        let next = self.revision() + 1;
        let (succeeded, ops) = branch(before, request);
        let mut responses = Vec::new();
        for op in ops {
            let answer = match op.request.as_ref().unwrap() {
                Op::RequestRange(range) if range.revision <= 0 => {
                    Answer::ResponseRange(read(now, range))
                }
                Op::RequestRange(range) => {
                    Answer::ResponseRange(read(self.at(range.revision).unwrap(), range))
                }
                Op::RequestPut(put) => {
                    *changed = true;
                    Answer::ResponsePut(write(now, put, next))
                }
                Op::RequestDeleteRange(delete) => {
                    let answer = erase(now, delete);
                    *changed |= answer.deleted > 0;
                    Answer::ResponseDeleteRange(answer)
                }
                Op::RequestTxn(nested) => {
                    Answer::ResponseTxn(self.run(before, now, changed, nested))
                }
            };
            responses.push(pb::ResponseOp { response: Some(answer) });
        }
        pb::TxnResponse { header: None, succeeded, responses }
    }
}

/// The keys that a transaction may put, when it puts none twice and none that it deletes.
#[derive(Default)]
struct Puts {
    keys: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Puts {
    fn of(request: &pb::TxnRequest) -> Option<(Self, Self)> {
        Some((Self::list(&request.success)?, Self::list(&request.failure)?))
    }

    fn list(ops: &[pb::RequestOp]) -> Option<Self> {
        let mut all = Self::default();
        for op in ops {
            if let Some(Op::RequestDeleteRange(delete)) = &op.request {
                all.deletes.push((delete.key.clone(), delete.range_end.clone()));
            }
        }
        for op in ops {
            let Some(Op::RequestTxn(nested)) = &op.request else { continue };
            let (then, otherwise) = Self::of(nested)?;
            for key in then.keys.union(&otherwise.keys) {
                all.add(key)?;
            }
            all.deletes.extend(then.deletes.into_iter().chain(otherwise.deletes));
        }
        for op in ops {
            if let Some(Op::RequestPut(put)) = &op.request {
                all.add(&put.key)?;
            }
        }
        Some(all)
    }

    fn add(&mut self, key: &Bytes) -> Option<()> {
        let deleted = self.deletes.iter().any(|(start, end)| within(key, start, end));
        (!deleted && self.keys.insert(key.clone())).then_some(())
    }
}

fn branch<'r>(before: &State, request: &'r pb::TxnRequest) -> (bool, &'r [pb::RequestOp]) {
    let succeeded = request.compare.iter().all(|compare| {
        let inside: Vec<_> = before
            .values()
            .filter(|kv| within(&kv.key, &compare.key, &compare.range_end))
            .collect();
        let of_value = matches!(compare.target_union, Some(Operand::Value(_)));
        match inside.as_slice() {
            [] => !of_value && relates(&KeyValue::default(), compare),
            all => all.iter().all(|kv| relates(kv, compare)),
        }
    });
    (succeeded, if succeeded { &request.success } else { &request.failure })
}

fn relates(kv: &KeyValue, compare: &pb::Compare) -> bool {
    let order = match compare.target_union.as_ref().unwrap() {
        Operand::Version(x) => kv.version.cmp(x),
        Operand::CreateRevision(x) => kv.create_revision.cmp(x),
        Operand::ModRevision(x) => kv.mod_revision.cmp(x),
        Operand::Value(x) => kv.value.cmp(x),
        Operand::Lease(x) => kv.lease.cmp(x),
    };
    match compare.result() {
        pb::compare::CompareResult::Equal => order.is_eq(),
        pb::compare::CompareResult::Greater => order.is_gt(),
        pb::compare::CompareResult::Less => order.is_lt(),
        pb::compare::CompareResult::NotEqual => order.is_ne(),
    }
}

fn read(state: &State, r: &pb::RangeRequest) -> pb::RangeResponse {
    let inside = state.values().filter(|kv| within(&kv.key, &r.key, &r.range_end));
    let mut kvs: Vec<KeyValue> = inside.cloned().collect();
    let count = i64::try_from(kvs.len()).unwrap();
    if r.count_only {
        return pb::RangeResponse { count, ..Default::default() };
    }
    kvs.retain(|kv| {
        kv.mod_revision >= r.min_mod_revision
            && (r.max_mod_revision == 0 || kv.mod_revision <= r.max_mod_revision)
            && kv.create_revision >= r.min_create_revision
            && (r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision)
    });
    kvs.sort_by(|a, b| {
        let order = match r.sort_target() {
            pb::range_request::SortTarget::Key => a.key.cmp(&b.key),
            pb::range_request::SortTarget::Version => a.version.cmp(&b.version),
            pb::range_request::SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            pb::range_request::SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            pb::range_request::SortTarget::Value => a.value.cmp(&b.value),
        };
        let down = r.sort_order() == pb::range_request::SortOrder::Descend;
        if down { order.reverse() } else { order }
    });
    let limit = usize::try_from(r.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if r.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    pb::RangeResponse { header: None, kvs, more, count }
}

fn write(now: &mut State, put: &pb::PutRequest, next: i64) -> pb::PutResponse {
    let previous = now.get(&put.key).cloned();
    let old = previous.clone().unwrap_or_default();
    let kv = KeyValue {
        key: put.key.clone(),
        create_revision: if old.version == 0 { next } else { old.create_revision },
        mod_revision: next,
        version: old.version + 1,
        value: if put.ignore_value { old.value } else { put.value.clone() },
        lease: 0,
    };
    now.insert(put.key.clone(), kv);
    pb::PutResponse { header: None, prev_kv: previous.filter(|_| put.prev_kv) }
}

fn erase(now: &mut State, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
    let inside = |key: &Bytes| within(key, &delete.key, &delete.range_end);
    let doomed: Vec<_> = now.values().filter(|kv| inside(&kv.key)).cloned().collect();
    now.retain(|key, _| !inside(key));
    let deleted = i64::try_from(doomed.len()).unwrap();
    let prev_kvs = if delete.prev_kv { doomed } else { Vec::new() };
    pb::DeleteRangeResponse { header: None, deleted, prev_kvs }
}

fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&[u8]; 6] = [b"a", b"a\0", b"a\0\xff", b"b", b"b/1", b"\xff"];
    select(keys.map(Bytes::from_static).to_vec())
}

/// Key and end of a range.
fn keys() -> impl Strategy<Value = (Bytes, Bytes)> {
    prop_oneof![
        4 => key().prop_map(|key| (key, Bytes::new())),
        1 => key().prop_map(|key| (key.clone(), quorate_store::prefix_end(&key))),
        1 => (key(), key()),
        1 => key().prop_map(|key| (key, Bytes::from_static(&[0]))),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    select(vec![Bytes::new(), Bytes::from_static(b"x"), Bytes::from_static(b"yy")])
}

/// Mostly "no bound".
fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 1 => -2i64..12]
}

prop_compose! {
    fn range()(
        (key, range_end) in keys(),
        revision in bound(),
        limit in -1i64..3,
        (keys_only, count_only) in (any::<bool>(), proptest::bool::weighted(0.1)),
        (sort_order, sort_target) in (0i32..3, 0i32..5),
        bounds in [bound(), bound(), bound(), bound()],
        serializable in any::<bool>(),
    ) -> pb::RangeRequest {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        pb::RangeRequest {
            key, range_end, revision, limit, keys_only, count_only, sort_order, sort_target,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
            serializable,
        }
    }
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let operand = prop_oneof![
        (-1i64..4).prop_map(Operand::Version),
        (-1i64..12).prop_map(Operand::CreateRevision),
        (-1i64..12).prop_map(Operand::ModRevision),
        value().prop_map(Operand::Value),
        (-1i64..2).prop_map(Operand::Lease),
    ];
    (keys(), 0i32..4, operand).prop_map(|((key, range_end), result, operand)| {
        let target = match operand {
            Operand::Version(_) => pb::compare::CompareTarget::Version,
            Operand::CreateRevision(_) => pb::compare::CompareTarget::Create,
            Operand::ModRevision(_) => pb::compare::CompareTarget::Mod,
            Operand::Value(_) => pb::compare::CompareTarget::Value,
            Operand::Lease(_) => pb::compare::CompareTarget::Lease,
        };
        let target = target.into();
        pb::Compare { result, target, key, target_union: Some(operand), range_end }
    })
}

fn operation() -> impl Strategy<Value = Op> {
    let put = (key(), value(), any::<bool>(), proptest::bool::weighted(0.15)).prop_map(
        |(key, value, prev_kv, ignore_value)| {
            let value = if ignore_value { Bytes::new() } else { value };
            Op::RequestPut(pb::PutRequest {
                key,
                value,
                prev_kv,
                ignore_value,
                ..Default::default()
            })
        },
    );
    let delete = (keys(), any::<bool>()).prop_map(|((key, range_end), prev_kv)| {
        Op::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv })
    });
    let leaf = prop_oneof![5 => put, 2 => delete, 2 => range().prop_map(Op::RequestRange)];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let ops = vec(inner.prop_map(|op| pb::RequestOp { request: Some(op) }), 0..3);
        (vec(compare(), 0..2), ops.clone(), ops).prop_map(|(compare, success, failure)| {
            Op::RequestTxn(pb::TxnRequest { compare, success, failure })
        })
    })
}

#[derive(Clone, Debug)]
enum Step {
    Operation(Op),
    Compact(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => operation().prop_map(Step::Operation),
        1 => (-1i64..14).prop_map(Step::Compact),
    ]
}

/// What the service answers, without the headers, and the revision in the outermost one.
async fn served(etcd: &Etcd, op: &Op) -> Result<(Answer, i64), Refusal> {
    fn told<T>(answer: Result<Response<T>, Status>) -> Result<T, Refusal> {
        answer.map(Response::into_inner).map_err(|s| (s.code(), s.message().to_owned()))
    }
    Ok(match op.clone() {
        Op::RequestRange(r) => {
            let mut r = told(etcd.range(Request::new(r)).await)?;
            let revision = r.header.take().unwrap().revision;
            (Answer::ResponseRange(r), revision)
        }
        Op::RequestPut(r) => {
            let mut r = told(etcd.put(Request::new(r)).await)?;
            let revision = r.header.take().unwrap().revision;
            (Answer::ResponsePut(r), revision)
        }
        Op::RequestDeleteRange(r) => {
            let mut r = told(etcd.delete_range(Request::new(r)).await)?;
            let revision = r.header.take().unwrap().revision;
            (Answer::ResponseDeleteRange(r), revision)
        }
        Op::RequestTxn(r) => {
            let mut r = told(etcd.txn(Request::new(r)).await)?;
            let revision = r.header.as_ref().unwrap().revision;
            strip(&mut r);
            (Answer::ResponseTxn(r), revision)
        }
    })
}

fn strip(response: &mut pb::TxnResponse) {
    response.header = None;
    for response in &mut response.responses {
        match response.response.as_mut().unwrap() {
            Answer::ResponseRange(r) => r.header = None,
            Answer::ResponsePut(r) => r.header = None,
            Answer::ResponseDeleteRange(r) => r.header = None,
            Answer::ResponseTxn(r) => strip(r),
        }
    }
}

/// The model's answer: a single operation is a transaction of one.
fn expected(model: &mut Model, op: &Op) -> Result<(Answer, i64), Refusal> {
    let answer = match op {
        Op::RequestTxn(txn) => Answer::ResponseTxn(model.txn(txn)?),
        op => {
            let success = vec![pb::RequestOp { request: Some(op.clone()) }];
            let done = model.txn(&pb::TxnRequest { success, ..Default::default() })?;
            done.responses.into_iter().next().unwrap().response.unwrap()
        }
    };
    Ok((answer, model.revision()))
}

async fn compare_with_model(steps: &[Step]) {
    let etcd = etcd().await;
    let mut model = Model { states: vec![State::new()], compacted: 0 };
    for step in steps {
        match step {
            Step::Operation(op) => {
                let answer = served(&etcd, op).await;
                assert_eq!(answer, expected(&mut model, op), "of {op:?}");
            }
            Step::Compact(revision) => {
                let request = pb::CompactionRequest { revision: *revision, physical: false };
                let answer = etcd.compact(Request::new(request)).await;
                let answer = answer.map(drop).map_err(|s| (s.code(), s.message().to_owned()));
                assert_eq!(answer, model.compact(*revision), "compacting at {revision}");
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_service_does_what_the_model_does(steps in vec(step(), 1..40)) {
        runtime().block_on(compare_with_model(&steps));
    }
}

/// Paths of all methods of etcd's services, as the descriptors have them.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(quorate_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths.retain(|path| crate::etcd::is_etcd(path));
    paths
}

/// Sends a body to a method; answers must come, whatever it is.
async fn send(path: &str, body: Vec<u8>) -> (u16, Option<String>) {
    let etcd = etcd().await;
    let mut routes = Routes::builder();
    etcd.register(&mut routes);
    let request = HttpRequest::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(body))
        .unwrap();
    let router = routes.routes().into_axum_router();
    let response = soon(router.oneshot(request)).await.unwrap();
    let status = response.headers().get("grpc-status");
    let status = status.map(|status| status.to_str().unwrap().to_owned());
    (response.status().as_u16(), status)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

#[test]
fn every_method_is_there() {
    let methods = methods();
    assert_eq!(methods.len(), 5 + 1 + 5 + 5 + 8 + 17 + 5 + 2, "{methods:?}");
    for path in methods {
        let (code, status) = runtime().block_on(send(&path, framed(&[])));
        assert_eq!(code, 200, "{path}");
        let unimplemented = (Code::Unimplemented as i32).to_string();
        assert_ne!(status, Some(unimplemented), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(
        path in select(methods()),
        bytes in vec(any::<u8>(), 0..120),
        frame in any::<bool>(),
    ) {
        let body = if frame { framed(&bytes) } else { bytes };
        let (code, _) = runtime().block_on(send(&path, body));
        prop_assert_eq!(code, 200, "{}", path);
    }
}
