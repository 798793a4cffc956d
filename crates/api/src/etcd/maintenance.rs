//! `etcdserverpb.Maintenance`.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::maintenance_server::Maintenance;
use quorate_store::Role;
use tonic::{Request, Response, Status};

use super::Etcd;
use super::convert::signed;

/// The version of etcd whose API this is. Clients decide by it what they may ask for.
const ETCD_VERSION: &str = "3.5.21";

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Maintenance for Etcd {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.guard(&request)?;
        let status = self.store.status();
        let leader = status.leadership.leader.as_ref().map_or(0, |leader| leader.id);
        let errors =
            if leader == 0 { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
        Ok(Response::new(pb::StatusResponse {
            header: self.header(status.revision),
            version: format!("{ETCD_VERSION}+quorate.{}", self.options.version),
            db_size: signed(status.disk_bytes),
            leader,
            raft_index: status.last_index,
            raft_term: status.leadership.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: signed(status.disk_bytes),
            is_learner: status.role == Role::Learner,
            ..Default::default()
        }))
    }

    async fn alarm(
        &self,
        _: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }

    async fn hash_kv(
        &self,
        _: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }

    type SnapshotStream = Chunks;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Chunks>, Status> {
        Err(Status::unimplemented("etcdserver: not supported"))
    }
}
