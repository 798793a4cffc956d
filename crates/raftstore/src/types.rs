//! What openraft is told about our types.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use quorate_store::{CommandResult, MemberId};

/// Encoded [`quorate_store::Command`]s that have become one entry; each is independent of the
/// others. Encoded once by whoever proposes them, then only copied (to disk, to the other masters)
/// until `apply` decodes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal(pub Vec<Bytes>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands of {} bytes", self.0.len(), self.bytes())
    }
}

impl Proposal {
    /// Bytes of all commands.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

/// How a member is reached; part of the membership in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// For people.
    pub name: String,
    /// Where the other masters reach it.
    pub peer_url: String,
    /// Where clients reach it.
    pub client_url: String,
    /// A learner that gets its vote as soon as it has caught up.
    pub promote: bool,
}

/// Types of this crate for openraft. (Its macro for this knows no `Responder` of ours.)
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    /// One for each command.
    type R = Vec<CommandResult>;
    type NodeId = MemberId;
    type Node = MemberInfo;
    type Term = u64;
    /// At most one leader per term, so that a term identifies a leader (leader work is fenced by
    /// it).
    type LeaderId = leader_id_std::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, MemberId, MemberInfo>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = crate::groups::Done<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Proposal, MemberId, MemberInfo>;
pub(crate) type Membership = openraft::Membership<MemberId, MemberInfo>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state::ReplicatedState>;
pub(crate) type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}
