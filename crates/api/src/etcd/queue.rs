//! What Election and Lock have in common: a queue of keys below a prefix, each on the lease of
//! the one who waits. Whose key was created first has the turn. The layout is that of clientv3's
//! `concurrency` package, so that both kinds of clients may stand in the same queue.

use std::time::Duration;

use bytes::Bytes;
use quorate_store::{
    Compare, CompareResult, CompareTarget, Consistency, EventType, KeyRange, KeyValue, LeaseId, Op,
    OpResult, PutRequest, RangeRequest, RangeResponse, Revision, SortOrder, SortTarget, StoreError,
    TxnRequest, TxnResponse, WatchRequest,
};
use tonic::Status;

use super::Etcd;
use super::access::Guard;
use super::error::store_status;

/// Time to live, in seconds, of leases granted to those who bring none: clientv3's default.
const SESSION_TTL: i64 = 60;
/// Leases are kept alive this often in their time to live.
const KEEP_ALIVES: u32 = 3;

/// A place in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub prefix: Bytes,
    pub key: Bytes,
    /// Creation revision of the key.
    pub revision: Revision,
    pub lease: LeaseId,
    /// How long the lease lives without a sign of life.
    ttl: Duration,
}

/// All keys of the queue `name`.
pub(crate) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// "The key was created at this revision", 0 for "it does not exist".
pub(crate) fn created_at(key: &Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::single(key.clone()),
        result: CompareResult::Equal.into(),
        target: Some(CompareTarget::CreateRevision(revision)),
    }
}

impl Etcd {
    /// Takes a place, or finds the one that the lease has already: then `value` may differ from
    /// what its key holds, which is returned.
    pub(crate) async fn enqueue(
        &self,
        guard: &Guard,
        name: &[u8],
        lease: LeaseId,
        value: Bytes,
    ) -> Result<(Place, Option<KeyValue>), Status> {
        let prefix = prefix(name);
        let (lease, ttl) = self.session(lease).await?;
        let key: Bytes = [prefix.as_ref(), format!("{lease:x}").as_bytes()].concat().into();
        guard.write(&key)?;
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let txn = TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![Op::Put(put).into()],
            failure: vec![Op::Range(RangeRequest::key(key.clone())).into()],
        };
        let done = self.transact(txn).await?;
        let existing = first_found(&done);
        let revision = existing.as_ref().map_or(done.revision, |kv| kv.create_revision);
        Ok((Place { prefix, key, revision, lease, ttl }, existing))
    }

    /// The lease to wait on, and its time to live.
    async fn session(&self, lease: LeaseId) -> Result<(LeaseId, Duration), Status> {
        let seconds = |ttl: i64| Duration::from_secs(u64::try_from(ttl).unwrap_or(0).max(1));
        if lease == 0 {
            let granted = self.store.lease_grant(0, SESSION_TTL).await.map_err(store_status)?;
            return Ok((granted.id, seconds(granted.ttl_seconds)));
        }
        let ttl = self.store.lease_keep_alive(lease).await.map_err(store_status)?;
        if ttl <= 0 {
            return Err(super::error::lease_not_found());
        }
        Ok((lease, seconds(ttl)))
    }

    /// Waits until nobody is before this place, keeping the lease alive meanwhile. When the wait
    /// is given up (the future is dropped), so is the place.
    pub(crate) async fn wait_turn(&self, place: &Place) -> Result<Revision, Status> {
        let mut leave = Leave { etcd: self.clone(), place: Some(place.clone()) };
        let revision = loop {
            let request = RangeRequest {
                max_create_revision: place.revision.saturating_sub(1),
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Create.into(),
                limit: 1,
                keys_only: true,
                ..RangeRequest::new(KeyRange::prefix(place.prefix.clone()))
            };
            let before = self.read(request).await?;
            let Some(ahead) = before.kvs.into_iter().next() else { break before.revision };
            self.wait_deleted(&ahead.key, before.revision + 1, place).await?;
        };
        let own = self.read(RangeRequest::key(place.key.clone())).await?;
        if own.kvs.first().is_none_or(|kv| kv.create_revision != place.revision) {
            return Err(Status::unknown("mutex: session is expired"));
        }
        leave.place = None;
        Ok(revision)
    }

    async fn wait_deleted(&self, key: &Bytes, from: Revision, place: &Place) -> Result<(), Status> {
        let range = KeyRange::single(key.clone());
        let request = WatchRequest { range, start_revision: from, ..WatchRequest::default() };
        let mut watcher = match self.store.watch(request) {
            Ok(watcher) => watcher,
            // The caller looks again.
            Err(StoreError::Compacted(_)) => return Ok(()),
            Err(other) => return Err(store_status(other)),
        };
        let mut alive = tokio::time::interval(place.ttl / KEEP_ALIVES);
        loop {
            tokio::select! {
                batch = watcher.next() => match batch {
                    Ok(batch) if batch.events.iter().any(|e| e.kind == EventType::Delete) => {
                        return Ok(());
                    }
                    Ok(_) => {}
                    Err(StoreError::Compacted(_)) => return Ok(()),
                    Err(other) => return Err(store_status(other)),
                },
                _ = alive.tick() => {
                    // A failure is not the end of the lease; its end is noticed at the turn.
                    if let Err(error) = self.store.lease_keep_alive(place.lease).await {
                        tracing::debug!(%error, "a lease that waits was not kept alive");
                    }
                }
            }
        }
    }

    /// The one whose turn it is, in the part of a queue that the caller may read.
    pub(crate) async fn head(&self, allowed: KeyRange) -> Result<RangeResponse, Status> {
        self.read(RangeRequest {
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
            limit: 1,
            ..RangeRequest::new(allowed)
        })
        .await
    }

    async fn read(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.store.range(request, Consistency::Linearizable).await.map_err(store_status)
    }
}

fn first_found(done: &TxnResponse) -> Option<KeyValue> {
    match done.responses.first()?.result.as_ref()? {
        OpResult::Range(found) => found.kvs.first().cloned(),
        _ => None,
    }
}

/// Gives up a place unless told otherwise.
struct Leave {
    etcd: Etcd,
    place: Option<Place>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let etcd = self.etcd.clone();
        // Task "leave queue": when it fails, the key goes with its lease.
        tokio::spawn(async move {
            let txn = TxnRequest {
                compare: vec![created_at(&place.key, place.revision)],
                ..TxnRequest::delete(KeyRange::single(place.key))
            };
            if let Err(status) = etcd.transact(txn).await {
                tracing::debug!(%status, "a place in a queue was not given up; its lease ends it");
            }
        });
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
