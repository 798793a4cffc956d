#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::lease_server::Lease as _;
use quorate_proto::etcd::v3electionpb as election;
use quorate_proto::etcd::v3electionpb::election_server::Election as _;
use quorate_proto::etcd::v3lockpb as lock;
use quorate_proto::etcd::v3lockpb::lock_server::Lock as _;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};

use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, said, soon};

async fn lease(etcd: &Etcd, id: i64) -> i64 {
    let request = pb::LeaseGrantRequest { ttl: 60, id };
    etcd.lease_grant(Request::new(request)).await.unwrap().into_inner().id
}

async fn lock(etcd: &Etcd, lease: i64) -> Result<lock::LockResponse, Status> {
    let request = lock::LockRequest { name: "l".into(), lease };
    Ok(etcd.lock(Request::new(request)).await?.into_inner())
}

fn lock_later(etcd: &Etcd, lease: i64) -> JoinHandle<Result<lock::LockResponse, Status>> {
    let etcd = etcd.clone();
    tokio::spawn(async move { lock(&etcd, lease).await })
}

async fn until_queued(etcd: &Etcd, key: &str) {
    soon(async {
        while etcd.get(key).await.count == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lock_has_one_holder_and_passes_in_order() {
    let etcd = etcd().await;
    for id in [0xa, 0xb, 0xc] {
        lease(&etcd, id).await;
    }
    let held = lock(&etcd, 0xa).await.unwrap();
    assert_eq!(held.key.as_ref(), b"l/a", "the layout of clientv3's concurrency package");
    let again = lock(&etcd, 0xa).await.unwrap();
    assert_eq!(again.key, held.key, "the holder holds it already");
    let second = lock_later(&etcd, 0xb);
    until_queued(&etcd, "l/b").await;
    let third = lock_later(&etcd, 0xc);
    until_queued(&etcd, "l/c").await;
    assert!(!second.is_finished() && !third.is_finished());
    let unlock = lock::UnlockRequest { key: held.key };
    etcd.unlock(Request::new(unlock)).await.unwrap();
    assert_eq!(soon(second).await.unwrap().unwrap().key.as_ref(), b"l/b");
    assert!(!third.is_finished());
    etcd.lease_revoke(Request::new(pb::LeaseRevokeRequest { id: 0xb })).await.unwrap();
    assert_eq!(soon(third).await.unwrap().unwrap().key.as_ref(), b"l/c");
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_queue() {
    let etcd = etcd().await;
    for id in [1, 2] {
        lease(&etcd, id).await;
    }
    lock(&etcd, 1).await.unwrap();
    let waiting = lock_later(&etcd, 2);
    until_queued(&etcd, "l/2").await;
    waiting.abort();
    soon(async {
        while etcd.get("l/2").await.count == 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_loses_the_lease_does_not_get_the_lock() {
    let etcd = etcd().await;
    for id in [1, 2] {
        lease(&etcd, id).await;
    }
    lock(&etcd, 1).await.unwrap();
    let waiting = lock_later(&etcd, 2);
    until_queued(&etcd, "l/2").await;
    for id in [2, 1] {
        etcd.lease_revoke(Request::new(pb::LeaseRevokeRequest { id })).await.unwrap();
    }
    let status = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!(said(&status), (Code::Unknown, "mutex: session is expired".to_owned()));
    let status = lock(&etcd, 99).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: requested lease not found");
}

fn campaign(
    etcd: &Etcd,
    lease: i64,
    value: &'static str,
) -> JoinHandle<Result<election::CampaignResponse, Status>> {
    let etcd = etcd.clone();
    let request = election::CampaignRequest { name: "e".into(), lease, value: value.into() };
    tokio::spawn(async move { Ok(etcd.campaign(Request::new(request)).await?.into_inner()) })
}

#[tokio::test]
async fn an_election_has_one_leader_and_observers_see_each() {
    let etcd = etcd().await;
    for id in [1, 2] {
        lease(&etcd, id).await;
    }
    let who = || Request::new(election::LeaderRequest { name: "e".into() });
    assert_eq!(etcd.leader(who()).await.unwrap_err().message(), "election: no leader");
    let mut seen = etcd.observe(who()).await.unwrap().into_inner();
    let first = soon(campaign(&etcd, 1, "one")).await.unwrap().unwrap().leader.unwrap();
    let mut next = async || soon(seen.next()).await.unwrap().unwrap().kv.unwrap().value;
    assert_eq!(next().await, "one");
    let second = campaign(&etcd, 2, "two");
    until_queued(&etcd, "e/2").await;
    let proclaim = |leader: &election::LeaderKey, value: &'static str| election::ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    etcd.proclaim(Request::new(proclaim(&first, "uno"))).await.unwrap();
    assert_eq!(next().await, "uno");
    let leader = etcd.leader(who()).await.unwrap().into_inner().kv.unwrap();
    assert_eq!((leader.value.as_ref(), leader.lease), (&b"uno"[..], 1));
    let resign = election::ResignRequest { leader: Some(first.clone()) };
    etcd.resign(Request::new(resign)).await.unwrap();
    soon(second).await.unwrap().unwrap();
    assert_eq!(next().await, "two");
    let deposed = etcd.proclaim(Request::new(proclaim(&first, "x"))).await.unwrap_err();
    assert_eq!(deposed.message(), "election: not leader");
}
