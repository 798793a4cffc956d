//! etcd's messages to the store's and back. They differ in signs and in how a missing field is
//! spelled, not in meaning.

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::{
    request_op::Request as PbRequest, response_op::Response as PbResponse,
};
use quorate_proto::etcd::mvccpb;
use quorate_store::{
    Compare, CompareResult, CompareTarget, Consistency, DeleteRangeRequest, DeleteRangeResponse,
    Event, EventType, KeyRange, KeyValue, MAX_TXN_OPS, Op, OpResult, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseOp, SortOrder, SortTarget, TxnRequest,
    TxnResponse,
};
use tonic::Status;

use super::Etcd;
use super::access::Guard;
use super::error;

/// Counters travel as signed numbers. Ours do not come near the limit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// etcd treats a negative revision or limit like none.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn key_range(key: Bytes, end: Bytes) -> Result<KeyRange, Status> {
    if key.is_empty() {
        return Err(error::empty_key());
    }
    Ok(KeyRange { key, end })
}

pub(crate) fn consistency(request: &pb::RangeRequest) -> Consistency {
    if request.serializable { Consistency::Serializable } else { Consistency::Linearizable }
}

pub(crate) fn range_request(r: pb::RangeRequest, guard: &Guard) -> Result<RangeRequest, Status> {
    let range = guard.read(key_range(r.key, r.range_end)?)?;
    let known =
        SortOrder::try_from(r.sort_order).is_ok() && SortTarget::try_from(r.sort_target).is_ok();
    if !known {
        return Err(error::invalid_sort_option());
    }
    // Nothing is older than a negative revision, so nothing may pass; 0 would mean "no bound".
    let bounds = |min: i64, max: i64| {
        if max < 0 { (u64::MAX, 0) } else { (unsigned(min), unsigned(max)) }
    };
    let (min_mod_revision, max_mod_revision) = bounds(r.min_mod_revision, r.max_mod_revision);
    let (min_create_revision, max_create_revision) =
        bounds(r.min_create_revision, r.max_create_revision);
    Ok(RangeRequest {
        range,
        revision: unsigned(r.revision),
        limit: unsigned(r.limit),
        keys_only: r.keys_only,
        count_only: r.count_only,
        sort_order: r.sort_order,
        sort_target: r.sort_target,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

pub(crate) fn put_request(r: pb::PutRequest, guard: &Guard) -> Result<PutRequest, Status> {
    if r.key.is_empty() {
        return Err(error::empty_key());
    }
    if r.ignore_value && !r.value.is_empty() {
        return Err(error::value_provided());
    }
    if r.ignore_lease && r.lease != 0 {
        return Err(error::lease_provided());
    }
    guard.write(&r.key)?;
    if r.prev_kv {
        guard.read_key(&r.key)?;
    }
    Ok(PutRequest {
        key: r.key,
        value: r.value,
        lease: r.lease,
        prev_kv: r.prev_kv,
        ignore_value: r.ignore_value,
        ignore_lease: r.ignore_lease,
    })
}

pub(crate) fn delete_request(
    r: pb::DeleteRangeRequest,
    guard: &Guard,
) -> Result<DeleteRangeRequest, Status> {
    let mut range = guard.delete(key_range(r.key, r.range_end)?)?;
    if r.prev_kv {
        range = guard.read(range)?;
    }
    Ok(DeleteRangeRequest { range, prev_kv: r.prev_kv })
}

pub(crate) fn txn_request(r: pb::TxnRequest, guard: &Guard) -> Result<TxnRequest, Status> {
    nested_txn(r, guard, MAX_TXN_OPS)
}

/// `room`: how many operations are still allowed; each level takes its longest list.
fn nested_txn(r: pb::TxnRequest, guard: &Guard, room: usize) -> Result<TxnRequest, Status> {
    let longest = r.compare.len().max(r.success.len()).max(r.failure.len());
    let room = room.checked_sub(longest).ok_or_else(error::too_many_operations)?;
    let ops = |ops: Vec<pb::RequestOp>| -> Result<Vec<RequestOp>, Status> {
        ops.into_iter().map(|op| operation(op, guard, room)).collect()
    };
    Ok(TxnRequest {
        compare: r.compare.into_iter().map(|c| compare(c, guard)).collect::<Result<_, _>>()?,
        success: ops(r.success)?,
        failure: ops(r.failure)?,
    })
}

fn operation(op: pb::RequestOp, guard: &Guard, room: usize) -> Result<RequestOp, Status> {
    Ok(match op.request {
        Some(PbRequest::RequestRange(r)) => Op::Range(range_request(r, guard)?),
        Some(PbRequest::RequestPut(r)) => Op::Put(put_request(r, guard)?),
        Some(PbRequest::RequestDeleteRange(r)) => Op::DeleteRange(delete_request(r, guard)?),
        Some(PbRequest::RequestTxn(r)) => Op::Txn(nested_txn(r, guard, room)?),
        // What etcd says to an operation that is none.
        None => return Err(error::key_not_found()),
    }
    .into())
}

fn compare(c: pb::Compare, guard: &Guard) -> Result<Compare, Status> {
    use pb::compare::{CompareTarget as Target, TargetUnion as Operand};
    let range = guard.read(key_range(c.key, c.range_end)?)?;
    let unknown = |_| Status::invalid_argument("etcdserver: unknown comparison in txn request");
    let target = Target::try_from(c.target).map_err(unknown)?;
    let result = pb::compare::CompareResult::try_from(c.result).map_err(unknown)?;
    // A missing operand, or one of another kind than the target, counts as zero.
    let (result, target) = match (target, c.target_union) {
        (Target::Version, Some(Operand::Version(n))) => count(result, n, CompareTarget::Version),
        (Target::Version, _) => count(result, 0, CompareTarget::Version),
        (Target::Create, Some(Operand::CreateRevision(n))) => {
            count(result, n, CompareTarget::CreateRevision)
        }
        (Target::Create, _) => count(result, 0, CompareTarget::CreateRevision),
        (Target::Mod, Some(Operand::ModRevision(n))) => {
            count(result, n, CompareTarget::ModRevision)
        }
        (Target::Mod, _) => count(result, 0, CompareTarget::ModRevision),
        (Target::Value, Some(Operand::Value(value))) => {
            (result as i32, CompareTarget::Value(value))
        }
        (Target::Value, _) => (result as i32, CompareTarget::Value(Bytes::new())),
        (Target::Lease, Some(Operand::Lease(id))) => (result as i32, CompareTarget::Lease(id)),
        (Target::Lease, _) => (result as i32, CompareTarget::Lease(0)),
    };
    Ok(Compare { range, result, target: Some(target) })
}

/// A comparison with a count. Counts are never negative; one with a negative number is always
/// or never true, which is said with a number that nothing reaches.
fn count(
    result: pb::compare::CompareResult,
    operand: i64,
    target: fn(u64) -> CompareTarget,
) -> (i32, CompareTarget) {
    use pb::compare::CompareResult as Relation;
    match (u64::try_from(operand), result) {
        (Ok(operand), result) => (result as i32, target(operand)),
        (Err(_), Relation::Greater | Relation::NotEqual) => {
            (CompareResult::NotEqual.into(), target(u64::MAX))
        }
        (Err(_), Relation::Equal | Relation::Less) => {
            (CompareResult::Equal.into(), target(u64::MAX))
        }
    }
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        value: kv.value,
        lease: kv.lease,
    }
}

pub(crate) fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventType::Put => mvccpb::event::EventType::Put,
        EventType::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv)),
        prev_kv: event.prev_kv.map(key_value),
    }
}

