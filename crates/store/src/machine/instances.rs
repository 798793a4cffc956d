//! Which instance of its data each member has registered: whoever comes back under the same id
//! with another one has lost its disk.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};

use super::Refusal;
use super::codec::corrupt;
use super::overlay::{Overlay, try_scan};
use crate::backend::{BackendError, Direction, Space, View};
use crate::command::{RegisterRequest, Rejection};
use crate::types::MemberId;

const PREFIX: &[u8] = b"machine/instance/";
/// The first key after all that begin with [`PREFIX`].
const AFTER: &[u8] = b"machine/instance0";

fn key(member: MemberId) -> Bytes {
    let mut key = BytesMut::with_capacity(PREFIX.len() + 8);
    key.extend_from_slice(PREFIX);
    key.put_u64(member);
    key.freeze()
}

fn number(bytes: &[u8]) -> Result<u64, BackendError> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| corrupt("member's instance"))?))
}

pub(super) fn all(view: &impl View) -> Result<Vec<(MemberId, u64)>, BackendError> {
    let mut instances = Vec::new();
    try_scan(view, Space::Meta, PREFIX, Some(AFTER), Direction::Forward, |key, instance| {
        instances.push((number(&key[PREFIX.len()..])?, number(instance)?));
        Ok::<_, BackendError>(ControlFlow::Continue(()))
    })?;
    Ok(instances)
}

pub(super) fn register<V: View>(
    state: &mut Overlay<'_, V>,
    request: RegisterRequest,
) -> Result<(), Refusal> {
    let RegisterRequest { member, instance } = request;
    let key = key(member);
    match state.get(Space::Meta, &key)? {
        Some(found) if number(&found)? != instance => {
            Err(Rejection::Registered(number(&found)?).into())
        }
        Some(_) => Ok(()),
        None => {
            state.put(Space::Meta, key, Bytes::copy_from_slice(&instance.to_be_bytes()));
            Ok(())
        }
    }
}

/// Nobody has registered.
pub(super) fn forget<V: View>(state: &mut Overlay<'_, V>) -> Result<(), BackendError> {
    for (member, _) in all(state)? {
        state.delete(Space::Meta, key(member));
    }
    Ok(())
}
