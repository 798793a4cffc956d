//! `v3lockpb.Lock`.

use quorate_proto::etcd::v3lockpb as pb;
use quorate_proto::etcd::v3lockpb::lock_server::Lock;
use quorate_store::{KeyRange, TxnRequest};
use tonic::{Request, Response, Status};

use super::Etcd;

#[tonic::async_trait]
impl Lock for Etcd {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let guard = self.guard(&request)?;
        let r = request.into_inner();
        let (place, _) = self.enqueue(&guard, &r.name, r.lease, bytes::Bytes::new()).await?;
        let revision = self.wait_turn(&place).await?;
        Ok(Response::new(pb::LockResponse { header: self.header(revision), key: place.key }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        guard.write(&r.key)?;
        let delete = self.transact(TxnRequest::delete(KeyRange::single(r.key)));
        let done = self.within(&metadata, delete).await?;
        Ok(Response::new(pb::UnlockResponse { header: self.header(done.revision) }))
    }
}