/// Responses carry headers, so these need to know who answers.
impl Etcd {
    pub(crate) fn range_response(&self, r: RangeResponse) -> pb::RangeResponse {
        pb::RangeResponse {
            header: self.header(r.revision),
            kvs: r.kvs.into_iter().map(key_value).collect(),
            more: r.more,
            count: signed(r.count),
        }
    }

    pub(crate) fn put_response(&self, r: PutResponse, revision: u64) -> pb::PutResponse {
        pb::PutResponse { header: self.header(revision), prev_kv: r.prev_kv.map(key_value) }
    }

    pub(crate) fn delete_response(
        &self,
        r: DeleteRangeResponse,
        revision: u64,
    ) -> pb::DeleteRangeResponse {
        pb::DeleteRangeResponse {
            header: self.header(revision),
            deleted: signed(r.deleted),
            prev_kvs: r.prev_kvs.into_iter().map(key_value).collect(),
        }
    }

    pub(crate) fn txn_response(&self, r: TxnResponse) -> pb::TxnResponse {
        let op = |op: ResponseOp| pb::ResponseOp {
            response: op.result.map(|result| self.op_response(result, r.revision)),
        };
        pb::TxnResponse {
            header: self.header(r.revision),
            succeeded: r.succeeded,
            responses: r.responses.into_iter().map(op).collect(),
        }
    }

    fn op_response(&self, result: OpResult, revision: u64) -> PbResponse {
        match result {
            OpResult::Range(r) => PbResponse::ResponseRange(self.range_response(r)),
            OpResult::Put(r) => PbResponse::ResponsePut(self.put_response(r, revision)),
            OpResult::DeleteRange(r) => {
                PbResponse::ResponseDeleteRange(self.delete_response(r, revision))
            }
            OpResult::Txn(r) => PbResponse::ResponseTxn(self.txn_response(r)),
        }
    }
}
