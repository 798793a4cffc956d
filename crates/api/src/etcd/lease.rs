//! `etcdserverpb.Lease`.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::lease_server::Lease;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Etcd;
use super::error::{lease_ttl_too_large, stopped, store_status};

/// The longest time to live, in seconds (etcd's limit).
const MAX_TTL: i64 = 9_000_000_000;
/// Answers that wait for a client that reads slowly.
const QUEUE: usize = 16;

type Answer = Result<pb::LeaseKeepAliveResponse, Status>;
type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

#[tonic::async_trait]
impl Lease for Etcd {
    type LeaseKeepAliveStream = Answers;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        self.guard(&request)?.authenticated()?;
        let (metadata, _, r) = request.into_parts();
        if r.ttl > MAX_TTL {
            return Err(lease_ttl_too_large());
        }
        // etcd raises what is shorter than makes sense, zero and negative numbers included.
        let grant = self.store.lease_grant(r.id, r.ttl.max(1));
        let granted = self.within(&metadata, async { grant.await.map_err(store_status) }).await?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: self.header(granted.revision),
            id: granted.id,
            ttl: granted.ttl_seconds,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let revoke = async {
            // Its keys are deleted with it.
            let lease = self.store.lease_time_to_live(r.id, true).await.map_err(store_status)?;
            let keys = lease.into_iter().flat_map(|lease| lease.keys);
            keys.into_iter().try_for_each(|key| guard.write(&key))?;
            self.store.lease_revoke(r.id).await.map_err(store_status)
        };
        let revision = self.within(&metadata, revoke).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.guard(&request)?;
        let (out, receiver) = mpsc::channel(QUEUE);
        let (etcd, inbound) = (self.clone(), request.into_inner());
        // Task "etcd keep alive": ends with the stream; its failure is the stream's.
        tokio::spawn(async move {
            let cancel = etcd.cancel.clone();
            tokio::select! {
                () = etcd.keep_alive(inbound, &out) => {}
                () = out.closed() => {}
                () = cancel.cancelled() => {
                    // A full queue belongs to somebody who does not listen.
                    let _ = out.try_send(Err(stopped()));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let look = self.store.lease_time_to_live(r.id, r.keys);
        let found = self.within(&metadata, async { look.await.map_err(store_status) }).await?;
        let header = self.header_now();
        let Some(lease) = found else {
            // Not an error in etcd.
            return Ok(Response::new(pb::LeaseTimeToLiveResponse {
                header,
                id: r.id,
                ttl: -1,
                ..Default::default()
            }));
        };
        for key in &lease.keys {
            guard.read_key(key)?;
        }
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header,
            id: lease.id,
            ttl: lease.ttl,
            granted_ttl: lease.granted_ttl,
            keys: lease.keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.guard(&request)?.authenticated()?;
        let list = async { self.store.leases().await.map_err(store_status) };
        let leases = self.within(request.metadata(), list).await?;
        let leases = leases.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}

impl Etcd {
    async fn keep_alive(
        &self,
        mut inbound: impl Stream<Item = Result<pb::LeaseKeepAliveRequest, Status>> + Unpin,
        out: &mpsc::Sender<Answer>,
    ) {
        while let Some(Ok(pb::LeaseKeepAliveRequest { id })) = inbound.next().await {
            let kept = self.store.lease_keep_alive(id).await.map_err(store_status);
            let answer = kept.map(|ttl| pb::LeaseKeepAliveResponse {
                header: self.header_now(),
                id,
                ttl: ttl.max(0),
            });
            let last = answer.is_err();
            if out.send(answer).await.is_err() || last {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
