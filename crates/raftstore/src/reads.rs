//! ReadIndex: how far a reader must have applied to see every acknowledged write.
//!
//! Readers that arrive while a round is under way share the next one, and wait for its index
//! together, so the cost does not grow with their number.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use quorate_proto::peer as pb;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::leadership::replaced;
use crate::peer::Peers;
use crate::state::State;
use crate::types::Raft;

/// Readers that may wait for one round.
const QUEUE: usize = 16_384;
/// Longest round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait until a round's index is applied; readers give up earlier by themselves.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// An index, or why there is none.
type Answer = Result<u64, String>;

/// Asks for read indexes; cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    /// Rounds of this master as leader.
    leading: mpsc::Sender<oneshot::Sender<Answer>>,
    /// Rounds wherever the leader is.
    anywhere: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl ReadIndex {
    /// Starts the two tasks that make rounds; they end with `cancel`.
    pub(crate) fn start(
        raft: Raft,
        peers: Arc<Peers>,
        state: Arc<State>,
        cancel: &CancellationToken,
    ) -> Self {
        let leading = {
            let raft = raft.clone();
            batcher(cancel.clone(), None, move || confirm(raft.clone()))
        };
        let asked = leading.clone();
        let anywhere = batcher(cancel.clone(), Some(state), move || {
            locate(raft.clone(), Arc::clone(&peers), asked.clone())
        });
        Self { leading, anywhere }
    }

    /// For the leader only.
    pub(crate) async fn leader_index(&self) -> Answer {
        ask(&self.leading).await
    }

    /// From this master or from the leader; it is applied here when the answer comes.
    pub(crate) async fn applied_index(&self) -> Answer {
        ask(&self.anywhere).await
    }
}

async fn ask(rounds: &mpsc::Sender<oneshot::Sender<Answer>>) -> Answer {
    let (answer, answered) = oneshot::channel();
    rounds.send(answer).await.map_err(|_| "this master is stopping".to_owned())?;
    answered.await.unwrap_or_else(|_| Err("this master is stopping".into()))
}

/// With a state, answers come when the index is applied to it.
fn batcher<F>(
    cancel: CancellationToken,
    state: Option<Arc<State>>,
    round: impl Fn() -> F + Send + 'static,
) -> mpsc::Sender<oneshot::Sender<Answer>>
where
    F: Future<Output = Answer> + Send,
{
    let (sender, mut waiting) = mpsc::channel::<oneshot::Sender<Answer>>(QUEUE);
    // The task "read index": a panic in it closes the channel, and every reader gets an error.
    tokio::spawn(async move {
        let mut readers = Vec::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                received = waiting.recv_many(&mut readers, QUEUE) => if received == 0 { return },
            }
            let answer = match tokio::time::timeout(ROUND_TIMEOUT, round()).await {
                Ok(answer) => answer,
                Err(_) => Err("no quorum answered in time".into()),
            };
            let readers = std::mem::take(&mut readers);
            match (&state, answer) {
                (Some(state), Ok(index)) if state.next_index() <= index => {
                    // The task "read apply": when it fails, its readers get an error. The next
                    // round need not wait for it.
                    tokio::spawn(answer_applied(Arc::clone(state), index, readers));
                }
                (_, answer) => answer_all(readers, &answer),
            }
        }
    });
    sender
}

async fn answer_applied(state: Arc<State>, index: u64, readers: Vec<oneshot::Sender<Answer>>) {
    let applied = tokio::time::timeout(APPLY_TIMEOUT, state.wait_applied(index)).await;
    let late = |_| "this master lags behind the leader".to_owned();
    answer_all(readers, &applied.map(|()| index).map_err(late));
}

fn answer_all(readers: Vec<oneshot::Sender<Answer>>, answer: &Answer) {
    for reader in readers {
        // A reader that has given up is no concern.
        let _ = reader.send(answer.clone());
    }
}

/// One round of this master as leader: a quorum confirms that it still leads.
async fn confirm(raft: Raft) -> Answer {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(linearizer.read_log_id().index()),
        Err(error) => Err(error.to_string()),
    }
}

async fn locate(
    raft: Raft,
    peers: Arc<Peers>,
    leading: mpsc::Sender<oneshot::Sender<Answer>>,
) -> Answer {
    loop {
        let leader = {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.current_leader.map(|leader| {
                (leader, metrics.membership_config.membership().get_node(&leader).cloned())
            })
        };
        let Some((leader, info)) = leader else { return Err("no leader is known".into()) };
        if leader == *raft.node_id() {
            return ask(&leading).await;
        }
        let info = info.ok_or("the leader is not a member")?;
        let peer = peers.get(leader, &info).map_err(|status| status.to_string())?;
        let mut client = peer.urgent();
        tokio::select! {
            reply = client.read_index(pb::ReadIndexRequest {}) => {
                return match reply {
                    Ok(reply) => Ok(reply.into_inner().index),
                    Err(status) => Err(status.message().to_owned()),
                };
            }
            // Whoever leads now can be asked as well.
            () = replaced(&raft, leader) => {}
        }
    }
}
