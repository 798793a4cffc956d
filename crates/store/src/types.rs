//! The data that travels: keys and values, requests and their results. Commands, which carry them
//! through the log, are in [`crate::command`].
//!
//! These are `prost` messages so that one definition serves as Rust type, as the encoding
//! of the Raft log and of forwarded writes, and so that a newer field or operation is seen
//! as such by an older master (protobuf skips unknown fields; an unknown operation decodes
//! to `None`, which `apply` treats as fatal instead of diverging).

use bytes::Bytes;

/// Position in the history of the store: +1 for every transaction that changes something.
/// The store starts at revision 1 with no keys, as etcd does.
pub type Revision = u64;

/// A Raft term.
pub type Term = u64;

/// Identity of a master. Never used twice, not even after removal.
pub type MemberId = u64;

/// A lease; 0 means "no lease".
pub type LeaseId = i64;

/// One key with its value and its history counters (etcd's meanings).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision of the transaction that created the key.
    #[prost(uint64, tag = "2")]
    pub create_revision: Revision,
    /// Revision of the transaction that last changed it.
    #[prost(uint64, tag = "3")]
    pub mod_revision: Revision,
    /// Number of changes since creation, starting at 1.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease it is attached to, 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: LeaseId,
}

/// A half-open range of keys, with etcd's conventions for `end`: empty means just `key`,
/// a single zero byte means "everything from `key` on".
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyRange {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// First key that no longer belongs to the range; see the type's documentation.
    #[prost(bytes = "bytes", tag = "2")]
    pub end: Bytes,
}

impl KeyRange {
    /// Just this key.
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::new() }
    }

    /// Every key that starts with `prefix`; the empty prefix means every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let key: Bytes = prefix.into();
        let end = prefix_end(&key);
        // etcd spells "every key" as key "\0", end "\0".
        let key = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
        Self { key, end }
    }

    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::prefix(Bytes::new())
    }

    /// Is this the range of one key?
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    /// Has the range no upper bound?
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.end.as_ref() == [0]
    }

    /// Does the range contain `key`?
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            return key == self.key.as_ref();
        }
        key >= self.key.as_ref() && (self.is_unbounded() || key < self.end.as_ref())
    }
}

/// The first key after every key that starts with `prefix`; `[0]` when there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// What a range is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// By key (the natural order; costs nothing).
    Key = 0,
    /// By version.
    Version = 1,
    /// By creation revision.
    Create = 2,
    /// By modification revision.
    Mod = 3,
    /// By value.
    Value = 4,
}

/// Direction of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// Not sorted beyond the natural order of keys.
    None = 0,
    /// Smallest first.
    Ascend = 1,
    /// Largest first.
    Descend = 2,
}

/// Read a range of keys at one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    /// Which keys.
    #[prost(message, required, tag = "1")]
    pub range: KeyRange,
    /// At which revision; 0 means the latest.
    #[prost(uint64, tag = "2")]
    pub revision: Revision,
    /// At most this many keys; 0 means all.
    #[prost(uint64, tag = "3")]
    pub limit: u64,
    /// Leave the values out.
    #[prost(bool, tag = "4")]
    pub keys_only: bool,
    /// Return the count only.
    #[prost(bool, tag = "5")]
    pub count_only: bool,
    /// Direction of the sort.
    #[prost(enumeration = "SortOrder", tag = "6")]
    pub sort_order: i32,
    /// What to sort by.
    #[prost(enumeration = "SortTarget", tag = "7")]
    pub sort_target: i32,
    /// Keep keys with mod revision ≥ this (0: no bound). The four bounds filter `kvs`, not `count`, as in etcd.
    #[prost(uint64, tag = "8")]
    pub min_mod_revision: Revision,
    /// Keep keys with mod revision ≤ this (0: no bound).
    #[prost(uint64, tag = "9")]
    pub max_mod_revision: Revision,
    /// Keep keys with create revision ≥ this (0: no bound).
    #[prost(uint64, tag = "10")]
    pub min_create_revision: Revision,
    /// Keep keys with create revision ≤ this (0: no bound).
    #[prost(uint64, tag = "11")]
    pub max_create_revision: Revision,
}

impl RangeRequest {
    /// Everything in `range`, at the latest revision.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        Self { range, ..Self::default() }
    }

    /// One key, at the latest revision.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::single(key))
    }
}

/// The answer to a [`RangeRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    /// The keys found, at most `limit`.
    #[prost(message, repeated, tag = "1")]
    pub kvs: Vec<KeyValue>,
    /// Were there more than `limit`?
    #[prost(bool, tag = "2")]
    pub more: bool,
    /// How many keys the range holds, without `limit`.
    #[prost(uint64, tag = "3")]
    pub count: u64,
    /// The store's revision when the read was made (not the requested one).
    #[prost(uint64, tag = "4")]
    pub revision: Revision,
}

