//! [`RaftStore`]: the parts put together. `contract.rs` is what the rest of the master sees of it.

mod contract;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use quorate_proto::peer::admin_request::Change;
use quorate_proto::{never_sent, peer as pb};
use quorate_store::{CommandResult, Leadership, LeaseId, Member, MemberId, Revision, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ask::Answers;
use crate::fatal::Fatal;
use crate::forward::{self, Forwarded, Forwarder, Refusal};
use crate::identity::DirectoryLock;
use crate::leadership::{self, Search};
use crate::leases::Leases;
use crate::log::WriterThread;
use crate::members::{self, AdminError, Members};
use crate::peer::{Peer, Peers};
use crate::reads::ReadIndex;
use crate::space::Room;
use crate::state::State;
use crate::types::{MemberInfo, Raft};

/// How long the tasks get to end.
const TASKS_END: Duration = Duration::from_secs(2);
/// Age at which the size on disk is measured anew.
const DISK_AGE: Duration = Duration::from_secs(10);

/// The replicated store of one master.
pub struct RaftStore {
    pub(crate) id: MemberId,
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) request_timeout: Duration,
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) forwarded: Arc<Forwarded>,
    pub(crate) forwarder: Forwarder,
    pub(crate) reads: ReadIndex,
    pub(crate) leases: Leases,
    pub(crate) members: Members,
    pub(crate) answers: Answers,
    /// Chosen when the directory was new.
    pub(crate) instance: u64,
    /// Does this member take part? See [`crate::admission`].
    pub(crate) admitted: watch::Sender<bool>,
    /// Has it been told to end?
    pub(crate) ends: watch::Sender<bool>,
    /// Was it started to join a cluster that exists?
    pub(crate) joins: bool,
    pub(crate) room: Room,
    pub(crate) budget: u64,
    /// Shorter leases could run out while a leader is elected.
    pub(crate) min_lease_ttl: i64,
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

    /// Reads the whole state and compares it with the hash that was kept while it was applied;
    /// false when it is not what was written.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn scrub(&self) -> Result<bool, StoreError> {
        self.blocking(|state| Ok(state.machine.scrub()?)).await
    }

    /// This master will end soon: whoever wants to know whether there is a majority without
    /// another one does not count it any more.
    pub fn announce_end(&self) {
        self.ends.send_replace(true);
    }

    /// Hands leadership to whoever is furthest ahead, if this master leads.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when nobody has taken over in time.
    pub async fn hand_over(&self) -> Result<(), StoreError> {
        if !self.raft.is_leader() {
            return Ok(());
        }
        self.members.transfer(None).await.map_err(|error| error.into_store(self.leader_url()))
    }

    /// Stops: a leader hands over first (bounded), then everything is flushed. Idempotent.
    pub async fn shutdown(&self) {
        let mut stopped = self.stopped.lock().await;
        if *stopped {
            return;
        }
        *stopped = true;
        self.announce_end();
        if self.raft.is_leader()
            && self.raft.voter_ids().count() > 1
            && let Err(error) = self.hand_over().await
        {
            tracing::warn!(%error, "stopping without a successor");
        }
        self.forwarded.end().await;
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

    /// Who leads, as this master knows.
    fn leader(&self) -> Option<(MemberId, MemberInfo)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let info = metrics.membership_config.membership().get_node(&leader)?.clone();
        Some((leader, info))
    }

    /// All other members, as this master knows them.
    pub(crate) fn others(&self) -> Vec<(MemberId, MemberInfo)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.filter(|(id, _)| **id != self.id).map(|(id, info)| (*id, info.clone())).collect()
    }

    /// The connections to the leader; `None` when this master leads itself.
    fn leading_peer(&self) -> Result<Option<Arc<Peer>>, String> {
        match self.leader() {
            None => Err("no leader is known".into()),
            Some((id, _)) if id == self.id => Ok(None),
            Some((id, info)) => {
                let peer = self.peers.get(id, &info);
                peer.map(Some).map_err(|status| status.message().to_owned())
            }
        }
    }

    /// Asks the leader about a lease, again and again until one answers or time is up.
    async fn lease(&self, id: LeaseId, renew: bool) -> Result<pb::LeaseReply, StoreError> {
        let mut search = self.search();
        loop {
            let ask = async {
                let reply = match self.leading_peer()? {
                    None => self.leases.handle(pb::LeaseRequest { id, renew }).await,
                    Some(peer) => {
                        let mut client = peer.urgent();
                        tokio::select! {
                            reply = client.lease(pb::LeaseRequest { id, renew }) => {
                                reply.map(tonic::Response::into_inner)
                            }
                            () = leadership::replaced(&self.raft, peer.id) => {
                                Err(tonic::Status::unavailable("another master leads now"))
                            }
                        }
                    }
                };
                reply.map_err(|status| status.message().to_owned())
            };
            let reason = match tokio::time::timeout_at(search.deadline, ask).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(reason)) => reason,
                Err(_) => "no quorum has answered in time".into(),
            };
            if !search.again().await {
                return Err(self.unavailable(Some(reason)));
            }
        }
    }

    /// Changes the members, or the leader: here or at the leader.
    async fn admin(&self, change: Change) -> Result<Option<Member>, StoreError> {
        let mut search = self.search();
        let known = matches!(change, Change::Remove(id) if self.knows(id));
        let mut again = false;
        loop {
            let ask = async {
                match self.leading_peer().map_err(|_| AdminError::NotLeader)? {
                    None => self.members.change(change.clone()).await,
                    Some(peer) => {
                        let request = pb::AdminRequest { change: Some(change.clone()) };
                        match peer.urgent().admin(request).await {
                            Ok(reply) => members::decode(reply.into_inner()),
                            Err(status) if never_sent(&status).is_some() => {
                                Err(AdminError::NotLeader)
                            }
                            Err(status) => Err(AdminError::Unknown(status.message().to_owned())),
                        }
                    }
                }
            };
            match tokio::time::timeout_at(search.deadline, ask).await {
                Ok(Ok(member)) => return Ok(member),
                Ok(Err(AdminError::NotLeader)) => {}
                // The attempt before has removed it, though nobody could say so.
                Ok(Err(AdminError::NotFound(_))) if known && again => return Ok(None),
                Ok(Err(error)) => return Err(error.into_store(self.leader_url())),
                Err(_) => {
                    let reason = "no quorum has confirmed the change in time";
                    return Err(StoreError::OutcomeUnknown(reason.into()));
                }
            }
            again = true;
            if !search.again().await {
                return Err(self.unavailable(None));
            }
        }
    }

    /// Is it a member, as far as this master has heard?
    fn knows(&self, id: MemberId) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&id).is_some()
    }

    /// Fails while this member's data is known to be wrong.
    fn sound(&self) -> Result<(), StoreError> {
        if self.state.corrupt.load(Relaxed) {
            let reason = "it differs from the other members' data or was changed on disk";
            return Err(StoreError::Corrupt(reason.into()));
        }
        Ok(())
    }

    fn leader_url(&self) -> Option<String> {
        self.leadership.borrow().leader.as_ref().map(|leader| leader.client_url.clone())
    }

    fn search(&self) -> Search {
        Search::new(self.leadership.subscribe(), self.request_timeout)
    }

    fn unavailable(&self, last: Option<String>) -> StoreError {
        let reason = last.unwrap_or_else(|| {
            "no leader is known; a majority of the masters must be running and reachable".into()
        });
        StoreError::Unavailable { reason, leader: self.leader_url() }
    }

    async fn propose_encoded(&self, command: Bytes) -> Result<CommandResult, StoreError> {
        // Before the first attempt: a leader that is elected meanwhile is not waited for.
        let mut search = self.search();
        loop {
            match self.try_propose(&command, search.deadline).await {
                Ok((result, _)) => return Ok(result),
                Err(Refusal::NotLeader) => {
                    if !search.again().await {
                        return Err(self.unavailable(None));
                    }
                }
                Err(Refusal::Overloaded(reason)) => return Err(StoreError::Overloaded(reason)),
                Err(Refusal::Invalid(reason)) => return Err(StoreError::Invalid(reason)),
                Err(Refusal::Unknown(reason)) => return Err(StoreError::OutcomeUnknown(reason)),
            }
        }
    }

    async fn try_propose(
        &self,
        command: &Bytes,
        deadline: Instant,
    ) -> Result<forward::Applied, Refusal> {
        let leader = self.leader();
        match leader {
            None => Err(Refusal::NotLeader),
            Some((leader, _)) if leader == self.id => {
                self.forwarded.propose(command.clone(), deadline).await
            }
            Some((leader, info)) => {
                let _permit = self.forwarded.admit(1)?;
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
        let mut search = self.search();
        loop {
            let asked = self.reads.applied_index();
            let reason = match tokio::time::timeout_at(search.deadline, asked).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(reason)) => reason,
                Err(_) => "no quorum has answered in time, or this master lags behind".into(),
            };
            if !search.again().await {
                return Err(self.unavailable(Some(reason)));
            }
        }
    }

    /// Runs what reads a lot away from the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let state = Arc::clone(&self.state);
        let done = tokio::task::spawn_blocking(move || work(&state)).await;
        done.map_err(|error| StoreError::Internal(error.to_string()))?
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
