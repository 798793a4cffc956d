//! What can go wrong between a caller and the store.

use crate::command::Rejection;
use crate::types::{LeaseId, MemberId, Revision, Term};

/// Why a request to the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No leader or no quorum; nothing was written.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What is missing, in words, with what to do about it.
        reason: String,
        /// Client address of the leader, when one is known.
        leader: Option<String>,
    },
    /// The write may or may not take effect.
    #[error(
        "the outcome of the write is unknown: {0}; read before retrying, or retry with the same request id"
    )]
    OutcomeUnknown(String),
    /// The fence is older than the newest term.
    #[error("refused: the writer's term is over, the store is in term {0}")]
    Fenced(Term),
    /// The revision asked for is compacted; this is the compaction revision.
    #[error("the required revision has been compacted (history starts after {0})")]
    Compacted(Revision),
    /// The revision asked for does not exist yet; this is the present one.
    #[error("the required revision is in the future (now at {0})")]
    FutureRevision(Revision),
    /// The key of `ignore_value` or `ignore_lease` does not exist.
    #[error("key not found: {0}")]
    KeyNotFound(String),
    /// The lease does not exist.
    #[error("lease not found: {0:x}")]
    LeaseNotFound(LeaseId),
    /// There is a lease with this id already.
    #[error("lease {0:x} exists already")]
    LeaseExists(LeaseId),
    /// A size budget or a disk is used up. Deletions and compaction are still accepted.
    #[error("no space: {0}; delete keys and compact, or raise the size budget")]
    NoSpace(String),
    /// This member's data differs from the other members': it serves nobody.
    #[error("this member's data is corrupt: {0}; rebuild it from the other members")]
    Corrupt(String),
    /// There is no such member.
    #[error("there is no member {0:x}")]
    MemberNotFound(MemberId),
    /// Another member has this name or this peer address.
    #[error("a member with {0} exists already")]
    MemberExists(String),
    /// The change of members would cost the quorum, or comes too early.
    #[error("the members cannot be changed like this: {0}")]
    Membership(String),
    /// This kind of store cannot do it.
    #[error("a store in memory cannot {0}")]
    Unsupported(&'static str),
    /// The request is larger than the store takes.
    #[error("request is too large: {what} is {size}, at most {limit} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Too much is in flight; try again in a moment.
    #[error("the store is overloaded: {0}")]
    Overloaded(String),
    /// The request makes no sense.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// A bug or a broken disk.
    #[error("internal error of the store: {0}")]
    Internal(String),
}

impl StoreError {
    /// May the same request be sent again without harm, and with hope?
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Overloaded(_))
    }

    /// Client address of the leader, when the error carries one.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        match self {
            Self::Unavailable { leader, .. } => leader.as_deref(),
            _ => None,
        }
    }
}

impl From<Rejection> for StoreError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Fenced(term) => Self::Fenced(term),
            Rejection::Compacted(revision) => Self::Compacted(revision),
            Rejection::FutureRevision(revision) => Self::FutureRevision(revision),
            Rejection::Invalid(text) => Self::Invalid(text),
            Rejection::KeyNotFound(key) => Self::KeyNotFound(String::from_utf8_lossy(&key).into()),
            Rejection::LeaseNotFound(lease) => Self::LeaseNotFound(lease),
            Rejection::LeaseExists(lease) => Self::LeaseExists(lease),
            Rejection::Registered(_) => Self::Membership(
                "this member has registered with other data: its directory was lost".into(),
            ),
            Rejection::NoSpace(member) => {
                Self::NoSpace(format!("member {member:x} has raised the NOSPACE alarm"))
            }
        }
    }
}
