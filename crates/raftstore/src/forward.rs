//! Writes: proposed here when this master leads, else passed on to the leader.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::FutureExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use quorate_proto::peer::forward_result::Outcome;
use quorate_proto::{never_sent, peer as pb};
use quorate_store::{Command, CommandResult, Fit, Gather, check_known};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::groups::Groups;
use crate::leadership::replaced;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::peer::Peer;
use crate::state::State;
use crate::types::Raft;

/// Calls to the leader at the same time.
const FORWARD_CALLS: usize = 8;
/// Writes of one call.
const FORWARD_COMMANDS: usize = 256;
/// Bytes of one call, if not one write alone has more.
const FORWARD_BYTES: usize = 1 << 20;
/// How much longer than the leader its caller waits.
const FORWARD_GRACE: Duration = Duration::from_millis(100);

/// What came of a proposal that was not applied.
#[derive(Clone, Debug)]
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
    groups: Groups,
    /// One for each write that is under way on this master, proposed here or passed on.
    permits: Semaphore,
    limit: usize,
    /// Longest wait of a pause.
    drain: Duration,
    /// Reasons not to propose anything new: leadership is being handed over, or this master ends.
    pauses: AtomicU32,
    /// How many pauses there have been.
    begun: AtomicU32,
    metrics: Arc<Metrics>,
}

/// While it lives, nothing is proposed on this master.
pub(crate) struct Pause<'a> {
    pauses: &'a AtomicU32,
    all: Option<SemaphorePermit<'a>>,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        // Once no pause is seen any more, nothing is missing because of one.
        drop(self.all.take());
        self.pauses.fetch_sub(1, SeqCst);
    }
}

impl Forwarded {
    pub(crate) fn new(raft: Raft, options: &Options, metrics: Arc<Metrics>) -> Self {
        let (limit, drain) = (options.max_in_flight, options.drain);
        let (pauses, begun) = Default::default();
        let groups = Groups::new(raft);
        Self { groups, permits: Semaphore::new(limit), limit, drain, pauses, begun, metrics }
    }

    /// Writes that are under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// Stops proposing, and waits (a moment at most) until what is in flight has its answer: the
    /// outcome of a write that a change of the leader cuts off would be unknown.
    pub(crate) async fn pause(&self) -> Pause<'_> {
        self.pauses.fetch_add(1, SeqCst);
        self.begun.fetch_add(1, SeqCst);
        let mut pause = Pause { pauses: &self.pauses, all: None };
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        // Permits that come back go to this request, not to new writes.
        let all = tokio::time::timeout(self.drain, self.permits.acquire_many(all)).await;
        pause.all = all.ok().and_then(Result::ok);
        pause
    }

    /// The same for good, before raft ends: a raft that has ended cannot say whether it took a
    /// write, though it led no longer. Who comes late tries elsewhere.
    pub(crate) async fn end(&self) {
        self.pauses.fetch_add(1, SeqCst);
        drop(self.pause().await);
    }

    /// Room for some writes. Those that are refused because of a pause try again elsewhere.
    pub(crate) fn admit(&self, writes: usize) -> Result<SemaphorePermit<'_>, Refusal> {
        let begun = self.begun.load(SeqCst);
        if self.pauses.load(SeqCst) > 0 {
            return Err(Refusal::NotLeader);
        }
        let permit = self.permits.try_acquire_many(u32::try_from(writes).unwrap_or(u32::MAX));
        // After the permit: whoever pauses waits for these writes, or they see the pause. And what
        // a pause has taken, however short it was, is no overload.
        if self.begun.load(SeqCst) != begun {
            return Err(Refusal::NotLeader);
        }
        let many = |_| Refusal::Overloaded(format!("{} proposals are in flight", self.limit));
        permit.map_err(many)
    }

    /// Proposes an encoded command here.
    pub(crate) async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, Refusal> {
        let none = || Err(Refusal::Unknown("a write without an outcome".into()));
        self.propose_all(vec![stamp(&command)], deadline).await.pop().unwrap_or_else(none)
    }

    /// Proposes many commands in one step. They enter the log together, so the first is hardly
    /// done before the last.
    async fn propose_all(
        &self,
        commands: Vec<Bytes>,
        deadline: Instant,
    ) -> Vec<Result<Applied, Refusal>> {
        let count = commands.len();
        let outcomes = match self.admit(count) {
            Ok(_permit) => self.groups.propose(commands, deadline).await,
            Err(refusal) => vec![Err(refusal); count],
        };
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        self.metrics.failed.fetch_add(failed as u64, Relaxed);
        outcomes
    }

    /// A follower's writes; the answers come when the last of them is done.
    pub(crate) async fn handle(&self, request: pb::ForwardRequest) -> pb::ForwardReply {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let checked: Vec<_> = request.commands.iter().map(check).collect();
        let good = request.commands.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let good = good.map(|(command, _)| stamp(command)).collect();
        let mut outcomes = self.propose_all(good, deadline).await.into_iter();
        let results = checked.into_iter().map(|checked| {
            // As many outcomes as good commands.
            let none = || Err(Refusal::Unknown("a write without an outcome".into()));
            encode_outcome(checked.and_then(|()| outcomes.next().unwrap_or_else(none)))
        });
        pb::ForwardReply { results: results.collect() }
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
        Ok(command) if command.encoded_len() == bytes.len() => {
            check_known(&command).map_err(|error| Refusal::Invalid(error.to_string()))
        }
        Ok(_) => Err(Refusal::Invalid("the leader does not know this command".into())),
        Err(error) => Err(Refusal::Invalid(error.to_string())),
    }
}

