//! What can be said of a command without looking at the state.

use std::collections::BTreeSet;

use prost::Message;

use crate::backend::BackendError;
use crate::command::{AlarmKind, Command, CommandKind, LeaseGrantRequest, Rejection};
use crate::error::StoreError;
use crate::types::{
    CompareResult, DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, RequestOp,
    SortOrder, SortTarget, TxnRequest,
};
use crate::{MAX_BATCH, MAX_COMMAND_BYTES, MAX_LEASE_TTL, MAX_TXN_DEPTH, MAX_TXN_OPS};

/// Would every replica carry this command out, as far as one can say without the state? To be
/// asked before a command is proposed: in the log, an operation that this version does not know
/// stops the process.
///
/// # Errors
/// [`StoreError::TooLarge`] and [`StoreError::Invalid`].
pub fn check_command(command: &Command) -> Result<(), StoreError> {
    let size = command.encoded_len();
    if size > MAX_COMMAND_BYTES {
        return Err(StoreError::TooLarge { what: "command", size, limit: MAX_COMMAND_BYTES });
    }
    check_known(command)?;
    if let Some(CommandKind::Txn(txn)) = &command.kind
        && depth(txn) > MAX_TXN_DEPTH
    {
        let reason = format!("transactions are nested more than {MAX_TXN_DEPTH} deep");
        return Err(StoreError::Invalid(reason));
    }
    Ok(check(command)?)
}

/// Does this version know everything that the command asks for? To be asked before one that
/// another master has checked is proposed.
///
/// # Errors
/// [`StoreError::Invalid`].
pub fn check_known(command: &Command) -> Result<(), StoreError> {
    known(command).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// How many transactions are inside one another.
fn depth(txn: &TxnRequest) -> usize {
    let inner = txn.success.iter().chain(&txn.failure).map(|op| match &op.op {
        Some(Op::Txn(nested)) => depth(nested),
        _ => 0,
    });
    1 + inner.max().unwrap_or(0)
}

/// Is it a transaction that changes nothing, whichever way it goes? Such a one need not enter
/// the log.
pub fn reads_only(command: &Command) -> bool {
    fn ranges(ops: &[RequestOp]) -> bool {
        ops.iter().all(|op| match &op.op {
            Some(Op::Range(_)) => true,
            Some(Op::Txn(nested)) => ranges(&nested.success) && ranges(&nested.failure),
            _ => false,
        })
    }
    match &command.kind {
        Some(CommandKind::Txn(txn)) => ranges(&txn.success) && ranges(&txn.failure),
        _ => false,
    }
}

/// The same for a read.
pub(super) fn check_range(request: &RangeRequest) -> Result<(), StoreError> {
    known_range(request).map_err(|error| StoreError::Invalid(error.to_string()))?;
    Ok(key_given(&request.range)?)
}

/// The error that stops a process when the log asks for what it does not know.
pub(super) fn unknown(what: &str) -> BackendError {
    BackendError::new(format_args!(
        "unknown {what}: it comes from a newer version of quorate; upgrade this master"
    ))
}

/// Fails when this version does not know all parts of the command.
pub(super) fn known(command: &Command) -> Result<(), BackendError> {
    match &command.kind {
        Some(CommandKind::Txn(txn)) => known_txn(txn),
        Some(CommandKind::Batch(batch)) => batch.txns.iter().try_for_each(known_txn),
        Some(CommandKind::Alarm(request)) => match AlarmKind::try_from(request.alarm.kind) {
            Ok(_) => Ok(()),
            Err(_) => Err(unknown("alarm")),
        },
        Some(
            CommandKind::Compact(_)
            | CommandKind::LeaseGrant(_)
            | CommandKind::LeaseRevoke(_)
            | CommandKind::Register(_),
        ) => Ok(()),
        None => Err(unknown("command")),
    }
}

fn known_txn(txn: &TxnRequest) -> Result<(), BackendError> {
    for compare in &txn.compare {
        let relation = CompareResult::try_from(compare.result);
        if compare.target.is_none() || relation.is_err() {
            return Err(unknown("comparison"));
        }
    }
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match &op.op {
        Some(Op::Range(request)) => known_range(request),
        Some(Op::Put(_) | Op::DeleteRange(_)) => Ok(()),
        Some(Op::Txn(nested)) => known_txn(nested),
        None => Err(unknown("operation")),
    })
}

fn known_range(request: &RangeRequest) -> Result<(), BackendError> {
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() { Err(unknown("sort order")) } else { Ok(()) }
}

/// Refuses what makes no sense in any state.
pub(super) fn check(command: &Command) -> Result<(), Rejection> {
    match &command.kind {
        Some(CommandKind::Txn(txn)) => check_txn(txn),
        Some(CommandKind::Batch(batch)) => check_batch(&batch.txns),
        Some(CommandKind::LeaseGrant(grant)) => check_grant(*grant),
        _ => Ok(()),
    }
}

