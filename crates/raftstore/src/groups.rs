//! Group commit: commands that wait at the same time become one entry of the log. What an entry
//! costs (its way through Raft, its record, its places in two followers' queues) is then shared.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use parking_lot::Mutex;
use quorate_store::{CommandResult, Fit, Gather, STUCK};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::forward::{Applied, Refusal};
use crate::types::{Proposal, Raft, TypeConfig};

/// Entries on their way at once.
const IN_FLIGHT: usize = 2;
/// Commands of one entry, at most.
const ENTRY_COMMANDS: usize = 256;
/// Bytes of one entry, if not one command alone has more.
const ENTRY_BYTES: usize = 256 << 10;

/// The results of commands that were applied together, and the index of their entry.
type Outcome = Result<(Vec<CommandResult>, u64), Refusal>;

/// The commands of one who waits: never more than an entry holds.
struct Parcel {
    number: u64,
    commands: Vec<Bytes>,
    done: oneshot::Sender<Outcome>,
}

/// Proposes on this master. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Groups {
    raft: Raft,
    waiting: Arc<Mutex<Gather<Parcel>>>,
    parcels: Arc<AtomicU64>,
    /// Raft's runtime.
    runtime: Handle,
}

impl Groups {
    /// On the runtime of `raft`.
    pub fn new(raft: Raft) -> Self {
        let waiting = Arc::new(Mutex::new(Gather::new(IN_FLIGHT)));
        Self { raft, waiting, parcels: Arc::default(), runtime: Handle::current() }
    }

    /// Proposes encoded commands, and waits until they are applied. The outcomes are in their
    /// order; each is independent of the others.
    pub async fn propose(
        &self,
        commands: Vec<Bytes>,
        deadline: Instant,
    ) -> Vec<Result<Applied, Refusal>> {
        let parcels = split(commands).into_iter().map(|commands| async move {
            let count = commands.len();
            match self.parcel(commands, deadline).await {
                // As many results as commands, or `zip` would leave some without an outcome.
                Ok((results, index)) if results.len() == count => {
                    results.into_iter().map(|result| Ok((result, index))).collect()
                }
                Ok(_) => vec![Err(Refusal::Unknown("raft answered too few writes".into())); count],
                Err(refusal) => vec![Err(refusal); count],
            }
        });
        join_all(parcels).await.concat()
    }

    async fn parcel(&self, commands: Vec<Bytes>, deadline: Instant) -> Outcome {
        let number = self.parcels.fetch_add(1, Relaxed);
        let (done, mut answer) = oneshot::channel();
        let mut start = self.waiting.lock().push(Parcel { number, commands, done });
        loop {
            if start && let Some(group) = self.take() {
                self.send(group).await;
            }
            let look_again = deadline.min(Instant::now() + STUCK);
            match tokio::time::timeout_at(look_again, &mut answer).await {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(_)) => return Err(Refusal::Unknown("raft has ended".into())),
                Err(_) if Instant::now() < deadline => start = self.waiting.lock().start_another(),
                Err(_) => break,
            }
        }
        // What is still here was never proposed.
        let here = self.waiting.lock().withdraw(|parcel| parcel.number == number).is_some();
        let late = || Refusal::Unknown("no quorum confirmed the write in time".into());
        Err(if here { Refusal::NotLeader } else { late() })
    }

    fn take(&self) -> Option<Vec<Parcel>> {
        let (mut commands, mut bytes) = (0, 0);
        self.waiting.lock().take(
            |parcel| !parcel.done.is_closed(),
            |_, next| {
                commands += next.commands.len();
                bytes += size(&next.commands);
                let fits = commands <= ENTRY_COMMANDS && bytes <= ENTRY_BYTES;
                if fits { Fit::Yes } else { Fit::Full }
            },
        )
    }

    async fn send(&self, group: Vec<Parcel>) {
        let mut commands = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        for parcel in group {
            waiting.push((parcel.commands.len(), parcel.done));
            commands.extend(parcel.commands);
        }
        let groups = self.clone();
        let done = Done::new(move |result| groups.done(waiting, result));
        // When raft has ended it drops `done`, and that is the answer.
        let _ = self.raft.client_write_ff(Proposal(commands), Some(done)).await;
    }

    /// An entry is applied, or comes to nothing; `None`: raft has ended.
    fn done(&self, waiting: Vec<Waiting>, result: Option<ClientWriteResult<TypeConfig>>) {
        if let Some(next) = self.take() {
            let groups = self.clone();
            let mut send = Box::pin(async move { groups.send(next).await });
            if (&mut send).now_or_never().is_none() {
                // The task "proposal": raft's queue is full. It ends when there is room, or with
                // raft.
                self.runtime.spawn(send);
            }
        }
        // Those that wait no more are no concern.
        match result {
            Some(Ok(response)) => {
                let mut results = response.data.into_iter();
                for (count, done) in waiting {
                    let results = results.by_ref().take(count).collect();
                    let _ = done.send(Ok((results, response.log_id.index)));
                }
            }
            Some(Err(error)) => {
                let refusal = match error {
                    ClientWriteError::ForwardToLeader(_) => Refusal::NotLeader,
                    error => Refusal::Unknown(error.to_string()),
                };
                for (_, done) in waiting {
                    let _ = done.send(Err(refusal.clone()));
                }
            }
            None => {}
        }
    }
}

/// How many results somebody waits for.
type Waiting = (usize, oneshot::Sender<Outcome>);

fn size(commands: &[Bytes]) -> usize {
    commands.iter().map(Bytes::len).sum()
}

/// Into parts that an entry may hold.
fn split(commands: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut parts: Vec<Vec<Bytes>> = Vec::new();
    let mut bytes = 0;
    for command in commands {
        bytes += command.len();
        match parts.last_mut() {
            Some(part) if part.len() < ENTRY_COMMANDS && bytes <= ENTRY_BYTES => part.push(command),
            _ => {
                bytes = command.len();
                parts.push(vec![command]);
            }
        }
    }
    parts
}

type Then<T> = Box<dyn FnOnce(Option<T>) + Send>;

/// Calls a function with the result, or with nothing when there will be none.
pub struct Done<T>(Option<Then<T>>);

impl<T> Done<T> {
    fn new(then: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(then)))
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Done<T> {
    fn on_complete(mut self, result: T) {
        if let Some(then) = self.0.take() {
            then(Some(result));
        }
    }
}

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(None);
        }
    }
}

#[cfg(test)]
#[path = "groups_test.rs"]
mod tests;
