//! Transactions over the keys of one group, by etcd's API.

use anyhow::{Result, bail};
use quorate_proto::etcd::etcdserverpb as pb;
use rand::Rng;

use super::{Answer, TRANSACTIONS, Worker};
use crate::etcd::{Ended, Etcd, end_of, text};
use crate::linear::{TransactionInput, TransactionOutput};
use crate::meter::Kind as Counted;

/// Keys of a group.
const KEYS: u32 = 3;

pub(super) async fn step(worker: &mut Worker) {
    let Some(mut etcd) = worker.etcd.take() else { return };
    let group = u32::try_from(worker.book.turn()).unwrap_or(u32::MAX);
    let reads: Vec<u32> = (0..KEYS).collect();
    let look = TransactionInput { group, reads: reads.clone(), ..TransactionInput::default() };
    let found = carry_out(worker, &mut etcd, look).await;
    if let Some(found) = found
        && worker.random.random_bool(0.7)
    {
        // Two keys change if the third is as it was seen.
        let guard = worker.random.random_range(0..KEYS);
        let seen = found.reads.get(guard as usize).copied().flatten();
        let writes = reads.iter().filter(|key| **key != guard);
        let change = TransactionInput {
            group,
            conditions: vec![(guard, seen)],
            writes: writes.map(|key| (*key, worker.book.value())).collect(),
            reads,
        };
        carry_out(worker, &mut etcd, change).await;
    }
    worker.etcd = Some(etcd);
}

/// Asks, and records; returns the answer.
async fn carry_out(
    worker: &Worker,
    etcd: &mut Etcd,
    input: TransactionInput,
) -> Option<TransactionOutput> {
    let sent = worker.book.clock.now();
    let ended = etcd.txn(request(&input)).await;
    let answered = worker.book.clock.now();
    let (output, answer, counted) = match ended {
        Ended::Done(response) => {
            let output = output(&response);
            let answer = if output.succeeded {
                let revision = response.header.unwrap_or_default().revision;
                Answer::Done(u64::try_from(revision).unwrap_or(0))
            } else {
                Answer::Conflict
            };
            (Some(output), answer, Counted::Answered)
        }
        Ended::Unknown(_) => (None, Answer::Unknown, Counted::Unknown),
        Ended::Refused(text) => (None, Answer::Refused(text), Counted::Refused),
    };
    worker.book.meter.count(sent, answered, counted);
    for (number, value) in &input.writes {
        worker.book.note_key(&key(input.group, *number), Some(*value), &answer);
    }
    // What was refused had no effect and no answer: it is no part of the history.
    if !matches!(answer, Answer::Refused(_)) {
        let history = &worker.book.transactions;
        worker.push(history, (sent, answered), input, output.clone());
    }
    output
}

fn key(group: u32, number: u32) -> String {
    format!("{TRANSACTIONS}{group}/{number}")
}

fn request(input: &TransactionInput) -> pb::TxnRequest {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    use pb::request_op::Request;
    let key = |number: u32| key(input.group, number).into_bytes().into();
    let compare = |(number, value): &(u32, Option<u64>)| {
        let (target, union) = match value {
            Some(value) => {
                (CompareTarget::Value, TargetUnion::Value(value.to_string().into_bytes().into()))
            }
            None => (CompareTarget::Version, TargetUnion::Version(0)),
        };
        pb::Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: key(*number),
            target_union: Some(union),
            ..pb::Compare::default()
        }
    };
    let put = |(number, value): &(u32, u64)| pb::RequestOp {
        request: Some(Request::RequestPut(pb::PutRequest {
            key: key(*number),
            value: value.to_string().into_bytes().into(),
            ..pb::PutRequest::default()
        })),
    };
    let range = |number: &u32| pb::RequestOp {
        request: Some(Request::RequestRange(pb::RangeRequest {
            key: key(*number),
            ..pb::RangeRequest::default()
        })),
    };
    let reads: Vec<pb::RequestOp> = input.reads.iter().map(range).collect();
    pb::TxnRequest {
        compare: input.conditions.iter().map(compare).collect(),
        success: input.writes.iter().map(put).chain(reads.clone()).collect(),
        failure: reads,
    }
}

fn output(response: &pb::TxnResponse) -> TransactionOutput {
    use pb::response_op::Response;
    let reads = response.responses.iter().filter_map(|op| match &op.response {
        Some(Response::ResponseRange(range)) => {
            Some(range.kvs.first().and_then(|kv| text(&kv.value).parse().ok()))
        }
        _ => None,
    });
    TransactionOutput { succeeded: response.succeeded, reads: reads.collect() }
}

/// Deletes all keys with a prefix.
pub(super) async fn delete_all(etcd: &mut Etcd, prefix: &str) -> Result<()> {
    let delete = pb::DeleteRangeRequest {
        key: prefix.to_owned().into_bytes().into(),
        range_end: end_of(prefix).into(),
        ..pb::DeleteRangeRequest::default()
    };
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestDeleteRange(delete)) };
    match etcd.txn(pb::TxnRequest { success: vec![op], ..pb::TxnRequest::default() }).await {
        Ended::Done(_) => Ok(()),
        other => bail!("deleting {prefix}: {other:?}"),
    }
}

/// All keys of transactions, with value and revision.
pub(super) async fn read_all(etcd: &mut Etcd) -> Result<Vec<(String, (u64, u64))>> {
    let range = pb::RangeRequest {
        key: TRANSACTIONS.as_bytes().into(),
        range_end: end_of(TRANSACTIONS).into(),
        ..pb::RangeRequest::default()
    };
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) };
    let request = pb::TxnRequest { success: vec![op], ..pb::TxnRequest::default() };
    let response = match etcd.txn(request).await {
        Ended::Done(response) => response,
        other => bail!("reading all keys: {other:?}"),
    };
    let ranges = response.responses.into_iter().filter_map(|op| match op.response {
        Some(pb::response_op::Response::ResponseRange(range)) => Some(range),
        _ => None,
    });
    let kept = ranges.flat_map(|range| range.kvs).filter_map(|kv| {
        let revision = u64::try_from(kv.mod_revision).ok()?;
        Some((text(&kv.key), (text(&kv.value).parse().ok()?, revision)))
    });
    Ok(kept.collect())
}
