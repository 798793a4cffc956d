//! `v3electionpb.Election`.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use quorate_proto::etcd::v3electionpb as pb;
use quorate_proto::etcd::v3electionpb::election_server::Election;
use quorate_store::{
    EventType, KeyRange, KeyValue, Op, PutRequest, Revision, StoreError, TxnRequest, WatchRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Etcd;
use super::access::Guard;
use super::convert::{key_value, signed, unsigned};
use super::error::store_status;
use super::queue::{created_at, prefix};

/// Leaders that wait for an observer that reads slowly.
const QUEUE: usize = 8;

type Leaders = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Election for Etcd {
    type ObserveStream = Leaders;

    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let guard = self.guard(&request)?;
        let r = request.into_inner();
        let (place, existing) = self.enqueue(&guard, &r.name, r.lease, r.value.clone()).await?;
        let leader = pb::LeaderKey {
            name: r.name,
            key: place.key.clone(),
            rev: signed(place.revision),
            lease: place.lease,
        };
        if existing.is_some_and(|kv| kv.value != r.value) {
            self.change_value(&guard, &leader, r.value).await?;
        }
        let revision = self.wait_turn(&place).await?;
        Ok(Response::new(pb::CampaignResponse {
            header: self.header(revision),
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let leader = r.leader.ok_or_else(no_leader_key)?;
        let change = self.change_value(&guard, &leader, r.value);
        let revision = self.within(&metadata, change).await?;
        Ok(Response::new(pb::ProclaimResponse { header: self.header(revision) }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let allowed = guard.read(KeyRange::prefix(prefix(&r.name)))?;
        let found = self.within(&metadata, self.head(allowed)).await?;
        let leader = found.kvs.into_iter().next();
        let leader = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(self.leader_response(leader, found.revision)))
    }

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Leaders>, Status> {
        let guard = self.guard(&request)?;
        let allowed = guard.read(KeyRange::prefix(prefix(&request.into_inner().name)))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let observer = Observer { etcd: self.clone(), allowed, out: sender };
        // Task "etcd observe": ends with the stream; its failure is the stream's.
        tokio::spawn(observer.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let leader = r.leader.ok_or_else(no_leader_key)?;
        guard.write(&leader.key)?;
        let txn = TxnRequest {
            compare: vec![created_at(&leader.key, unsigned(leader.rev))],
            ..TxnRequest::delete(KeyRange::single(leader.key))
        };
        let done = self.within(&metadata, self.transact(txn)).await?;
        Ok(Response::new(pb::ResignResponse { header: self.header(done.revision) }))
    }
}

impl Etcd {
    async fn change_value(
        &self,
        guard: &Guard,
        leader: &pb::LeaderKey,
        value: Bytes,
    ) -> Result<Revision, Status> {
        guard.write(&leader.key)?;
        let put = PutRequest {
            key: leader.key.clone(),
            value,
            lease: leader.lease,
            ..PutRequest::default()
        };
        let txn = TxnRequest {
            compare: vec![created_at(&leader.key, unsigned(leader.rev))],
            success: vec![Op::Put(put).into()],
            ..TxnRequest::default()
        };
        let done = self.transact(txn).await?;
        if done.succeeded {
            Ok(done.revision)
        } else {
            Err(Status::unknown("election: not leader"))
        }
    }

    fn leader_response(&self, leader: KeyValue, revision: Revision) -> pb::LeaderResponse {
        pb::LeaderResponse { header: self.header(revision), kv: Some(key_value(leader)) }
    }
}

fn no_leader_key() -> Status {
    Status::invalid_argument("\"leader\" field must be provided")
}

/// Tells each leader from the present one on, and each of its values.
struct Observer {
    etcd: Etcd,
    /// The part of the queue that the caller may read.
    allowed: KeyRange,
    out: mpsc::Sender<Result<pb::LeaderResponse, Status>>,
}

/// Nobody listens any more.
enum Stop {
    Gone,
    Failed(Status),
}

impl Observer {
    async fn run(self) {
        let (cancel, out) = (self.etcd.cancel.clone(), self.out.clone());
        let stop = tokio::select! {
            stop = self.observe() => stop,
            () = out.closed() => Stop::Gone,
            () = cancel.cancelled() => Stop::Failed(super::error::stopped()),
        };
        if let Stop::Failed(status) = stop {
            // A full queue belongs to somebody who does not listen.
            let _ = out.try_send(Err(status));
        }
    }

    async fn observe(&self) -> Stop {
        loop {
            if let Err(stop) = self.observe_one().await {
                return stop;
            }
        }
    }

    /// One leader, until its key is deleted, or the news that there is one now.
    async fn observe_one(&self) -> Result<(), Stop> {
        let found = self.etcd.head(self.allowed.clone()).await.map_err(Stop::Failed)?;
        let from = found.revision + 1;
        let leader = found.kvs.into_iter().next();
        let range = match &leader {
            Some(leader) => KeyRange::single(leader.key.clone()),
            None => self.allowed.clone(),
        };
        let led = leader.is_some();
        if let Some(leader) = leader {
            self.tell(leader, found.revision).await?;
        }
        let request = WatchRequest { range, start_revision: from, ..WatchRequest::default() };
        let watcher = self.etcd.store.watch(request);
        let mut watcher = match watcher {
            Err(StoreError::Compacted(_)) => return Ok(()),
            other => other.map_err(failed)?,
        };
        loop {
            let batch = match watcher.next().await {
                Err(StoreError::Compacted(_)) => return Ok(()),
                other => other.map_err(failed)?,
            };
            for event in batch.events {
                match event.kind {
                    EventType::Delete if led => return Ok(()),
                    EventType::Put if led => self.tell(event.kv, batch.revision).await?,
                    EventType::Delete => {}
                    EventType::Put => return Ok(()),
                }
            }
        }
    }

    async fn tell(&self, leader: KeyValue, revision: Revision) -> Result<(), Stop> {
        let response = self.etcd.leader_response(leader, revision);
        self.out.send(Ok(response)).await.map_err(|_| Stop::Gone)
    }
}

fn failed(error: StoreError) -> Stop {
    Stop::Failed(store_status(error))
}
