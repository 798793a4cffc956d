//! Locks by etcd's API: a key under a lease is the lock, the revision at which it was made is
//! the fencing token, and whoever holds the lock writes only as long as the key is still that one.

use std::time::Duration;

use quorate_proto::etcd::etcdserverpb as pb;
use rand::Rng;
use tokio::time::sleep;

use super::{Worker, lock};
use crate::etcd::{Ended, Etcd};
use crate::evidence::{Guarded, Held};
use crate::meter::Kind as Counted;

/// Keys of locks begin with this.
pub(crate) const LOCKS: &str = "lock/";
/// What they guard.
pub(super) const GUARDED: &str = "guarded/";
/// Locks that are worked on.
const COUNT: u32 = 3;
/// Seconds that a lease is asked for.
const TTL: std::ops::Range<i64> = 1..4;
/// Writes of one holder at most.
const WRITES: u32 = 12;

/// Tries to take a lock, works under it, and leaves it in one of the ways in which clients do.
pub(super) async fn step(worker: &mut Worker) {
    let Some(mut etcd) = worker.etcd.take() else { return };
    hold(worker, &mut etcd).await;
    worker.etcd = Some(etcd);
}

async fn hold(worker: &mut Worker, etcd: &mut Etcd) {
    let name = format!("{}/{}", worker.book.window, worker.random.random_range(0..COUNT));
    let wanted = worker.random.random_range(TTL);
    let sent = worker.book.clock.now();
    let Ended::Done((lease, ttl)) = etcd.lease_grant(wanted).await else { return };
    let asked = worker.book.clock.now();
    let taken = etcd.txn(take(&name, lease)).await;
    let answered = worker.book.clock.now();
    worker.book.meter.count(asked, answered, counted(&taken));
    let token = match taken {
        Ended::Done(response) if response.succeeded => {
            u64::try_from(response.header.unwrap_or_default().revision).unwrap_or(0)
        }
        Ended::Done(_) | Ended::Refused(_) => {
            // Somebody else has it: the lease is of no use.
            drop(etcd.lease_revoke(lease).await);
            return;
        }
        // It may be ours and nobody knows: the lease ends it.
        Ended::Unknown(_) => return,
    };
    let mut held = Held {
        lock: name.clone(),
        token,
        taken_at: answered,
        // The lease lives at least so long from here on.
        renewed_at: sent,
        ttl_ms: u64::try_from(ttl).unwrap_or(0) * 1_000,
        given_up: false,
    };
    for _ in 0..worker.random.random_range(1..WRITES) {
        if !write(worker, etcd, &name, token).await {
            break;
        }
        if worker.random.random_bool(0.4) {
            let sent = worker.book.clock.now();
            if let Ended::Done(true) = etcd.lease_keep_alive(lease).await {
                held.renewed_at = sent;
            }
        }
        sleep(Duration::from_millis(worker.random.random_range(5..120))).await;
    }
    // Half of the clients say that they are done, the others are never heard of again.
    if worker.random.random_bool(0.5) {
        held.given_up = true;
        drop(etcd.lease_revoke(lease).await);
    }
    lock(&worker.book.held).push(held);
}

/// Writes what the lock guards; is it still held?
async fn write(worker: &Worker, etcd: &mut Etcd, name: &str, token: u64) -> bool {
    let sent = worker.book.clock.now();
    let ended = etcd.txn(guarded(name, token, worker.book.value())).await;
    let answered = worker.book.clock.now();
    worker.book.meter.count(sent, answered, counted(&ended));
    let Ended::Done(response) = ended else { return true };
    if response.succeeded {
        let revision = response.header.unwrap_or_default().revision;
        let revision = u64::try_from(revision).unwrap_or(0);
        let write = Guarded { lock: name.to_owned(), token, revision };
        lock(&worker.book.guarded).push(write);
    }
    response.succeeded
}

fn counted<T>(ended: &Ended<T>) -> Counted {
    match ended {
        Ended::Done(_) => Counted::Answered,
        Ended::Refused(_) => Counted::Refused,
        Ended::Unknown(_) => Counted::Unknown,
    }
}

/// "The lock's key was made at this revision", 0 for "is not there".
fn made_at(name: &str, revision: u64) -> pb::Compare {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let revision = i64::try_from(revision).unwrap_or(i64::MAX);
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: format!("{LOCKS}{name}").into_bytes().into(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..pb::Compare::default()
    }
}

fn put(key: String, value: &str, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest {
        key: key.into_bytes().into(),
        value: value.to_owned().into_bytes().into(),
        lease,
        ..pb::PutRequest::default()
    };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

fn take(name: &str, lease: i64) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![made_at(name, 0)],
        success: vec![put(format!("{LOCKS}{name}"), "held", lease)],
        failure: Vec::new(),
    }
}

fn guarded(name: &str, token: u64, value: u64) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![made_at(name, token)],
        success: vec![put(format!("{GUARDED}{name}"), &value.to_string(), 0)],
        failure: Vec::new(),
    }
}