fn check_txn(txn: &TxnRequest) -> Result<(), Rejection> {
    if operations(txn) > MAX_TXN_OPS {
        return Err(invalid("too many operations in txn request"));
    }
    check_keys(txn)?;
    Writes::of(&txn.success)?;
    Writes::of(&txn.failure)?;
    Ok(())
}

fn check_batch(txns: &[TxnRequest]) -> Result<(), Rejection> {
    fn certain(ops: &[RequestOp]) -> bool {
        ops.iter().all(|op| match &op.op {
            Some(Op::Range(range)) => range.revision == 0,
            Some(Op::Put(put)) => put.lease == 0 && !put.ignore_value && !put.ignore_lease,
            Some(Op::Txn(nested)) => certain(&nested.success) && certain(&nested.failure),
            Some(Op::DeleteRange(_)) | None => true,
        })
    }
    if txns.len() > MAX_BATCH {
        return Err(invalid("too many transactions in a batch"));
    }
    txns.iter().try_for_each(|txn| {
        if !certain(&txn.success) || !certain(&txn.failure) {
            return Err(invalid("a transaction of a batch could be refused"));
        }
        check_txn(txn)
    })
}

fn check_grant(grant: LeaseGrantRequest) -> Result<(), Rejection> {
    if grant.id == 0 {
        return Err(invalid("lease id is not provided"));
    }
    if !(1..=MAX_LEASE_TTL).contains(&grant.ttl_seconds) {
        let text = format!("lease ttl {} is not in 1..={MAX_LEASE_TTL}", grant.ttl_seconds);
        return Err(Rejection::Invalid(text));
    }
    Ok(())
}

/// Does the command store something new? Such commands are refused while space is short.
#[must_use]
pub fn needs_space(command: &Command) -> bool {
    fn puts(ops: &[RequestOp]) -> bool {
        ops.iter().any(|op| match &op.op {
            Some(Op::Put(_)) => true,
            Some(Op::Txn(nested)) => puts(&nested.success) || puts(&nested.failure),
            _ => false,
        })
    }
    match &command.kind {
        Some(CommandKind::LeaseGrant(_)) => true,
        _ => command.txns().iter().any(|txn| puts(&txn.success) || puts(&txn.failure)),
    }
}

/// The longest of the three lists, nested operations included.
fn operations(txn: &TxnRequest) -> usize {
    let count = |ops: &[RequestOp]| -> usize {
        ops.iter()
            .map(|op| match &op.op {
                Some(Op::Txn(nested)) => 1 + operations(nested),
                _ => 1,
            })
            .sum()
    };
    txn.compare.len().max(count(&txn.success)).max(count(&txn.failure))
}

fn check_keys(txn: &TxnRequest) -> Result<(), Rejection> {
    txn.compare.iter().try_for_each(|compare| key_given(&compare.range))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match &op.op {
        Some(Op::Range(RangeRequest { range, .. })) => key_given(range),
        Some(Op::DeleteRange(DeleteRangeRequest { range, .. })) => key_given(range),
        Some(Op::Put(put)) => check_put(put),
        Some(Op::Txn(nested)) => check_keys(nested),
        None => Ok(()),
    })
}

fn check_put(put: &PutRequest) -> Result<(), Rejection> {
    if put.key.is_empty() {
        return Err(invalid("key is not provided"));
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(invalid("value is provided"));
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(invalid("lease is provided"));
    }
    Ok(())
}

fn key_given(range: &KeyRange) -> Result<(), Rejection> {
    if range.key.is_empty() { Err(invalid("key is not provided")) } else { Ok(()) }
}

fn invalid(text: &str) -> Rejection {
    Rejection::Invalid(text.into())
}

/// What a list of operations may write. No key may be put twice, nor put after or beside its
/// deletion; the branches of a nested transaction exclude each other (etcd's `checkIntervals`).
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    fn of(ops: &'a [RequestOp]) -> Result<Self, Rejection> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Op::DeleteRange(delete)) = &op.op {
                writes.deletes.push(&delete.range);
            }
        }
        for op in ops {
            if let Some(Op::Txn(nested)) = &op.op {
                writes.nest(Self::of(&nested.success)?, Self::of(&nested.failure)?)?;
            }
        }
        for op in ops {
            if let Some(Op::Put(put)) = &op.op {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn nest(&mut self, then: Self, otherwise: Self) -> Result<(), Rejection> {
        for key in then.puts.union(&otherwise.puts) {
            self.put(key)?;
        }
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Rejection> {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key) {
            return Err(invalid("duplicate key given in txn request"));
        }
        Ok(())
    }
}
