//! [`Store`] on this member: here where it can, else at the leader.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_proto::peer::admin_request::Change;
use quorate_store::{
    Alarm, Answerer, Command, CommandKind, CommandResult, CompactRequest, Consistency, HashKv,
    Leadership, LeaseGranted, LeaseId, LeaseInfo, Member, MemberId, MemberStatus, NewMember,
    RangeRequest, RangeResponse, Revision, Role, Snapshot, Store, StoreError, StoreStatus,
    TxnRequest, TxnResponse, WatchRequest, Watcher, check_command, grant_lease, reads_only,
};
use tokio::sync::watch;

use super::RaftStore;
use crate::leadership;
use crate::members;
use crate::metrics::Now;
use crate::peer::Client;
use crate::types::MemberInfo;

/// Pause of who waits for a compaction, when nothing else wakes it.
const COMPACTION_PAUSE: Duration = Duration::from_millis(50);

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
        let leadership = self.leadership.borrow().clone();
        let leads = leadership.leader.as_ref().is_some_and(|leader| leader.id == self.id);
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
                // The metrics as a whole may still tell of an earlier term.
                _ if leads => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner => Role::Learner,
                ServerState::Leader | ServerState::Follower | ServerState::Shutdown => {
                    Role::Follower
                }
            },
            leadership,
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