/// Adds the leader's time. In protobuf the last occurrence of a field counts, so the command
/// need not be decoded for it.
fn stamp(command: &Bytes) -> Bytes {
    let millis = u64::try_from(quorate_clock::since_epoch().as_millis()).unwrap_or(u64::MAX);
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

/// Passes writes on to the leader: those that wait at the same time travel in one call. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct Forwarder {
    waiting: Arc<Mutex<Gather<Waiting>>>,
    raft: Raft,
    state: Arc<State>,
    last_words: Duration,
    /// The store's.
    runtime: Handle,
    cancel: CancellationToken,
}

impl Forwarder {
    /// On this runtime; until `cancel`.
    pub(crate) fn new(
        raft: &Raft,
        state: &Arc<State>,
        options: &Options,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            waiting: Arc::new(Mutex::new(Gather::new(FORWARD_CALLS))),
            raft: raft.clone(),
            state: Arc::clone(state),
            last_words: options.last_words,
            runtime: Handle::current(),
            cancel,
        }
    }

    /// Passes one encoded command on.
    pub(crate) async fn forward(
        &self,
        leader: Arc<Peer>,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, Refusal> {
        let (done, answer) = oneshot::channel();
        if self.waiting.lock().push(Waiting { leader, command, deadline, done }) {
            // The task "forward": ends when nothing waits any more. Its callers have time-outs of
            // their own, and get an error when it is dropped.
            self.runtime.spawn(self.clone().run());
        }
        // The leader gives up first and then says what it knows.
        match tokio::time::timeout_at(deadline + FORWARD_GRACE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Refusal::Unknown("this master is stopping".into())),
            Err(_) => Err(Refusal::Unknown("the leader did not answer in time".into())),
        }
    }

    async fn run(self) {
        while let Some(group) = self.take() {
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = self.call(group) => {}
            }
        }
    }

    /// The next ones for one leader; there is more than one only while it changes.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut bytes = 0;
        self.waiting.lock().take(
            |waiting| !waiting.done.is_closed(),
            |group, next| {
                if group.first().is_some_and(|first| !Arc::ptr_eq(&next.leader, &first.leader)) {
                    return Fit::No;
                }
                bytes += next.command.len();
                let fits = group.len() < FORWARD_COMMANDS && bytes <= FORWARD_BYTES;
                if fits { Fit::Yes } else { Fit::Full }
            },
        )
    }

    async fn call(&self, group: Vec<Waiting>) {
        let mut answered = Vec::with_capacity(group.len());
        let leader = Arc::clone(&group[0].leader);
        forward_to(&self.raft, &leader, group, self.last_words, &mut answered).await;
        let applied = answered.iter().filter_map(|(_, outcome)| Some(outcome.as_ref().ok()?.1));
        let applied = applied.max().filter(|applied| self.state.next_index() <= *applied);
        let Some(applied) = applied else { return answer(answered) };
        // Applied on the leader; here it follows with the next message, and who has written may
        // read it here. Not to have it yet is no failure.
        let state = Arc::clone(&self.state);
        let deadline = answered.iter().map(|(waiting, _)| waiting.deadline).max();
        // The task "forwarded": the next call need not wait for it. When it fails, its callers get
        // an error.
        self.runtime.spawn(async move {
            if let Some(deadline) = deadline {
                let _ = tokio::time::timeout_at(deadline, state.wait_applied(applied)).await;
            }
            answer(answered);
        });
    }
}

fn answer(answered: Vec<Answered>) {
    for (waiting, outcome) in answered {
        // A caller that has given up is no concern.
        let _ = waiting.done.send(outcome);
    }
}

type Answered = (Waiting, Result<Applied, Refusal>);

async fn forward_to(
    raft: &Raft,
    leader: &Peer,
    group: Vec<Waiting>,
    last_words: Duration,
    answered: &mut Vec<Answered>,
) {
    let refuse = |group: Vec<Waiting>, answered: &mut Vec<Answered>| {
        answered.extend(group.into_iter().map(|waiting| (waiting, Err(Refusal::NotLeader))));
    };
    if replaced(raft, leader.id).now_or_never().is_some() {
        return refuse(group, answered);
    }
    let now = Instant::now();
    let deadline = group.iter().map(|waiting| waiting.deadline).max().unwrap_or(now);
    let left = deadline.saturating_duration_since(now);
    let request = pb::ForwardRequest {
        commands: group.iter().map(|waiting| waiting.command.clone()).collect(),
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    };
    let mut client = leader.urgent();
    let in_vain = async {
        let replaced = async {
            replaced(raft, leader.id).await;
            tokio::time::sleep(last_words).await;
            "another master leads now, and the one before has not answered"
        };
        let late = tokio::time::timeout_at(deadline + FORWARD_GRACE, replaced).await;
        late.unwrap_or("the leader did not answer in time")
    };
    let reply = tokio::select! {
        biased;
        reply = client.forward(request) => Ok(reply),
        reason = in_vain => Err(reason),
    };
    let (mut results, reason) = match reply {
        Ok(Ok(reply)) => (reply.into_inner().results, "the leader's answer is incomplete".into()),
        Ok(Err(status)) if never_sent(&status).is_some() => return refuse(group, answered),
        Ok(Err(status)) => (Vec::new(), format!("the leader went away: {}", status.message())),
        Err(reason) => (Vec::new(), reason.to_owned()),
    };
    results.reverse();
    for waiting in group {
        let outcome = match results.pop() {
            Some(result) => decode_outcome(result),
            None => Err(Refusal::Unknown(reason.clone())),
        };
        answered.push((waiting, outcome));
    }
}

#[cfg(test)]
#[path = "forward_test.rs"]
mod tests;
