#![allow(clippy::unwrap_used)]

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcd::etcdserverpb::{
    compare, range_request::SortOrder, range_request::SortTarget, request_op, response_op,
};
use tonic::{Code, Request, Status};

use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, etcd_with, put_of, said};

async fn range(etcd: &Etcd, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
    etcd.range(Request::new(request)).await.map(tonic::Response::into_inner)
}

async fn txn(etcd: &Etcd, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    etcd.txn(Request::new(request)).await.map(tonic::Response::into_inner)
}

fn prefix(text: &str) -> pb::RangeRequest {
    let end = quorate_store::prefix_end(text.as_bytes());
    pb::RangeRequest { key: text.to_owned().into(), range_end: end, ..Default::default() }
}

fn op(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str) -> pb::RequestOp {
    op(request_op::Request::RequestPut(put_of(key, value)))
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    assert_eq!(said(&answer.unwrap_err()), (code, text.to_owned()));
}

#[tokio::test]
async fn revisions_versions_and_headers_are_etcds() {
    let etcd = etcd().await;
    let first = etcd.must_put("a", "1").await;
    let second = etcd.must_put("a", "2").await;
    assert_eq!((first, second), (2, 3), "an empty etcd is at revision 1");
    let found = etcd.get("a").await;
    let kv = &found.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    let header = found.header.unwrap();
    assert_ne!(header.cluster_id, 0);
    assert_eq!((header.member_id, header.revision, header.raft_term), (1, 3, 1));
    let old = range(&etcd, pb::RangeRequest { revision: 2, ..prefix("a") }).await.unwrap();
    assert_eq!(old.kvs[0].value.as_ref(), b"1");
    assert_eq!(old.header.unwrap().revision, 3, "the header tells the present revision");
}

