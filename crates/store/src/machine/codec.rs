//! How records and keys look in the backend's spaces.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::overlay::Overlay;
use super::range::ReadPoint;
use crate::backend::{BackendError, Space, View};
use crate::command::{Alarm, AlarmKind, AlarmRequest};
use crate::types::{EventType, KeyValue, LeaseId, MemberId, Revision, Term};

/// Four counters of eight bytes before the value.
const HEADER: usize = 32;

/// A place in history: the revision and the order within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub revision: Revision,
    pub sub: u32,
}

/// Bytes of an encoded [`Moment`].
const MOMENT: usize = 12;

impl Moment {
    /// The first of a revision.
    pub fn first(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }

    pub fn encode(self) -> [u8; MOMENT] {
        let mut bytes = [0; MOMENT];
        bytes[..8].copy_from_slice(&self.revision.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BackendError> {
        let (revision, sub) = bytes.split_at_checked(8).ok_or_else(|| corrupt("moment"))?;
        let revision = u64::from_be_bytes(revision.try_into().map_err(|_| corrupt("moment"))?);
        let sub = u32::from_be_bytes(sub.try_into().map_err(|_| corrupt("moment"))?);
        Ok(Self { revision, sub })
    }
}

/// The counters of a record; its key is known from elsewhere, its value follows in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    pub lease: LeaseId,
}

impl Header {
    pub fn of(kv: &KeyValue) -> Self {
        let KeyValue { create_revision, mod_revision, version, lease, .. } = *kv;
        Self { create_revision, mod_revision, version, lease }
    }

    fn write(self, buffer: &mut BytesMut) {
        buffer.put_u64(self.create_revision);
        buffer.put_u64(self.mod_revision);
        buffer.put_u64(self.version);
        buffer.put_i64(self.lease);
    }

    fn into_kv(self, key: Bytes, value: Bytes) -> KeyValue {
        let Self { create_revision, mod_revision, version, lease } = self;
        KeyValue { key, create_revision, mod_revision, version, value, lease }
    }
}

/// Encodes a record for [`Space::Latest`].
pub(super) fn encode_record(kv: &KeyValue) -> Bytes {
    let mut buffer = BytesMut::with_capacity(HEADER + kv.value.len());
    Header::of(kv).write(&mut buffer);
    buffer.extend_from_slice(&kv.value);
    buffer.freeze()
}

/// Splits a record into its header and its value.
pub(super) fn split_record(record: &[u8]) -> Result<(Header, &[u8]), BackendError> {
    let (header, value) = record.split_first_chunk::<HEADER>().ok_or_else(|| corrupt("record"))?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let header = Header {
        create_revision: word(0),
        mod_revision: word(8),
        version: word(16),
        lease: word(24).cast_signed(),
    };
    Ok((header, value))
}

/// Decodes a record that the caller owns, without copying the value.
pub(super) fn decode_record(key: Bytes, record: &Bytes) -> Result<KeyValue, BackendError> {
    let (header, _) = split_record(record)?;
    Ok(header.into_kv(key, record.slice(HEADER..)))
}

/// Decodes a borrowed record; `with_value` says whether the value is wanted.
pub(super) fn copy_record(
    key: &[u8],
    record: &[u8],
    with_value: bool,
) -> Result<KeyValue, BackendError> {
    let (header, value) = split_record(record)?;
    let value = if with_value { Bytes::copy_from_slice(value) } else { Bytes::new() };
    Ok(header.into_kv(Bytes::copy_from_slice(key), value))
}

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The mark of a change in [`Space::Index`].
pub(super) fn mark(kind: EventType) -> Bytes {
    Bytes::from_static(match kind {
        EventType::Put => &[PUT],
        EventType::Delete => &[DELETE],
    })
}

pub(super) fn parse_mark(value: &[u8]) -> Result<EventType, BackendError> {
    match value {
        [PUT] => Ok(EventType::Put),
        [DELETE] => Ok(EventType::Delete),
        _ => Err(corrupt("index entry")),
    }
}

/// A change in [`Space::History`]: kind, length of the key, key, and for a put its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub kind: EventType,
    pub key: &'a [u8],
    pub record: &'a [u8],
}