/// Write one key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    /// The key; must not be empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Attach to this lease (0: none).
    #[prost(int64, tag = "3")]
    pub lease: LeaseId,
    /// Return the previous record.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// Keep the present value (the key must exist).
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// Keep the present lease (the key must exist).
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// Delete a range of keys.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeRequest {
    /// Which keys.
    #[prost(message, required, tag = "1")]
    pub range: KeyRange,
    /// Return the deleted records.
    #[prost(bool, tag = "2")]
    pub prev_kv: bool,
}

/// The answer to a [`PutRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {
    /// The previous record, when asked for and present.
    #[prost(message, optional, tag = "1")]
    pub prev_kv: Option<KeyValue>,
}

/// The answer to a [`DeleteRangeRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeResponse {
    /// How many keys were deleted.
    #[prost(uint64, tag = "1")]
    pub deleted: u64,
    /// Their records, when asked for.
    #[prost(message, repeated, tag = "2")]
    pub prev_kvs: Vec<KeyValue>,
}

/// How a [`Compare`] relates the record to its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// record = operand
    Equal = 0,
    /// record > operand
    Greater = 1,
    /// record < operand
    Less = 2,
    /// record ≠ operand
    NotEqual = 3,
}

/// The part of the record that a [`Compare`] looks at, with the operand.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum CompareTarget {
    /// The version; 0 for a key that does not exist.
    #[prost(uint64, tag = "3")]
    Version(u64),
    /// The creation revision; 0 for a key that does not exist.
    #[prost(uint64, tag = "4")]
    CreateRevision(u64),
    /// The modification revision; 0 for a key that does not exist.
    #[prost(uint64, tag = "5")]
    ModRevision(u64),
    /// The value; a key that does not exist never compares true.
    #[prost(bytes = "bytes", tag = "6")]
    Value(Bytes),
    /// The lease; 0 for a key that does not exist.
    #[prost(int64, tag = "7")]
    Lease(i64),
}

/// A condition of a transaction; over a range it must hold for every key in it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// Which keys.
    #[prost(message, required, tag = "1")]
    pub range: KeyRange,
    /// The relation.
    #[prost(enumeration = "CompareResult", tag = "2")]
    pub result: i32,
    /// What is compared with what. `None` (from a newer master) is fatal in `apply`.
    #[prost(oneof = "CompareTarget", tags = "3, 4, 5, 6, 7")]
    pub target: Option<CompareTarget>,
}

impl Compare {
    /// `key` was last changed at `revision` (0: it does not exist).
    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self {
            range: KeyRange::single(key),
            result: CompareResult::Equal.into(),
            target: Some(CompareTarget::ModRevision(revision)),
        }
    }
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Read.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Write.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Delete.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    /// A nested transaction.
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

/// Carrier of an [`Op`] (protobuf has no repeated oneof).
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestOp {
    /// The operation. `None` (from a newer master) is fatal in `apply`.
    #[prost(oneof = "Op", tags = "1, 2, 3, 4")]
    pub op: Option<Op>,
}

impl From<Op> for RequestOp {
    fn from(op: Op) -> Self {
        Self { op: Some(op) }
    }
}

/// When all of `compare` hold, then `success`, else `failure`; all at one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRequest {
    /// Conditions; none means "true".
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What to do when they hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What to do when they do not.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// A transaction with one unconditional put.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        Self { success: vec![Op::Put(put).into()], ..Self::default() }
    }

    /// A transaction with one unconditional deletion.
    #[must_use]
    pub fn delete(range: KeyRange) -> Self {
        let delete = DeleteRangeRequest { range, prev_kv: false };
        Self { success: vec![Op::DeleteRange(delete).into()], ..Self::default() }
    }
}

/// The answer to one [`Op`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OpResult {
    /// Of a read.
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// Of a write.
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// Of a deletion.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    /// Of a nested transaction.
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

/// Carrier of an [`OpResult`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseOp {
    /// The result.
    #[prost(oneof = "OpResult", tags = "1, 2, 3, 4")]
    pub result: Option<OpResult>,
}

impl From<OpResult> for ResponseOp {
    fn from(result: OpResult) -> Self {
        Self { result: Some(result) }
    }
}

/// The answer to a [`TxnRequest`]. A condition that does not hold is a result, not an error.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnResponse {
    /// The store's revision after the transaction.
    #[prost(uint64, tag = "1")]
    pub revision: Revision,
    /// Did the conditions hold?
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// One result per operation that was carried out, in order.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// A hash of what can be read and watched, to compare members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// Equal on all members that agree, if the two revisions are equal.
    pub hash: u32,
    /// History before this revision is not part of it.
    pub compact_revision: Revision,
    /// Nor is anything after this one.
    pub revision: Revision,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// It was created or changed.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// The record after the change; for a deletion only `key` and `mod_revision` are set.
    pub kv: KeyValue,
    /// The record before the change; `None` when there was none, or it is compacted.
    pub prev_kv: Option<KeyValue>,
}
