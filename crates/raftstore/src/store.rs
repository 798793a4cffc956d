//! [`RaftStore`]: the parts put together, and [`Store`] for the rest of the master.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_store::{
    Command, CommandResult, Consistency, Leadership, MAX_COMMAND_BYTES, MAX_TXN_OPS, MemberId,
    MemberStatus, Op, RangeRequest, RangeResponse, RequestOp, Revision, Role, Store, StoreError,
    StoreStatus, TxnRequest, WatchRequest, Watcher,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fatal::Fatal;
use crate::forward::{self, Forwarded, Forwarder, Refusal};
use crate::identity::DirectoryLock;
use crate::leadership;
use crate::log::WriterThread;
use crate::peer::Peers;
use crate::reads::ReadIndex;
use crate::state::State;
use crate::types::Raft;

/// Pause before a request looks for a leader again, when nothing else wakes it.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// How long a leader that shuts down waits for its successor.
const HANDOVER: Duration = Duration::from_secs(2);
/// How long the tasks get to end.
const TASKS_END: Duration = Duration::from_secs(2);
/// Age at which the size on disk is measured anew.
const DISK_AGE: Duration = Duration::from_secs(10);

/// The replicated store of one master.
pub struct RaftStore {
    pub(crate) id: MemberId,
    pub(crate) data_dir: PathBuf,
    pub(crate) request_timeout: Duration,
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) forwarded: Arc<Forwarded>,
    pub(crate) forwarder: Forwarder,
    pub(crate) reads: ReadIndex,
    pub(crate) leadership: Arc<watch::Sender<Leadership>>,
    pub(crate) revision: watch::Receiver<Revision>,
    pub(crate) fatal: Fatal,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) writer: Mutex<Option<WriterThread>>,
    pub(crate) lock: Mutex<Option<DirectoryLock>>,
    pub(crate) disk: Mutex<Option<(Instant, u64)>>,
    pub(crate) stopped: tokio::sync::Mutex<bool>,
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStore").field("id", &self.id).finish_non_exhaustive()
    }
}

