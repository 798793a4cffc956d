//! Proposing transactions: those that wait at the same time travel as one command; retries that
//! are safe; deadlines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_store::{
    BatchRequest, Command, CommandKind, CommandResult, Fit, Gather, MAX_BATCH, OpResult, STUCK,
    SharedStore, StoreError, Term, TxnRequest, TxnResponse,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::RegistryError;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MOST: Duration = Duration::from_millis(500);
/// Commands on their way at once.
const IN_FLIGHT: usize = 2;
/// A command with several transactions is no larger than this, nearly.
const BATCH_BYTES: usize = 512 * 1024;

type Answer = Result<TxnResponse, RegistryError>;

/// A transaction that waits for its turn.
struct Waiting {
    txn: TxnRequest,
    fence: Option<Term>,
    deadline: Instant,
    done: oneshot::Sender<Answer>,
}

type Outcome = Result<CommandResult, StoreError>;
/// What carries a command out: the store.
type CarryOut = Arc<dyn Fn(Command) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Proposes what the registry writes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proposer {
    carry_out: CarryOut,
    timeout: Duration,
    waiting: Arc<Mutex<Gather<Waiting>>>,
}

impl Proposer {
    pub fn new(store: SharedStore, timeout: Duration) -> Self {
        let carry_out = move |command| {
            let store = Arc::clone(&store);
            async move { store.propose(command).await }.boxed()
        };
        Self::over(Arc::new(carry_out), timeout)
    }

    fn over(carry_out: CarryOut, timeout: Duration) -> Self {
        Self { carry_out, timeout, waiting: Arc::new(Mutex::new(Gather::new(IN_FLIGHT))) }
    }

    /// Carries out a transaction, once, whatever happens to leaders meanwhile, and independently
    /// of those that travel with it.
    pub async fn propose(&self, txn: TxnRequest, fence: Option<Term>) -> Answer {
        let deadline = Instant::now() + self.timeout;
        let (done, mut answer) = oneshot::channel();
        let mut start = self.waiting.lock().push(Waiting { txn, fence, deadline, done });
        let lost = |text: &str| Err(RegistryError::OutcomeUnknown(text.to_owned()));
        loop {
            if start {
                // Task "proposals": ends when nothing waits any more, and by the deadlines of what
                // it has taken at the latest.
                tokio::spawn(self.clone().run());
            }
            let look_again = deadline.min(Instant::now() + STUCK);
            match tokio::time::timeout_at(look_again, &mut answer).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => return lost("the proposal was given up"),
                Err(_) if Instant::now() >= deadline => {
                    return lost("no answer before the deadline");
                }
                Err(_) => start = self.waiting.lock().start_another(),
            }
        }
    }

    async fn run(self) {
        while let Some(group) = self.take() {
            self.send(group).await;
        }
    }

    /// The next ones with the same fence; `None` when nothing waits.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut bytes = 0;
        self.waiting.lock().take(
            // Nobody waits for the others any longer, and nothing was written.
            |waiting| !waiting.done.is_closed(),
            |group, next| {
                let size = next.txn.encoded_len();
                if group.len() == MAX_BATCH {
                    return Fit::Full;
                }
                let other = group.first().is_some_and(|first| next.fence != first.fence);
                if other || (!group.is_empty() && bytes + size > BATCH_BYTES) {
                    return Fit::No;
                }
                bytes += size;
                Fit::Yes
            },
        )
    }

    async fn send(&self, group: Vec<Waiting>) {
        let fence = group[0].fence;
        let now = Instant::now();
        let deadline = group.iter().map(|waiting| waiting.deadline).max().unwrap_or(now);
        let (txns, waiting): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.txn, waiting.done)).unzip();
        let answers = self.answers(txns, fence, deadline).await;
        for (done, answer) in waiting.into_iter().zip(answers) {
            // Whoever has waited may have given up.
            let _ = done.send(answer);
        }
    }

    async fn answers(
        &self,
        txns: Vec<TxnRequest>,
        fence: Option<Term>,
        deadline: Instant,
    ) -> Vec<Answer> {
        let count = txns.len();
        let alone = |txn| async move {
            let answer = self.command(Command::from(txn), fence, deadline).await;
            answer.map_err(Failure::into_error)
        };
        if count == 1 {
            return join_all(txns.into_iter().map(alone)).await;
        }
        let batch = CommandKind::Batch(BatchRequest { txns: txns.clone() });
        match self.command(batch.into(), fence, deadline).await {
            Ok(response) => {
                let mut results = response.responses.into_iter();
                let answer = |_| match results.next().and_then(|response| response.result) {
                    Some(OpResult::Txn(response)) => Ok(response),
                    _ => Err(RegistryError::Internal("a batch without all answers".into())),
                };
                (0..count).map(answer).collect()
            }
            // Perhaps only one of them is: that must be no harm to the others.
            Err(Failure::Refused(_)) => join_all(txns.into_iter().map(alone)).await,
            Err(Failure::Other(error)) => vec![Err(error); count],
        }
    }

    /// Proposes until the deadline. The request id makes that safe even when it is not known
    /// what came of the attempt before.
    async fn command(
        &self,
        mut command: Command,
        fence: Option<Term>,
        deadline: Instant,
    ) -> Result<TxnResponse, Failure> {
        command.fence = fence.unwrap_or(0);
        command.request_id = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
        let mut backoff = BACKOFF_FIRST;
        let mut unknown: Option<RegistryError> = None;
        loop {
            let attempt = (self.carry_out)(command.clone());
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(result)) => {
                    return result.txn.ok_or_else(|| {
                        let text = "a transaction without an answer".to_owned();
                        Failure::Other(RegistryError::Internal(text))
                    });
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    let text = "no answer before the deadline".to_owned();
                    let error = unknown.unwrap_or(RegistryError::OutcomeUnknown(text));
                    return Err(Failure::Other(error));
                }
            };
            let lost = matches!(error, StoreError::OutcomeUnknown(_));
            if !lost && !error.retryable() {
                // Who refuses now (a master whose disk is full, say) knows nothing of the attempt
                // before, which may have taken effect: no caller may believe that nothing was
                // written, and ask elsewhere.
                return Err(unknown.map_or_else(|| Failure::of(error), Failure::Other));
            }
            // The store has sought a leader for as long as it may, and nothing was written: to go
            // on would turn a definite answer into an open one.
            let definite = matches!(error, StoreError::Unavailable { .. }) && unknown.is_none();
            let error = RegistryError::from(error);
            if definite {
                return Err(Failure::Other(error));
            }
            if lost {
                unknown = Some(error.clone());
            }
            let pause = backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            if Instant::now() + pause >= deadline {
                return Err(Failure::Other(unknown.unwrap_or(error)));
            }
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }
}

/// Why a command was not carried out.
enum Failure {
    /// Because of what is in it.
    Refused(RegistryError),
    /// Because of how things are: any other would have fared alike.
    Other(RegistryError),
}

impl Failure {
    fn of(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace(_) | StoreError::Invalid(_) | StoreError::TooLarge { .. } => {
                Self::Refused(error.into())
            }
            _ => Self::Other(error.into()),
        }
    }

    fn into_error(self) -> RegistryError {
        match self {
            Self::Refused(error) | Self::Other(error) => error,
        }
    }
}

#[cfg(test)]
#[path = "proposer_test.rs"]
mod tests;
