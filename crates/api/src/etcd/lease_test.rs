#![allow(clippy::unwrap_used)]

use futures::stream;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcd::etcdserverpb::lease_server::Lease as _;
use tokio::sync::mpsc;
use tonic::{Code, Request};

use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, put_of, said, soon};

async fn grant(etcd: &Etcd, id: i64, ttl: i64) -> pb::LeaseGrantResponse {
    let request = pb::LeaseGrantRequest { ttl, id };
    etcd.lease_grant(Request::new(request)).await.unwrap().into_inner()
}

async fn look(etcd: &Etcd, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    etcd.lease_time_to_live(Request::new(request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_along() {
    let etcd = etcd().await;
    let lease = grant(&etcd, 0, 60).await;
    assert!(lease.id != 0 && lease.ttl == 60, "{lease:?}");
    for key in ["b", "a"] {
        let put = pb::PutRequest { lease: lease.id, ..put_of(key, "") };
        etcd.put(Request::new(put)).await.unwrap();
    }
    let seen = look(&etcd, lease.id).await;
    assert_eq!((seen.granted_ttl, seen.keys), (60, vec!["a".into(), "b".into()]));
    assert!((1..=60).contains(&seen.ttl), "{}", seen.ttl);
    assert_eq!(etcd.get("a").await.kvs[0].lease, lease.id);
    let revoke = etcd.lease_revoke(Request::new(pb::LeaseRevokeRequest { id: lease.id })).await;
    assert_eq!(revoke.unwrap().into_inner().header.unwrap().revision, 4);
    assert_eq!((etcd.get("a").await.count, etcd.get("b").await.count), (0, 0));
    let gone = look(&etcd, lease.id).await;
    assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0), "not an error in etcd");
}

#[tokio::test]
async fn leases_are_listed_and_refused_as_in_etcd() {
    let etcd = etcd().await;
    for id in [9, 5] {
        grant(&etcd, id, 60).await;
    }
    let list = etcd.lease_leases(Request::new(pb::LeaseLeasesRequest {})).await.unwrap();
    let ids: Vec<i64> = list.into_inner().leases.into_iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [5, 9]);
    let ask = |id, ttl| etcd.lease_grant(Request::new(pb::LeaseGrantRequest { ttl, id }));
    let refused = |status| said(&status);
    assert_eq!(
        refused(ask(5, 60).await.unwrap_err()),
        (Code::FailedPrecondition, "etcdserver: lease already exists".to_owned())
    );
    assert_eq!(
        refused(ask(6, 9_000_000_001).await.unwrap_err()),
        (Code::OutOfRange, "etcdserver: too large lease TTL".to_owned())
    );
    assert!(ask(7, -3).await.unwrap().into_inner().ttl > 0, "raised to what makes sense");
    let revoke = etcd.lease_revoke(Request::new(pb::LeaseRevokeRequest { id: 77 })).await;
    assert_eq!(
        refused(revoke.unwrap_err()),
        (Code::NotFound, "etcdserver: requested lease not found".to_owned())
    );
}

#[tokio::test]
async fn keep_alives_answer_one_by_one() {
    let etcd = etcd().await;
    grant(&etcd, 5, 60).await;
    let (out, mut answers) = mpsc::channel(8);
    let requests = [5, 6, 5].map(|id| Ok(pb::LeaseKeepAliveRequest { id }));
    soon(etcd.keep_alive(stream::iter(requests), &out)).await;
    drop(out);
    let mut seen = Vec::new();
    while let Some(answer) = answers.recv().await {
        let answer = answer.unwrap();
        seen.push((answer.id, answer.ttl));
    }
    assert_eq!(seen, [(5, 60), (6, 0), (5, 60)]);
}