impl RaftStore {
    /// This member's id.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Resolves, with the reason, when Raft or the writer of the log has died: the process must
    /// exit then. Never resolves otherwise.
    pub fn fatal(&self) -> impl Future<Output = String> + Send + 'static {
        let fatal = self.fatal.clone();
        async move { fatal.wait().await }
    }

    /// A hash over the applied state, equal on all masters that have applied the same entries.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn hash(&self) -> Result<u64, StoreError> {
        self.state.machine.hash().map_err(|error| StoreError::Internal(error.to_string()))
    }

    /// Hands leadership to `to`, or to the member that is furthest ahead. Returns when another
    /// master leads; does nothing on a follower.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when nobody has taken over in time.
    pub async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), StoreError> {
        if !self.raft.is_leader() {
            return Ok(());
        }
        let unavailable = |reason: &str| StoreError::Unavailable {
            reason: reason.into(),
            leader: self.leader_url(),
        };
        let Some(target) = to.or_else(|| self.successor()) else {
            return Err(unavailable("no other voter is reachable"));
        };
        let mut metrics = self.raft.server_metrics();
        self.raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|error| unavailable(&error.to_string()))?;
        let changed = async {
            loop {
                let leader = metrics.borrow_and_update().current_leader;
                if leader.is_some_and(|leader| leader != self.id)
                    || metrics.changed().await.is_err()
                {
                    return;
                }
            }
        };
        tokio::time::timeout(HANDOVER, changed)
            .await
            .map_err(|_| unavailable("no other master has taken over in time"))
    }

    /// The other voter whose log is longest and who was heard of recently.
    fn successor(&self) -> Option<MemberId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let replication = metrics.replication.as_ref()?;
        membership
            .voter_ids()
            .filter(|id| *id != self.id)
            .filter_map(|id| Some((replication.get(&id).copied().flatten()?, id)))
            .max()
            .map(|(_, id)| id)
    }

    /// Stops: a leader hands over first (bounded), then everything is flushed. Idempotent.
    pub async fn shutdown(&self) {
        let mut stopped = self.stopped.lock().await;
        if *stopped {
            return;
        }
        *stopped = true;
        if self.raft.is_leader()
            && self.raft.voter_ids().count() > 1
            && let Err(error) = self.transfer_leadership(None).await
        {
            tracing::warn!(%error, "stopping without a successor");
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end in order");
        }
        self.cancel.cancel();
        self.state.machine.hub().close();
        self.tasks.close();
        if tokio::time::timeout(TASKS_END, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks of the store did not end in time");
        }
        let writer = self.writer.lock().take();
        let state = Arc::clone(&self.state);
        let flushed = tokio::task::spawn_blocking(move || {
            if let Some(writer) = writer {
                writer.join();
            }
            state.backend.flush()
        });
        match flushed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the state was not flushed"),
            Err(error) => tracing::warn!(%error, "the state was not flushed"),
        }
        self.lock.lock().take();
    }

    #[cfg(test)]
    pub(crate) fn raft_metrics(&self) -> openraft::RaftMetrics<crate::types::TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    fn leader_url(&self) -> Option<String> {
        self.leadership.borrow().leader.as_ref().map(|leader| leader.client_url.clone())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.request_timeout
    }

    fn unavailable(&self, last: Option<String>) -> StoreError {
        let reason = last.unwrap_or_else(|| {
            "no leader is known; a majority of the masters must be running and reachable".into()
        });
        StoreError::Unavailable { reason, leader: self.leader_url() }
    }

    /// Waits until the leadership changes, or a moment; false once the deadline has passed.
    async fn wait_for_leader(
        &self,
        leadership: &mut watch::Receiver<Leadership>,
        deadline: Instant,
    ) -> bool {
        let pause = deadline.min(Instant::now() + LEADER_PAUSE);
        // Either way the caller looks again.
        let _ = tokio::time::timeout_at(pause, leadership.changed()).await;
        Instant::now() < deadline
    }

    async fn propose_encoded(&self, command: Bytes) -> Result<CommandResult, StoreError> {
        let deadline = self.deadline();
        let mut leadership = self.leadership.subscribe();
        loop {
            let refusal = match self.try_propose(&command, deadline).await {
                Ok((result, index)) => {
                    // Applied on the leader; here it follows with the next message. Not to have
                    // it yet is no failure.
                    let _ = tokio::time::timeout_at(deadline, self.state.wait_applied(index)).await;
                    return Ok(result);
                }
                Err(refusal) => refusal,
            };
            match refusal {
                Refusal::NotLeader => {
                    if !self.wait_for_leader(&mut leadership, deadline).await {
                        return Err(self.unavailable(None));
                    }
                }
                Refusal::Overloaded(reason) => return Err(StoreError::Overloaded(reason)),
                Refusal::Invalid(reason) => return Err(StoreError::Invalid(reason)),
                Refusal::Unknown(reason) => return Err(StoreError::OutcomeUnknown(reason)),
            }
        }
    }

    async fn try_propose(
        &self,
        command: &Bytes,
        deadline: Instant,
    ) -> Result<forward::Applied, Refusal> {
        let leader = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.current_leader.and_then(|leader| {
                let info = metrics.membership_config.membership().get_node(&leader)?.clone();
                Some((leader, info))
            })
        };
        match leader {
            None => Err(Refusal::NotLeader),
            Some((leader, _)) if leader == self.id => {
                self.forwarded.propose(command.clone(), deadline).await
            }
            Some((leader, info)) => {
                let Ok(_permit) = self.forwarded.permits.try_acquire() else {
                    return Err(Refusal::Overloaded("too many proposals are in flight".into()));
                };
                let peer = self
                    .peers
                    .get(leader, &info)
                    .map_err(|status| Refusal::Invalid(status.message().to_owned()))?;
                self.forwarder.forward(peer, command.clone(), deadline).await
            }
        }
    }

    /// Waits until everything acknowledged before the call is applied here.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let deadline = self.deadline();
        let mut leadership = self.leadership.subscribe();
        let index = loop {
            let reason = match tokio::time::timeout_at(deadline, self.reads.index()).await {
                Ok(Ok(index)) => break index,
                Ok(Err(reason)) => reason,
                Err(_) => "no quorum has answered in time".into(),
            };
            if !self.wait_for_leader(&mut leadership, deadline).await {
                return Err(self.unavailable(Some(reason)));
            }
        };
        tokio::time::timeout_at(deadline, self.state.wait_applied(index))
            .await
            .map_err(|_| self.unavailable(Some("this master lags behind the leader".into())))
    }

    fn disk_bytes(&self) -> u64 {
        let mut disk = self.disk.lock();
        if let Some((measured, bytes)) = *disk
            && measured.elapsed() < DISK_AGE
        {
            return bytes;
        }
        let bytes = ["log", "state"].iter().map(|name| size(&self.data_dir.join(name))).sum();
        *disk = Some((Instant::now(), bytes));
        bytes
    }
}

