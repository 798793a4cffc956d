//! Between openraft's types and the messages of `peer.proto`, which also encode the log on disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use prost::Message as _;
use quorate_proto::peer as pb;

use crate::types::{
    Entry, LogId, MemberInfo, Membership, Payload, Proposal, StoredMembership, Vote, log_id,
};

/// A message that lacks a part, or does not decode.
#[derive(Debug, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub &'static str);

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn log_id_to(id: LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn log_id_from(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_to(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        member: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from(vote: Option<pb::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("message: no vote"))?;
    Ok(Vote {
        leader_id: LeaderId { term: vote.term, voted_for: vote.member },
        committed: vote.committed,
    })
}

pub(crate) fn member_info_to(id: u64, info: &MemberInfo) -> pb::Member {
    let MemberInfo { name, peer_url, client_url, promote } = info.clone();
    pb::Member { id, name, peer_url, client_url, promote }
}

pub(crate) fn member_info_from(member: pb::Member) -> (u64, MemberInfo) {
    let pb::Member { id, name, peer_url, client_url, promote } = member;
    (id, MemberInfo { name, peer_url, client_url, promote })
}

pub(crate) fn membership_to(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|ids| pb::Voters { ids: ids.iter().copied().collect() })
            .collect(),
        members: membership.nodes().map(|(id, info)| member_info_to(*id, info)).collect(),
    }
}

pub(crate) fn membership_from(membership: pb::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, MemberInfo> =
        membership.members.into_iter().map(member_info_from).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Malformed("membership"))
}

pub(crate) fn stored_membership_to(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().map(log_id_to),
        membership: Some(membership_to(stored.membership())),
    }
}

pub(crate) fn stored_membership_from(
    stored: pb::StoredMembership,
) -> Result<StoredMembership, Malformed> {
    let membership = membership_from(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(stored.log_id.map(log_id_from), membership))
}

pub(crate) fn entry_to(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        Payload::Blank => None,
        Payload::Normal(proposal) => {
            Some(pb::entry::Payload::Commands(pb::Commands { commands: proposal.0.clone() }))
        }
        Payload::Membership(membership) => {
            Some(pb::entry::Payload::Membership(membership_to(membership)))
        }
    };
    pb::Entry { term: entry.log_id.leader_id.term, index: entry.log_id.index, payload }
}

pub(crate) fn entry_from(entry: pb::Entry) -> Result<Entry, Malformed> {
    let payload = match entry.payload {
        None => Payload::Blank,
        Some(pb::entry::Payload::Command(bytes)) => Payload::Normal(Proposal(vec![bytes])),
        Some(pb::entry::Payload::Commands(commands)) => {
            Payload::Normal(Proposal(commands.commands))
        }
        Some(pb::entry::Payload::Membership(membership)) => {
            Payload::Membership(membership_from(membership)?)
        }
    };
    Ok(Entry { log_id: log_id(entry.term, entry.index), payload })
}

pub(crate) fn decode_entry(bytes: Bytes) -> Result<Entry, Malformed> {
    entry_from(pb::Entry::decode(bytes).map_err(|_| Malformed("log entry"))?)
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, Malformed> {
    vote_from(Some(pb::Vote::decode(bytes).map_err(|_| Malformed("vote"))?))
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<LogId, Malformed> {
    Ok(log_id_from(pb::LogId::decode(bytes).map_err(|_| Malformed("log id"))?))
}

pub(crate) fn append_request_to(
    request: openraft::raft::AppendEntriesRequest<crate::types::TypeConfig>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        previous: request.prev_log_id.map(log_id_to),
        entries: request.entries.iter().map(entry_to).collect(),
        commit: request.leader_commit.map(log_id_to),
    }
}

pub(crate) fn append_request_from(
    request: pb::AppendRequest,
) -> Result<openraft::raft::AppendEntriesRequest<crate::types::TypeConfig>, Malformed> {
    Ok(openraft::raft::AppendEntriesRequest {
        vote: vote_from(request.vote)?,
        prev_log_id: request.previous.map(log_id_from),
        entries: request.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: request.commit.map(log_id_from),
    })
}

type StreamAppendResult = openraft::raft::StreamAppendResult<crate::types::TypeConfig>;

pub(crate) fn append_reply_to(result: StreamAppendResult) -> pb::AppendReply {
    use openraft::raft::StreamAppendError as E;
    use pb::append_reply::Refusal;
    match result {
        Ok(matched) => pb::AppendReply { matched: matched.map(log_id_to), refusal: None },
        Err(E::Conflict(id)) => {
            pb::AppendReply { matched: None, refusal: Some(Refusal::Conflict(log_id_to(id))) }
        }
        Err(E::HigherVote(vote)) => {
            pb::AppendReply { matched: None, refusal: Some(Refusal::HigherVote(vote_to(&vote))) }
        }
    }
}

pub(crate) fn append_reply_from(reply: pb::AppendReply) -> Result<StreamAppendResult, Malformed> {
    use openraft::raft::StreamAppendError as E;
    use pb::append_reply::Refusal;
    Ok(match reply.refusal {
        None => Ok(reply.matched.map(log_id_from)),
        Some(Refusal::Conflict(id)) => Err(E::Conflict(log_id_from(id))),
        Some(Refusal::HigherVote(vote)) => Err(E::HigherVote(vote_from(Some(vote))?)),
    })
}

type VoteRequest = openraft::raft::VoteRequest<crate::types::TypeConfig>;
type VoteResponse = openraft::raft::VoteResponse<crate::types::TypeConfig>;

pub(crate) fn vote_request_to(request: &VoteRequest) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last: request.last_log_id.map(log_id_to),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from(request: pb::VoteRequest) -> Result<VoteRequest, Malformed> {
    Ok(VoteRequest {
        vote: vote_from(request.vote)?,
        last_log_id: request.last.map(log_id_from),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_reply_to(response: &VoteResponse) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.map(log_id_to),
    }
}

pub(crate) fn vote_reply_from(reply: pb::VoteReply) -> Result<VoteResponse, Malformed> {
    Ok(VoteResponse {
        vote: vote_from(reply.vote)?,
        vote_granted: reply.granted,
        last_log_id: reply.last.map(log_id_from),
    })
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
