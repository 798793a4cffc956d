//! Writes: proposed here when this master leads, else passed on to the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::errors::{ClientWriteError, RaftError};
use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_proto::peer::forward_result::Outcome;
use quorate_store::{Command, CommandResult};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::peer::{Peer, never_sent};
use crate::types::{Proposal, Raft};

/// Writes that may wait for a call.
const FORWARD_QUEUE: usize = 8192;
/// Calls to the leader at the same time.
const FORWARD_CALLS: usize = 8;
/// Writes of one call.
const FORWARD_COMMANDS: usize = 128;
/// How much longer than the leader its caller waits.
const FORWARD_GRACE: Duration = Duration::from_millis(100);

/// Longest wait for proposals in flight before leadership is handed over, and the pause between
/// two looks.
const DRAIN: Duration = Duration::from_millis(200);
const DRAIN_LOOK: Duration = Duration::from_millis(1);

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
    /// Is leadership being handed over? Then nothing new is proposed.
    pub paused: AtomicBool,
}

/// While it lives, nothing is proposed on this master.
pub(crate) struct Pause<'a>(&'a AtomicBool);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Forwarded {
    /// Stops proposing, and waits (a moment at most) until what is in flight has its answer: a
    /// write that is cut by a change of the leader would have an unknown outcome.
    pub(crate) async fn pause(&self) -> Pause<'_> {
        self.paused.store(true, Ordering::SeqCst);
        let pause = Pause(&self.paused);
        let until = Instant::now() + DRAIN;
        while self.permits.available_permits() < self.limit && Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        pause
    }

    /// Proposes an encoded command here.
    pub(crate) async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, Refusal> {
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(Refusal::Overloaded(format!("{} proposals are in flight", self.limit)));
        };
        // After the permit: whoever pauses sees this proposal, or it sees the pause.
        if self.paused.load(Ordering::SeqCst) {
            return Err(Refusal::NotLeader);
        }
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

    /// A follower's writes; the answers come when the last of them is done. They enter the log
    /// together, so that is hardly later than the first.
    pub(crate) async fn handle(&self, request: pb::ForwardRequest) -> pb::ForwardReply {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let proposed = request.commands.into_iter().map(|command| async move {
            check(&command)?;
            self.propose(command, deadline).await
        });
        let outcomes = futures::future::join_all(proposed).await;
        pb::ForwardReply { results: outcomes.into_iter().map(encode_outcome).collect() }
    }
}

fn encode_outcome(outcome: Result<Applied, Refusal>) -> pb::ForwardResult {
    let (outcome, reason) = match outcome {
        Ok((result, index)) => {
            return pb::ForwardResult {
                outcome: Outcome::Applied.into(),
                result: result.encode_to_vec().into(),
                index,
                reason: String::new(),
            };
        }
        Err(Refusal::NotLeader) => (Outcome::NotLeader, String::new()),
        Err(Refusal::Overloaded(reason)) => (Outcome::Overloaded, reason),
        Err(Refusal::Invalid(reason)) => (Outcome::Invalid, reason),
        Err(Refusal::Unknown(reason)) => (Outcome::Unknown, reason),
    };
    pb::ForwardResult { outcome: outcome.into(), reason, ..Default::default() }
}

fn decode_outcome(result: pb::ForwardResult) -> Result<Applied, Refusal> {
    match result.outcome() {
        Outcome::Applied => match CommandResult::decode(result.result) {
            Ok(applied) => Ok((applied, result.index)),
            Err(error) => Err(Refusal::Unknown(format!("the leader's answer: {error}"))),
        },
        Outcome::NotLeader => Err(Refusal::NotLeader),
        Outcome::Overloaded => Err(Refusal::Overloaded(result.reason)),
        Outcome::Invalid => Err(Refusal::Invalid(result.reason)),
        Outcome::Unknown => Err(Refusal::Unknown(result.reason)),
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

/// A write on its way to the leader.
struct Waiting {
    leader: Arc<Peer>,
    command: Bytes,
    deadline: Instant,
    done: oneshot::Sender<Result<Applied, Refusal>>,
}

/// Passes writes on to the leader: those that wait at the same time travel in one call.
#[derive(Clone)]
pub(crate) struct Forwarder(mpsc::Sender<Waiting>);

impl Forwarder {
    /// Starts the task "forwarder"; it ends with `cancel`.
    pub(crate) fn start(cancel: CancellationToken) -> Self {
        let (sender, mut waiting) = mpsc::channel(FORWARD_QUEUE);
        tokio::spawn(async move {
            let calls = Arc::new(Semaphore::new(FORWARD_CALLS));
            loop {
                // While all calls are out, the next ones gather.
                let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
                let mut group = Vec::new();
                tokio::select! {
                    () = cancel.cancelled() => return,
                    received = waiting.recv_many(&mut group, FORWARD_COMMANDS) => {
                        if received == 0 {
                            return;
                        }
                    }
                }
                // The task "forward": its callers have time-outs of their own, and get an error
                // when it is dropped.
                tokio::spawn(async move {
                    forward(group).await;
                    drop(call);
                });
            }
        });
        Self(sender)
    }

    /// Passes one encoded command on.
    pub(crate) async fn forward(
        &self,
        leader: Arc<Peer>,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, Refusal> {
        let (done, answer) = oneshot::channel();
        if self.0.send(Waiting { leader, command, deadline, done }).await.is_err() {
            return Err(Refusal::NotLeader);
        }
        // The leader gives up first and then says what it knows.
        match tokio::time::timeout_at(deadline + FORWARD_GRACE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Refusal::Unknown("this master is stopping".into())),
            Err(_) => Err(Refusal::Unknown("the leader did not answer in time".into())),
        }
    }
}

/// One call for each leader in the group; there is more than one only while it changes.
async fn forward(mut group: Vec<Waiting>) {
    while let Some(leader) = group.first().map(|first| Arc::clone(&first.leader)) {
        let (same, others) =
            group.into_iter().partition(|waiting| Arc::ptr_eq(&waiting.leader, &leader));
        forward_to(&leader, same).await;
        group = others;
    }
}

async fn forward_to(leader: &Peer, group: Vec<Waiting>) {
    let now = Instant::now();
    let deadline = group.iter().map(|waiting| waiting.deadline).max().unwrap_or(now);
    let left = deadline.saturating_duration_since(now);
    let request = pb::ForwardRequest {
        commands: group.iter().map(|waiting| waiting.command.clone()).collect(),
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    };
    let mut client = leader.urgent();
    let reply = tokio::time::timeout_at(deadline + FORWARD_GRACE, client.forward(request)).await;
    let (mut results, reason) = match reply {
        Ok(Ok(reply)) => (reply.into_inner().results, "the leader's answer is incomplete".into()),
        Ok(Err(status)) if never_sent(&status) => {
            for waiting in group {
                let _ = waiting.done.send(Err(Refusal::NotLeader));
            }
            return;
        }
        Ok(Err(status)) => (Vec::new(), format!("the leader went away: {}", status.message())),
        Err(_) => (Vec::new(), "the leader did not answer in time".to_owned()),
    };
    results.reverse();
    for waiting in group {
        let outcome = match results.pop() {
            Some(result) => decode_outcome(result),
            None => Err(Refusal::Unknown(reason.clone())),
        };
        // A caller that has given up is no concern.
        let _ = waiting.done.send(outcome);
    }
}

#[cfg(test)]
#[path = "forward_test.rs"]
mod tests;
