//! Commands, the entries of the Raft log, and what comes of them. Encoded like [`crate::types`].

use bytes::Bytes;

use crate::types::{LeaseId, MemberId, Revision, Term, TxnRequest, TxnResponse};

/// Independent transactions as one entry of the log, one after the other: each sees what those
/// before it have done, and has a revision of its own, so that nobody can tell it from as many
/// commands. None of them may be such that it could be refused: no leases, nothing kept, and
/// reads of the present only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchRequest {
    /// The transactions, at most [`crate::MAX_BATCH`].
    #[prost(message, repeated, tag = "1")]
    pub txns: Vec<TxnRequest>,
}

/// Forget history up to and including `revision`; the latest record of every key stays.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CompactRequest {
    /// Up to where.
    #[prost(uint64, tag = "1")]
    pub revision: Revision,
}

/// Create a lease.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseGrantRequest {
    /// Its id; not 0 in a command (whoever proposes has chosen one).
    #[prost(int64, tag = "1")]
    pub id: LeaseId,
    /// Its time to live in seconds, at least 1.
    #[prost(int64, tag = "2")]
    pub ttl_seconds: i64,
}

/// End a lease and delete the keys attached to it, all at one revision.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseRevokeRequest {
    /// Which lease.
    #[prost(int64, tag = "1")]
    pub id: LeaseId,
}

/// What is wrong with a member (etcd's kinds and numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmKind {
    /// Its size budget or its disk is used up: no more puts, on any member.
    NoSpace = 1,
    /// Its data differs from the others': it serves nobody until it is rebuilt.
    Corrupt = 2,
}

/// An alarm that is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Alarm {
    /// The member it is about.
    #[prost(uint64, tag = "1")]
    pub member: MemberId,
    /// What is wrong.
    #[prost(enumeration = "AlarmKind", tag = "2", default = "NoSpace")]
    pub kind: i32,
}

/// Switch an alarm on or off. Switching to what it is already changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AlarmRequest {
    /// Which alarm.
    #[prost(message, required, tag = "1")]
    pub alarm: Alarm,
    /// On, or off?
    #[prost(bool, tag = "2")]
    pub active: bool,
}

/// A member says which data it has: a number that it chose when its directory was new. Refused
/// when the member has registered with another number: then its directory was lost, and with it
/// votes and entries that it has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RegisterRequest {
    /// The member.
    #[prost(uint64, tag = "1")]
    pub member: MemberId,
    /// Its number; not 0.
    #[prost(fixed64, tag = "2")]
    pub instance: u64,
}

/// What a [`Command`] does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum CommandKind {
    /// A transaction.
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
    /// A compaction.
    #[prost(message, tag = "5")]
    Compact(CompactRequest),
    /// A new lease.
    #[prost(message, tag = "6")]
    LeaseGrant(LeaseGrantRequest),
    /// The end of a lease.
    #[prost(message, tag = "7")]
    LeaseRevoke(LeaseRevokeRequest),
    /// An alarm.
    #[prost(message, tag = "8")]
    Alarm(AlarmRequest),
    /// A member's data.
    #[prost(message, tag = "9")]
    Register(RegisterRequest),
    /// Transactions. The answer is a transaction's whose results are theirs.
    #[prost(message, tag = "10")]
    Batch(BatchRequest),
}

/// The only thing that changes the store's state: an entry of the Raft log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// When not 0: carry this out only while this term is the newest one applied. Work of the
    /// leader carries its term here, so that a deposed leader's decisions have no effect.
    #[prost(uint64, tag = "1")]
    pub fence: Term,
    /// Milliseconds since the Unix epoch, put there by the leader: the only time `apply` sees.
    #[prost(uint64, tag = "2")]
    pub time_ms: u64,
    /// When not empty (16 bytes): a retry with the same id returns the first result instead of
    /// being carried out again, as long as the id is among the last [`crate::REQUEST_IDS_KEPT`].
    #[prost(bytes = "bytes", tag = "3")]
    pub request_id: Bytes,
    /// What to do. `None` (from a newer master) is fatal in `apply`.
    #[prost(oneof = "CommandKind", tags = "4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<CommandKind>,
}

impl Command {
    /// The transactions that it carries out.
    #[must_use]
    pub fn txns(&self) -> &[TxnRequest] {
        match &self.kind {
            Some(CommandKind::Txn(txn)) => std::slice::from_ref(txn),
            Some(CommandKind::Batch(batch)) => &batch.txns,
            _ => &[],
        }
    }
}

impl From<CommandKind> for Command {
    fn from(kind: CommandKind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }
}

impl From<TxnRequest> for Command {
    fn from(txn: TxnRequest) -> Self {
        CommandKind::Txn(txn).into()
    }
}

/// Why `apply` refused a command. A refusal is a result: every replica refuses alike.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Rejection {
    /// The command's fence is older than this newest term.
    #[prost(uint64, tag = "4")]
    Fenced(Term),
    /// The revision asked for is compacted; this is the compaction revision.
    #[prost(uint64, tag = "5")]
    Compacted(Revision),
    /// The revision asked for is in the future; this is the present one.
    #[prost(uint64, tag = "6")]
    FutureRevision(Revision),
    /// The request makes no sense; the text says which part and why.
    #[prost(string, tag = "7")]
    Invalid(String),
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[prost(bytes = "bytes", tag = "8")]
    KeyNotFound(Bytes),
    /// The lease does not exist.
    #[prost(int64, tag = "9")]
    LeaseNotFound(LeaseId),
    /// There is a lease with this id.
    #[prost(int64, tag = "10")]
    LeaseExists(LeaseId),
    /// The NOSPACE alarm is on; this member raised it.
    #[prost(uint64, tag = "11")]
    NoSpace(MemberId),
    /// The member has registered with this other number.
    #[prost(fixed64, tag = "12")]
    Registered(u64),
}

/// What came of a [`Command`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandResult {
    /// The store's revision after the command.
    #[prost(uint64, tag = "1")]
    pub revision: Revision,
    /// The transaction's answer.
    #[prost(message, optional, tag = "2")]
    pub txn: Option<TxnResponse>,
    /// Set when the command was refused; then nothing was changed.
    #[prost(oneof = "Rejection", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub rejection: Option<Rejection>,
}
