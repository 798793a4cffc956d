//! Writes: proposed here when this master leads, else passed on to the leader.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::errors::{ClientWriteError, RaftError};
use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_proto::peer::forward_reply::Outcome;
use quorate_store::{Command, CommandResult};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::peer::{Peer, never_sent};
use crate::types::{Proposal, Raft};

/// What came of a proposal that was not applied.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Another master leads, or none; nothing was written.
    NotLeader,
    /// Too much is in flight; nothing was written.
    Overloaded(String),
    /// Nothing was written.
    Invalid(String),
    /// It may or may not be written.
    Unknown(String),
}

/// An applied command: its result and the index of its entry.
pub(crate) type Applied = (CommandResult, u64);

/// Proposes on this master, for itself and for followers.
pub(crate) struct Forwarded {
    pub raft: Raft,
    pub permits: Arc<Semaphore>,
    pub limit: usize,
}

impl Forwarded {
    /// Proposes an encoded command here.
    pub(crate) async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, Refusal> {
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(Refusal::Overloaded(format!("{} proposals are in flight", self.limit)));
        };
        let write = self.raft.client_write(Proposal(stamp(&command)));
        match tokio::time::timeout_at(deadline, write).await {
            Ok(Ok(response)) => Ok((response.data, response.log_id.index)),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(Refusal::NotLeader)
            }
            Ok(Err(error)) => Err(Refusal::Unknown(error.to_string())),
            Err(_) => Err(Refusal::Unknown("no quorum confirmed the write in time".into())),
        }
    }

    /// A follower's write.
    pub(crate) async fn handle(&self, request: pb::ForwardRequest) -> pb::ForwardReply {
        let refusal = match check(&request.command) {
            Ok(()) => {
                let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
                match self.propose(request.command, deadline).await {
                    Ok((result, index)) => {
                        return pb::ForwardReply {
                            outcome: Outcome::Applied.into(),
                            result: result.encode_to_vec().into(),
                            index,
                            reason: String::new(),
                        };
                    }
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        let (outcome, reason) = match refusal {
            Refusal::NotLeader => (Outcome::NotLeader, String::new()),
            Refusal::Overloaded(reason) => (Outcome::Overloaded, reason),
            Refusal::Invalid(reason) => (Outcome::Invalid, reason),
            Refusal::Unknown(reason) => (Outcome::Unknown, reason),
        };
        pb::ForwardReply { outcome: outcome.into(), reason, ..Default::default() }
    }
}

/// A newer master may know operations that this one would lose: those must not enter the log.
fn check(bytes: &Bytes) -> Result<(), Refusal> {
    match Command::decode(bytes.clone()) {
        Ok(command) if command.encoded_len() == bytes.len() && command.kind.is_some() => Ok(()),
        Ok(_) => Err(Refusal::Invalid("the leader does not know this command".into())),
        Err(error) => Err(Refusal::Invalid(error.to_string())),
    }
}

/// Adds the leader's time. In protobuf the last occurrence of a field counts, so the command
/// need not be decoded for it.
fn stamp(command: &Bytes) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut stamped = BytesMut::with_capacity(command.len() + 11);
    stamped.put_slice(command);
    prost::encoding::uint64::encode(2, &millis, &mut stamped);
    stamped.freeze()
}

/// Passes an encoded command on to the leader.
pub(crate) async fn forward(
    leader: &Peer,
    command: Bytes,
    deadline: Instant,
) -> Result<Applied, Refusal> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let mut client = leader.urgent();
    let call = client.forward(pb::ForwardRequest { command, timeout_ms });
    // The leader gives up first and then says what it knows.
    let reply = match tokio::time::timeout_at(deadline + Duration::from_millis(100), call).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) if never_sent(&status) => return Err(Refusal::NotLeader),
        Ok(Err(status)) => {
            return Err(Refusal::Unknown(format!("the leader went away: {}", status.message())));
        }
        Err(_) => return Err(Refusal::Unknown("the leader did not answer in time".into())),
    };
    match reply.outcome() {
        Outcome::Applied => match CommandResult::decode(reply.result) {
            Ok(result) => Ok((result, reply.index)),
            Err(error) => Err(Refusal::Unknown(format!("the leader's answer: {error}"))),
        },
        Outcome::NotLeader => Err(Refusal::NotLeader),
        Outcome::Overloaded => Err(Refusal::Overloaded(reply.reason)),
        Outcome::Invalid => Err(Refusal::Invalid(reply.reason)),
        Outcome::Unknown => Err(Refusal::Unknown(reply.reason)),
    }
}

#[cfg(test)]
#[path = "forward_test.rs"]
mod tests;
