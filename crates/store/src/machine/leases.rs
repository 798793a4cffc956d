//! Leases in the state: which there are, and which keys are attached to them.
//!
//! When a lease ends is not decided here: the state knows no time. The leader's [`crate::Lessor`]
//! decides, and proposes the revocation.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};

use super::Refusal;
use super::codec::corrupt;
use super::overlay::{Overlay, try_scan};
use crate::backend::{BackendError, Direction, Space, View};
use crate::command::{LeaseGrantRequest, Rejection};
use crate::types::LeaseId;

/// Before a lease's own record.
const LEASE: u8 = b'l';
/// Before the keys of a lease.
const ATTACHED: u8 = b'k';

fn key(kind: u8, id: LeaseId, rest: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(9 + rest.len());
    bytes.put_u8(kind);
    bytes.put_i64(id);
    bytes.extend_from_slice(rest);
    bytes.freeze()
}

/// The time to live of a lease in seconds; `None` when there is no such lease.
pub(super) fn ttl(view: &impl View, id: LeaseId) -> Result<Option<i64>, BackendError> {
    view.get(Space::Leases, &key(LEASE, id, &[]))?.map(|bytes| parse_ttl(&bytes)).transpose()
}

fn parse_ttl(bytes: &[u8]) -> Result<i64, BackendError> {
    Ok(i64::from_be_bytes(bytes.try_into().map_err(|_| corrupt("lease"))?))
}

/// All leases with their times to live, in order of their bytes.
pub(super) fn all(view: &impl View) -> Result<Vec<(LeaseId, i64)>, BackendError> {
    let mut leases = Vec::new();
    let (start, end) = ([LEASE], [LEASE + 1]);
    try_scan(view, Space::Leases, &start, Some(&end), Direction::Forward, |key, ttl| {
        let id = key[1..].try_into().map_err(|_| corrupt("lease"))?;
        leases.push((LeaseId::from_be_bytes(id), parse_ttl(ttl)?));
        Ok::<_, BackendError>(ControlFlow::Continue(()))
    })?;
    Ok(leases)
}

/// The keys attached to a lease, in order.
pub(super) fn keys(view: &impl View, id: LeaseId) -> Result<Vec<Bytes>, BackendError> {
    let mut keys = Vec::new();
    let start = key(ATTACHED, id, &[]);
    try_scan(view, Space::Leases, &start, None, Direction::Forward, |entry, _| {
        let Some(attached) = entry.strip_prefix(start.as_ref()) else {
            return Ok(ControlFlow::Break(()));
        };
        keys.push(Bytes::copy_from_slice(attached));
        Ok::<_, BackendError>(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// Creates a lease that [`super::check`] found sensible.
pub(super) fn grant<V: View>(
    state: &mut Overlay<'_, V>,
    request: LeaseGrantRequest,
) -> Result<(), Refusal> {
    if ttl(state, request.id)?.is_some() {
        return Err(Rejection::LeaseExists(request.id).into());
    }
    let ttl = Bytes::copy_from_slice(&request.ttl_seconds.to_be_bytes());
    state.put(Space::Leases, key(LEASE, request.id, &[]), ttl);
    Ok(())
}

/// Removes the record of a lease; its keys have been deleted before.
pub(super) fn remove<V: View>(state: &mut Overlay<'_, V>, id: LeaseId) {
    state.delete(Space::Leases, key(LEASE, id, &[]));
}

/// A key that was attached to `old` is attached to `new` now; 0 is no lease.
pub(super) fn attach<V: View>(
    state: &mut Overlay<'_, V>,
    attached: &[u8],
    old: LeaseId,
    new: LeaseId,
) {
    if old == new {
        return;
    }
    if old != 0 {
        state.delete(Space::Leases, key(ATTACHED, old, attached));
    }
    if new != 0 {
        state.put(Space::Leases, key(ATTACHED, new, attached), Bytes::new());
    }
}
