//! [`RaftStore`]: the parts put together, and [`Store`] for the rest of the master.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_proto::peer::admin_request::Change;
use quorate_proto::{never_sent, peer as pb};
use quorate_store::{
    Alarm, Answerer, Command, CommandKind, CommandResult, CompactRequest, Consistency, HashKv,
    Leadership, LeaseGranted, LeaseId, LeaseInfo, Member, MemberId, MemberStatus, NewMember,
    RangeRequest, RangeResponse, Revision, Role, Snapshot, Store, StoreError, StoreStatus,
    TxnRequest, TxnResponse, WatchRequest, Watcher, check_command, grant_lease, reads_only,
};
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
use crate::metrics::Now;
use crate::peer::{Client, Peer, Peers};
use crate::reads::ReadIndex;
use crate::space::Room;
use crate::state::State;
use crate::types::{MemberInfo, Raft};

/// Pause of who waits for a compaction, when nothing else wakes it.
const COMPACTION_PAUSE: Duration = Duration::from_millis(50);
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
                Ok(Err(error)) => return Err(error.into_store(self.leader_url())),
                Err(_) => {
                    let reason = "no quorum has confirmed the change in time";
                    return Err(StoreError::OutcomeUnknown(reason.into()));
                }
            }
            if !search.again().await {
                return Err(self.unavailable(None));
            }
        }
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

#[async_trait]
impl Store for RaftStore {
    async fn range(
        &self,
        request: RangeRequest,
        consistency: Consistency,
    ) -> Result<RangeResponse, StoreError> {
        self.sound()?;
        if consistency == Consistency::Linearizable {
            self.catch_up().await?;
        }
        self.state.machine.range(&request)
    }

    async fn propose(&self, command: Command) -> Result<CommandResult, StoreError> {
        // A member without sound data still has something to say of itself.
        if !matches!(command.kind, Some(CommandKind::Alarm(_))) {
            self.sound()?;
        }
        self.room.check(&command)?;
        // What would only be refused later, and more expensively.
        check_command(&command)?;
        let mut result = self.propose_encoded(command.encode_to_vec().into()).await?;
        match result.rejection.take() {
            Some(rejection) => Err(rejection.into()),
            None => Ok(result),
        }
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        let command = Command::from(request);
        if !reads_only(&command) {
            let result = self.propose(command).await?;
            let missing = || StoreError::Internal("a transaction without an answer".into());
            return result.txn.ok_or_else(missing);
        }
        self.sound()?;
        check_command(&command)?;
        self.catch_up().await?;
        self.state.machine.read(&command)
    }

    async fn read_revision(&self) -> Result<Revision, StoreError> {
        self.sound()?;
        self.catch_up().await?;
        Ok(self.state.machine.revision())
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        self.sound()?;
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
        let member_status = |(id, info): (&MemberId, &MemberInfo)| {
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
            name: self.name.clone(),
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
            state_bytes: self.state.backend.disk_bytes(),
            state_bytes_in_use: self.state.backend.live_bytes(),
            budget_bytes: self.budget,
            alarms: self.alarms().borrow().clone(),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<LeaseGranted, StoreError> {
        if ttl_seconds < 1 {
            return Err(StoreError::Invalid(format!("lease ttl {ttl_seconds} is less than 1")));
        }
        grant_lease(self, id, ttl_seconds.max(self.min_lease_ttl)).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, StoreError> {
        let lease = self.lease(id, true).await?;
        Ok(if lease.found { lease.granted_ttl_seconds } else { 0 })
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<LeaseInfo>, StoreError> {
        let lease = self.lease(id, false).await?;
        if !lease.found {
            return Ok(None);
        }
        let keys = match with_keys {
            true => {
                self.catch_up().await?;
                self.state.machine.lease_keys(id)?
            }
            false => Vec::new(),
        };
        let ttl = i64::try_from(lease.left_ms / 1000).unwrap_or(i64::MAX);
        Ok(Some(LeaseInfo { id, granted_ttl: lease.granted_ttl_seconds, ttl, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.catch_up().await?;
        Ok(self.state.machine.lessor().ids())
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<Revision, StoreError> {
        let result = self.propose(CommandKind::Compact(CompactRequest { revision }).into()).await?;
        let mut applied = self.state.applied();
        // The leader sees to it that there are entries, and each removes a little.
        while physical && self.state.machine.compacting() {
            let _ = tokio::time::timeout(COMPACTION_PAUSE, applied.changed()).await;
        }
        Ok(result.revision)
    }

    async fn member_add(&self, member: NewMember) -> Result<Member, StoreError> {
        let added = self.admin(members::add_request(member)).await?;
        added.ok_or_else(|| StoreError::Internal("a member was added without an answer".into()))
    }

    async fn member_promote(&self, id: MemberId) -> Result<(), StoreError> {
        self.admin(Change::Promote(id)).await.map(drop)
    }

    async fn member_remove(&self, id: MemberId) -> Result<(), StoreError> {
        self.admin(Change::Remove(id)).await.map(drop)
    }

    async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), StoreError> {
        self.admin(Change::TransferLeader(to.unwrap_or(0))).await.map(drop)
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, StoreError> {
        self.blocking(move |state| state.machine.hash_kv(revision)).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.state.image().await
    }

    async fn defragment(&self) -> Result<(), StoreError> {
        self.blocking(|state| Ok(state.backend.compact_files()?)).await
    }

    fn write_metrics(&self, text: &mut String) {
        let committed = self.raft.metrics().borrow_watched().local_committed;
        let now = Now {
            in_flight: self.forwarded.in_flight(),
            committed: committed.map_or(0, |id| id.index),
            watchers: self.state.machine.hub().watchers(),
            leases: self.state.machine.lessor().ids().len(),
        };
        self.state.metrics.write(text, &now);
    }

    async fn ask_members(&self, question: Bytes, patience: Duration) -> Vec<(MemberId, Bytes)> {
        let others = self.others();
        let members = others.iter().map(|(id, info)| (*id, info));
        let ask = |mut client: Client| {
            let question = question.clone();
            async move { client.ask(pb::AskRequest { question }).await }
        };
        let replies = self.peers.ask_all(members, patience, ask).await;
        replies.into_iter().map(|(id, reply)| (id, reply.answer)).collect()
    }

    fn answer_members(&self, answerer: Answerer) {
        self.answers.set(answerer);
    }

    fn alarms(&self) -> watch::Receiver<Vec<Alarm>> {
        self.state.machine.alarms()
    }
}
