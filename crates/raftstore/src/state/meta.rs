//! What the state knows of Raft: kept in the same batches as the data.

use std::io;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_store::{Space, View};

use crate::codec;
use crate::types::{LogId, SnapshotMeta, StoredMembership};

const APPLIED: &[u8] = b"raft/applied";
const MEMBERSHIP: &[u8] = b"raft/membership";

/// One change of the backend, as `StateMachine::apply` takes it.
type Change = (Space, Bytes, Option<Bytes>);

/// The last entry applied and the last membership among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateMeta {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
}

impl StateMeta {
    pub(crate) fn load(view: &impl View) -> io::Result<Self> {
        let get = |key: &[u8]| view.get(Space::Meta, key).map_err(io::Error::other);
        let applied = get(APPLIED)?.map(|bytes| codec::decode_log_id(&bytes)).transpose()?;
        let membership = match get(MEMBERSHIP)? {
            Some(bytes) => {
                let stored = pb::StoredMembership::decode(bytes)
                    .map_err(|_| codec::Malformed("membership in the state"))?;
                codec::stored_membership_from(stored)?
            }
            None => StoredMembership::default(),
        };
        Ok(Self { applied, membership })
    }

    /// What to write along with the data of a group of entries.
    pub(crate) fn changes(&self, membership_changed: bool) -> Vec<Change> {
        let mut changes = Vec::with_capacity(2);
        if let Some(applied) = self.applied {
            let bytes = codec::log_id_to(applied).encode_to_vec();
            changes.push((Space::Meta, Bytes::from_static(APPLIED), Some(bytes.into())));
        }
        if membership_changed {
            let bytes = codec::stored_membership_to(&self.membership).encode_to_vec();
            changes.push((Space::Meta, Bytes::from_static(MEMBERSHIP), Some(bytes.into())));
        }
        changes
    }

    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}
