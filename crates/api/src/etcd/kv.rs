//! `etcdserverpb.KV`.

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv;
use quorate_store::{Op, OpResult, TxnRequest, TxnResponse};
use tonic::{Request, Response, Status};

use super::Etcd;
use super::convert::{
    consistency, delete_request, put_request, range_request, txn_request, unsigned,
};
use super::error::store_status;

#[tonic::async_trait]
impl Kv for Etcd {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let consistency = consistency(&r);
        let wanted = range_request(r, &guard)?;
        let read = async { self.store.range(wanted, consistency).await.map_err(store_status) };
        let found = self.within(&metadata, read).await?;
        Ok(Response::new(self.range_response(found)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let op = Op::Put(put_request(r, &guard)?);
        let (revision, result) = self.within(&metadata, self.single(op)).await?;
        let OpResult::Put(put) = result else { return Err(mismatch()) };
        Ok(Response::new(self.put_response(put, revision)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let op = Op::DeleteRange(delete_request(r, &guard)?);
        let (revision, result) = self.within(&metadata, self.single(op)).await?;
        let OpResult::DeleteRange(deleted) = result else { return Err(mismatch()) };
        Ok(Response::new(self.delete_response(deleted, revision)))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let txn = txn_request(r, &guard)?;
        let done = self.within(&metadata, self.transact(txn)).await?;
        Ok(Response::new(self.txn_response(done)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        let compact = self.store.compact(unsigned(r.revision), r.physical);
        let compact = async { compact.await.map_err(store_status) };
        let revision = self.within(&metadata, compact).await?;
        Ok(Response::new(pb::CompactionResponse { header: self.header(revision) }))
    }
}

impl Etcd {
    pub(crate) async fn transact(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        self.store.txn(txn).await.map_err(store_status)
    }

    /// A transaction of one operation: the revision after it, and its result.
    async fn single(&self, op: Op) -> Result<(u64, OpResult), Status> {
        let txn = TxnRequest { success: vec![op.into()], ..TxnRequest::default() };
        let mut done = self.transact(txn).await?;
        let result = done.responses.pop().and_then(|response| response.result);
        Ok((done.revision, result.ok_or_else(mismatch)?))
    }
}

/// A bug: every operation has a result of its kind.
fn mismatch() -> Status {
    crate::error::internal("the store answered another operation than the one asked for")
}

#[cfg(test)]
#[path = "kv_test.rs"]
mod tests;