/// Bytes of the files in a directory; those that vanish meanwhile count nothing.
fn size(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// Refuses what would only be refused later, and more expensively.
fn validate(command: &Command) -> Result<Bytes, StoreError> {
    let limit = MAX_COMMAND_BYTES;
    let size = command.encoded_len();
    if size > limit {
        return Err(StoreError::TooLarge { what: "the command in bytes", size, limit });
    }
    match &command.kind {
        None => return Err(StoreError::Invalid("a command that does nothing".into())),
        Some(quorate_store::CommandKind::Txn(txn)) => {
            let size = operations(txn);
            if size > MAX_TXN_OPS {
                let what = "the number of operations in the transaction";
                return Err(StoreError::TooLarge { what, size, limit: MAX_TXN_OPS });
            }
        }
        Some(quorate_store::CommandKind::Compact(_)) => {}
    }
    Ok(command.encode_to_vec().into())
}

/// The larger branch counts, as in etcd.
fn operations(txn: &TxnRequest) -> usize {
    let count = |ops: &[RequestOp]| {
        ops.iter()
            .map(|op| match &op.op {
                Some(Op::Txn(nested)) => 1 + operations(nested),
                _ => 1,
            })
            .sum::<usize>()
    };
    txn.compare.len().max(count(&txn.success)).max(count(&txn.failure))
}

#[async_trait]
impl Store for RaftStore {
    async fn range(
        &self,
        request: RangeRequest,
        consistency: Consistency,
    ) -> Result<RangeResponse, StoreError> {
        if consistency == Consistency::Linearizable {
            self.catch_up().await?;
        }
        self.state.machine.range(&request)
    }

    async fn propose(&self, command: Command) -> Result<CommandResult, StoreError> {
        let mut result = self.propose_encoded(validate(&command)?).await?;
        match result.rejection.take() {
            Some(rejection) => Err(rejection.into()),
            None => Ok(result),
        }
    }

    async fn read_revision(&self) -> Result<Revision, StoreError> {
        self.catch_up().await?;
        Ok(self.state.machine.revision())
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        self.state.machine.hub().watch(request)
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.revision.clone()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn status(&self) -> StoreStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let millis = |elapsed: Duration| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let member_status = |(id, info): (&MemberId, &crate::types::MemberInfo)| {
            let ours = *id == self.id && metrics.replication.is_some();
            let matched = metrics.replication.as_ref().and_then(|all| *all.get(id)?);
            let contact = metrics.heartbeat.as_ref().and_then(|all| *all.get(id)?);
            MemberStatus {
                member: leadership::member(*id, info, membership),
                matched_index: match ours {
                    true => metrics.last_log_index,
                    false => matched.map(|id| id.index),
                },
                last_contact_ms: match ours {
                    true => Some(0),
                    false => contact.map(|at| millis(at.elapsed())),
                },
            }
        };
        StoreStatus {
            id: self.id,
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner => Role::Learner,
                ServerState::Follower | ServerState::Shutdown => Role::Follower,
            },
            leadership: self.leadership.borrow().clone(),
            members: membership.nodes().map(member_status).collect(),
            last_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.map_or(0, |id| id.index),
            revision: self.state.machine.revision(),
            compact_revision: self.state.machine.compact_revision(),
            quorum_ack_ms: metrics.last_quorum_acked.map(|acked| millis(acked.elapsed())),
            disk_bytes: self.disk_bytes(),
        }
    }
}