impl<'a> Change<'a> {
    pub fn encode(self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(5 + self.key.len() + self.record.len());
        buffer.put_u8(if self.kind == EventType::Put { PUT } else { DELETE });
        // Commands are limited to far less than 4 GiB.
        buffer.put_u32(self.key.len() as u32);
        buffer.extend_from_slice(self.key);
        buffer.extend_from_slice(self.record);
        buffer.freeze()
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, BackendError> {
        let ([kind, length @ ..], rest) =
            bytes.split_first_chunk::<5>().ok_or_else(|| corrupt("history entry"))?;
        let kind = parse_mark(&[*kind])?;
        let length = u32::from_be_bytes(*length) as usize;
        let (key, record) =
            rest.split_at_checked(length).ok_or_else(|| corrupt("history entry"))?;
        Ok(Self { kind, key, record })
    }

    /// The record after the change; of a deletion only the key and the revision.
    pub fn to_kv(self, revision: Revision) -> Result<KeyValue, BackendError> {
        match self.kind {
            EventType::Put => copy_record(self.key, self.record, true),
            EventType::Delete => Ok(tombstone(Bytes::copy_from_slice(self.key), revision)),
        }
    }
}

/// What an event tells of a deleted key.
pub(super) fn tombstone(key: Bytes, revision: Revision) -> KeyValue {
    KeyValue { key, mod_revision: revision, ..KeyValue::default() }
}

/// The prefix of a key's entries in [`Space::Index`]: the key with zero bytes escaped, and an
/// end mark that sorts before every continuation, so that entries sort as keys do.
pub(super) fn index_prefix(key: &[u8]) -> BytesMut {
    let mut prefix = BytesMut::with_capacity(key.len() + 2 + MOMENT);
    for byte in key {
        prefix.put_u8(*byte);
        if *byte == 0 {
            prefix.put_u8(0xff);
        }
    }
    prefix.extend_from_slice(&[0, 0]);
    prefix
}

/// A key's entry in [`Space::Index`].
pub(super) fn index_key(key: &[u8], at: Moment) -> Bytes {
    let mut bytes = index_prefix(key);
    bytes.extend_from_slice(&at.encode());
    bytes.freeze()
}

/// Splits an entry's key in [`Space::Index`] into the key's prefix and the moment.
pub(super) fn split_index_key(bytes: &[u8]) -> Result<(&[u8], Moment), BackendError> {
    let at = bytes.len().checked_sub(MOMENT).ok_or_else(|| corrupt("index key"))?;
    let (prefix, moment) = bytes.split_at(at);
    Ok((prefix, Moment::decode(moment)?))
}

/// The key of an index prefix.
pub(super) fn unescape(prefix: &[u8]) -> Result<Bytes, BackendError> {
    let escaped = prefix.strip_suffix(&[0, 0]).ok_or_else(|| corrupt("index key"))?;
    let mut key = BytesMut::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        key.put_u8(*byte);
        if *byte == 0 && bytes.next() != Some(&0xff) {
            return Err(corrupt("index key"));
        }
    }
    Ok(key.freeze())
}

pub(super) fn corrupt(what: &str) -> BackendError {
    BackendError::new(format_args!("a damaged {what}"))
}

/// The layout of the spaces that this version reads and writes.
const FORMAT: u32 = 2;
const COUNTERS_KEY: &[u8] = b"machine/counters";

/// What the state machine knows besides keys and history.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Counters {
    #[prost(uint32, tag = "1")]
    pub format: u32,
    #[prost(uint64, tag = "2")]
    pub revision: Revision,
    #[prost(uint64, tag = "3")]
    pub compact_revision: Revision,
    /// The newest term applied.
    #[prost(uint64, tag = "4")]
    pub term: Term,
    /// Request ids remembered so far, forgotten ones included.
    #[prost(uint64, tag = "5")]
    pub requests: u64,
    /// Compaction has worked up to this moment of history (exclusive).
    #[prost(uint64, tag = "6")]
    pub compacted_to: Revision,
    #[prost(uint32, tag = "7")]
    pub compacted_to_sub: u32,
    /// Is there compaction work left?
    #[prost(bool, tag = "8")]
    pub compacting: bool,
    /// The alarms that are on, in order.
    #[prost(message, repeated, tag = "9")]
    pub alarms: Vec<Alarm>,
    /// The sum of the hashes of all records in [`Space::Latest`].
    #[prost(fixed64, tag = "10")]
    pub content: u64,
}

impl Counters {
    /// Reads them; an empty backend is at revision 1, as in etcd.
    pub fn load(view: &impl View) -> Result<Self, BackendError> {
        let Some(bytes) = view.get(Space::Meta, COUNTERS_KEY)? else {
            return Ok(Self { format: FORMAT, revision: 1, ..Self::default() });
        };
        let counters = Self::decode(bytes).map_err(|_| corrupt("set of counters"))?;
        if counters.format != FORMAT {
            return Err(BackendError::new(format_args!(
                "the data is in format {}, this version of quorate reads format {FORMAT}",
                counters.format
            )));
        }
        Ok(counters)
    }

    /// The member whose NOSPACE alarm is on.
    pub fn no_space(&self) -> Option<MemberId> {
        let full = |alarm: &&Alarm| alarm.kind() == AlarmKind::NoSpace;
        self.alarms.iter().find(full).map(|alarm| alarm.member)
    }

    /// Switches an alarm.
    pub fn set_alarm(&mut self, request: AlarmRequest) {
        match (self.alarms.binary_search(&request.alarm), request.active) {
            (Err(place), true) => self.alarms.insert(place, request.alarm),
            (Ok(place), false) => {
                self.alarms.remove(place);
            }
            _ => {}
        }
    }

    /// The revisions of the state that these counters belong to.
    pub fn read_point(&self) -> ReadPoint {
        ReadPoint { revision: self.revision, compact_revision: self.compact_revision }
    }

    pub fn save<V: View>(&self, state: &mut Overlay<'_, V>) {
        state.put(Space::Meta, Bytes::from_static(COUNTERS_KEY), self.encode_to_vec().into());
    }
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
