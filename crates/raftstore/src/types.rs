//! What openraft is told about our types.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use quorate_store::{CommandResult, MemberId};

/// An encoded [`quorate_store::Command`]: encoded once by whoever proposes it, then only copied
/// (to disk, to the other masters) until `apply` decodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
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

openraft::declare_raft_types!(
    /// Types of this crate for openraft. `leader_id_std`: at most one leader per term, so that
    /// a term identifies a leader (leader work is fenced by it).
    pub TypeConfig:
        D = Proposal,
        R = CommandResult,
        NodeId = MemberId,
        Node = MemberInfo,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, MemberId>,
);

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