#[tokio::test]
async fn every_option_of_a_range() {
    let etcd = etcd().await;
    for (key, value) in [("k1", "c"), ("k2", "a"), ("k3", "b"), ("k1", "d"), ("l", "x")] {
        etcd.must_put(key, value).await;
    }
    let keys = async |request: pb::RangeRequest| -> String {
        let found = range(&etcd, request).await.unwrap();
        let keys = found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
        keys.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(prefix("k")).await, "k1 k2 k3");
    let descending = SortOrder::Descend.into();
    let by = |target: SortTarget| pb::RangeRequest { sort_target: target.into(), ..prefix("k") };
    assert_eq!(keys(pb::RangeRequest { sort_order: descending, ..prefix("k") }).await, "k3 k2 k1");
    assert_eq!(keys(by(SortTarget::Value)).await, "k2 k3 k1", "a target alone sorts upwards");
    assert_eq!(keys(by(SortTarget::Mod)).await, "k2 k3 k1");
    assert_eq!(keys(by(SortTarget::Version)).await, "k2 k3 k1");
    assert_eq!(keys(pb::RangeRequest { min_mod_revision: 4, ..prefix("k") }).await, "k1 k3");
    assert_eq!(keys(pb::RangeRequest { max_mod_revision: 3, ..prefix("k") }).await, "k2");
    assert_eq!(keys(pb::RangeRequest { max_mod_revision: -1, ..prefix("k") }).await, "");
    assert_eq!(keys(pb::RangeRequest { min_create_revision: -7, ..prefix("k") }).await, "k1 k2 k3");
    assert_eq!(keys(pb::RangeRequest { max_create_revision: 2, ..prefix("k") }).await, "k1");
    assert_eq!(keys(pb::RangeRequest { limit: -1, revision: -1, ..prefix("k") }).await, "k1 k2 k3");

    let some = range(&etcd, pb::RangeRequest { limit: 2, ..prefix("k") }).await.unwrap();
    assert_eq!((some.kvs.len(), some.more, some.count), (2, true, 3));
    let count = range(&etcd, pb::RangeRequest { count_only: true, ..prefix("k") }).await.unwrap();
    assert_eq!((count.kvs.len(), count.more, count.count), (0, false, 3));
    let names = range(&etcd, pb::RangeRequest { keys_only: true, ..prefix("k") }).await.unwrap();
    assert!(names.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
    let local = pb::RangeRequest { serializable: true, ..prefix("k") };
    assert_eq!(keys(local).await, "k1 k2 k3");
}

#[tokio::test]
async fn refusals_have_etcds_codes_and_words() {
    let etcd = etcd().await;
    etcd.must_put("a", "1").await;
    etcd.must_put("a", "2").await;
    etcd.must_compact(3).await;
    let invalid = Code::InvalidArgument;
    let no_key = range(&etcd, pb::RangeRequest::default()).await;
    refused(no_key, invalid, "etcdserver: key is not provided");
    let order = range(&etcd, pb::RangeRequest { sort_order: 7, ..prefix("a") }).await;
    refused(order, invalid, "etcdserver: invalid sort option");
    let gone = range(&etcd, pb::RangeRequest { revision: 2, ..prefix("a") }).await;
    refused(gone, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    let future = range(&etcd, pb::RangeRequest { revision: 9, ..prefix("a") }).await;
    refused(future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    for (revision, text) in [(3, "has been compacted"), (9, "is a future revision")] {
        let compact = pb::CompactionRequest { revision, physical: false };
        let text = format!("etcdserver: mvcc: required revision {text}");
        refused(etcd.compact(Request::new(compact)).await, Code::OutOfRange, &text);
    }
    let put = async |request| etcd.put(Request::new(request)).await;
    let mut wrong = put_of("", "x");
    refused(put(wrong.clone()).await, invalid, "etcdserver: key is not provided");
    wrong = pb::PutRequest { ignore_value: true, ..put_of("a", "x") };
    refused(put(wrong.clone()).await, invalid, "etcdserver: value is provided");
    wrong = pb::PutRequest { ignore_lease: true, lease: 7, ..put_of("a", "x") };
    refused(put(wrong.clone()).await, invalid, "etcdserver: lease is provided");
    wrong = pb::PutRequest { ignore_value: true, ..put_of("none", "") };
    refused(put(wrong.clone()).await, invalid, "etcdserver: key not found");
    wrong = pb::PutRequest { lease: 77, ..put_of("a", "x") };
    refused(put(wrong.clone()).await, Code::NotFound, "etcdserver: requested lease not found");
    wrong = put_of("a", &"x".repeat(1536 * 1024));
    refused(put(wrong).await, invalid, "etcdserver: request is too large");
}

#[tokio::test]
async fn transactions_are_limited_as_in_etcd() {
    let etcd = etcd().await;
    let invalid = Code::InvalidArgument;
    let many = |n: usize| (0..n).map(|i| put_op(&format!("k{i}"), "")).collect::<Vec<_>>();
    let full = pb::TxnRequest { success: many(128), failure: many(128), ..Default::default() };
    txn(&etcd, full).await.unwrap();
    let over = pb::TxnRequest { failure: many(129), ..Default::default() };
    let too_many = "etcdserver: too many operations in txn request";
    refused(txn(&etcd, over).await, invalid, too_many);
    let inner = pb::TxnRequest { success: many(128), ..Default::default() };
    let nested = pb::TxnRequest {
        success: vec![op(request_op::Request::RequestTxn(inner))],
        ..Default::default()
    };
    refused(txn(&etcd, nested).await, invalid, too_many);
    let twice =
        pb::TxnRequest { success: vec![put_op("a", "1"), put_op("a", "2")], ..Default::default() };
    refused(txn(&etcd, twice).await, invalid, "etcdserver: duplicate key given in txn request");
    let nothing = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
    refused(txn(&etcd, nothing).await, invalid, "etcdserver: key not found");
}

#[tokio::test]
async fn every_target_of_a_comparison() {
    use compare::{CompareResult as Is, CompareTarget as Target, TargetUnion as Operand};
    let etcd = etcd().await;
    etcd.must_put("a", "b").await;
    etcd.must_put("a", "m").await;
    let holds = async |target: Target, result: Is, operand: Option<Operand>| {
        let compare = pb::Compare {
            result: result.into(),
            target: target.into(),
            key: "a".into(),
            target_union: operand,
            ..Default::default()
        };
        txn(&etcd, pb::TxnRequest { compare: vec![compare], ..Default::default() })
            .await
            .unwrap()
            .succeeded
    };
    assert!(holds(Target::Version, Is::Equal, Some(Operand::Version(2))).await);
    assert!(holds(Target::Create, Is::Less, Some(Operand::CreateRevision(3))).await);
    assert!(holds(Target::Mod, Is::Greater, Some(Operand::ModRevision(2))).await);
    assert!(holds(Target::Value, Is::NotEqual, Some(Operand::Value("n".into()))).await);
    assert!(holds(Target::Value, Is::Greater, Some(Operand::Value("b".into()))).await);
    assert!(holds(Target::Lease, Is::Equal, Some(Operand::Lease(0))).await);
    assert!(!holds(Target::Version, Is::Equal, None).await, "a missing operand is zero");
    assert!(!holds(Target::Mod, Is::Equal, Some(Operand::Version(3))).await, "of another kind too");
    for (result, expected) in
        [(Is::Equal, false), (Is::Less, false), (Is::Greater, true), (Is::NotEqual, true)]
    {
        let negative = Some(Operand::Version(-1));
        assert_eq!(holds(Target::Version, result, negative).await, expected, "{result:?} -1");
    }
}

#[tokio::test]
async fn a_transaction_answers_each_operation() {
    let etcd = etcd().await;
    etcd.must_put("a", "1").await;
    let read = op(request_op::Request::RequestRange(prefix("a")));
    let inner = pb::TxnRequest { success: vec![put_op("b", "2"), read], ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), prev_kv: true, ..Default::default() };
    let request = pb::TxnRequest {
        success: vec![
            op(request_op::Request::RequestDeleteRange(delete)),
            op(request_op::Request::RequestTxn(inner)),
        ],
        ..Default::default()
    };
    let done = txn(&etcd, request).await.unwrap();
    assert!(done.succeeded);
    assert_eq!(done.header.unwrap().revision, 3);
    let [deleted, nested] = done.responses.as_slice() else { panic!("{done:?}") };
    let Some(response_op::Response::ResponseDeleteRange(deleted)) = &deleted.response else {
        panic!("{deleted:?}")
    };
    assert_eq!((deleted.deleted, deleted.prev_kvs[0].value.as_ref()), (1, &b"1"[..]));
    let Some(response_op::Response::ResponseTxn(nested)) = &nested.response else {
        panic!("{nested:?}")
    };
    let Some(response_op::Response::ResponseRange(read)) = &nested.responses[1].response else {
        panic!("{nested:?}")
    };
    assert_eq!(read.count, 0, "reads see the writes before them");
}

#[tokio::test]
async fn objects_are_read_only_unless_the_caller_is_an_admin() {
    let denied = "etcdserver: permission denied";
    let user = etcd().await;
    let put = user.put(Request::new(put_of("/registry/pods/default/a", "x"))).await;
    refused(put, Code::PermissionDenied, denied);
    let in_txn = pb::TxnRequest { failure: vec![put_op("/registry/a", "x")], ..Default::default() };
    refused(txn(&user, in_txn).await, Code::PermissionDenied, denied);
    let all = pb::DeleteRangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Default::default()
    };
    refused(user.delete_range(Request::new(all)).await, Code::PermissionDenied, denied);
    range(&user, prefix("/registry/")).await.unwrap();

    let admin = etcd_with(|options| options.all_admins = true).await;
    admin.must_put("/registry/a", "x").await;
}
