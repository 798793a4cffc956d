//! Request ids: a retry gets the first result, the oldest ids are forgotten first.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::codec::{Counters, corrupt};
use super::overlay::Overlay;
use crate::REQUEST_IDS_KEPT;
use crate::backend::{BackendError, Space, View};
use crate::command::CommandResult;

/// The result of the command that came first with this id, if it is still remembered.
pub(super) fn recall(view: &impl View, id: &[u8]) -> Result<Option<CommandResult>, BackendError> {
    let Some(bytes) = view.get(Space::Requests, &id_key(id))? else { return Ok(None) };
    CommandResult::decode(bytes).map(Some).map_err(|_| corrupt("remembered result"))
}

/// Remembers a result, and forgets the oldest one when there are too many.
pub(super) fn remember<V: View>(
    state: &mut Overlay<'_, V>,
    counters: &mut Counters,
    id: &Bytes,
    result: &CommandResult,
) -> Result<(), BackendError> {
    state.put(Space::Requests, id_key(id), result.encode_to_vec().into());
    state.put(Space::Requests, queue_key(counters.requests), id.clone());
    if let Some(oldest) = counters.requests.checked_sub(REQUEST_IDS_KEPT as u64) {
        let place = queue_key(oldest);
        let id =
            state.get(Space::Requests, &place)?.ok_or_else(|| corrupt("queue of request ids"))?;
        state.delete(Space::Requests, id_key(&id));
        state.delete(Space::Requests, place);
    }
    counters.requests += 1;
    Ok(())
}

/// Where an id's result is.
fn id_key(id: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + id.len());
    key.put_u8(b'i');
    key.extend_from_slice(id);
    key.freeze()
}

/// Where the id that came as number `sequence` is.
fn queue_key(sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(b'q');
    key.put_u64(sequence);
    key.freeze()
}
