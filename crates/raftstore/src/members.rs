//! Changing the members and the leader. The leader does it; others pass the wish on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, RaftMetrics};
use quorate_proto::peer as pb;
use quorate_proto::peer::admin_request::Change;
use quorate_store::{Alarm, AlarmKind, Member, MemberId, NewMember, StoreError};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

use crate::admission::ask;
use crate::codec::{member_info_from, member_info_to};
use crate::forward::Forwarded;
use crate::leadership::member;
use crate::peer::Peers;
use crate::types::{MemberInfo, Raft, TypeConfig};

/// Ids of members that are added are greater than this, those of the first members smaller: an
/// added one has the index of a fresh log entry in its id, which no other entry ever has.
pub(crate) const FIRST_ADDED: MemberId = 1 << 16;
/// A learner that lags by fewer entries than this counts as caught up.
const CAUGHT_UP: u64 = 256;
/// A member that has answered within this time counts as reachable.
const REACHABLE: Duration = Duration::from_secs(2);
/// How long a leader waits for its successor.
const HANDOVER: Duration = Duration::from_secs(2);
/// How long writes wait for that.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a change waits for the one before it, which may be that of a new member's vote.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Why the members were not changed.
#[derive(Debug)]
pub(crate) enum AdminError {
    NotLeader,
    NotFound(MemberId),
    Exists(String),
    /// Another change is under way.
    UnderWay,
    Membership(String),
    Invalid(String),
    Unavailable(String),
    Unknown(String),
}

/// What is said of [`AdminError::UnderWay`].
const TRY_AGAIN: &str = "another change is under way; try again in a moment";

impl AdminError {
    /// For the caller, who knows where the leader is.
    pub(crate) fn into_store(self, leader: Option<String>) -> StoreError {
        match self {
            Self::NotLeader => {
                StoreError::Unavailable { reason: "no leader is known".into(), leader }
            }
            Self::NotFound(id) => StoreError::MemberNotFound(id),
            Self::Exists(what) => StoreError::MemberExists(what),
            Self::UnderWay => StoreError::Membership(TRY_AGAIN.into()),
            Self::Membership(reason) => StoreError::Membership(reason),
            Self::Invalid(reason) => StoreError::Invalid(reason),
            Self::Unavailable(reason) => StoreError::Unavailable { reason, leader },
            Self::Unknown(reason) => StoreError::OutcomeUnknown(reason),
        }
    }

    fn encode(self) -> pb::AdminReply {
        use pb::admin_reply::Refusal as R;
        let (refusal, reason) = match self {
            Self::NotLeader => (R::NotLeader, String::new()),
            Self::NotFound(id) => (R::NotFound, id.to_string()),
            Self::Exists(reason) => (R::Exists, reason),
            Self::UnderWay => (R::Membership, TRY_AGAIN.into()),
            Self::Membership(reason) => (R::Membership, reason),
            Self::Invalid(reason) => (R::Invalid, reason),
            Self::Unavailable(reason) => (R::Unavailable, reason),
            Self::Unknown(reason) => (R::Unknown, reason),
        };
        pb::AdminReply { refusal: refusal.into(), reason, member: None }
    }
}

impl From<RaftError<TypeConfig, ClientWriteError<TypeConfig>>> for AdminError {
    fn from(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Self::NotLeader,
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_),
            )) => Self::UnderWay,
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                Self::Membership(error.to_string())
            }
            error => Self::Unknown(error.to_string()),
        }
    }
}

pub(crate) fn encode(outcome: Result<Option<Member>, AdminError>) -> pb::AdminReply {
    match outcome {
        Ok(added) => {
            let to_message = |member: Member| pb::Member {
                id: member.id,
                name: member.name,
                peer_url: member.peer_url,
                client_url: member.client_url,
                promote: false,
            };
            pb::AdminReply { member: added.map(to_message), ..Default::default() }
        }
        Err(error) => error.encode(),
    }
}

pub(crate) fn decode(reply: pb::AdminReply) -> Result<Option<Member>, AdminError> {
    use pb::admin_reply::Refusal as R;
    let (refusal, reason) = (reply.refusal(), reply.reason);
    Err(match refusal {
        R::None => {
            return Ok(reply.member.map(|member| Member {
                id: member.id,
                name: member.name,
                peer_url: member.peer_url,
                client_url: member.client_url,
                learner: true,
            }));
        }
        R::NotLeader => AdminError::NotLeader,
        R::NotFound => AdminError::NotFound(reason.parse().unwrap_or(0)),
        R::Exists => AdminError::Exists(reason),
        R::Membership => AdminError::Membership(reason),
        R::Invalid => AdminError::Invalid(reason),
        R::Unavailable => AdminError::Unavailable(reason),
        R::Unknown => AdminError::Unknown(reason),
    })
}

pub(crate) fn add_request(new: NewMember) -> Change {
    let NewMember { name, peer_url, client_url, learner } = new;
    let info = MemberInfo { name, peer_url, client_url, promote: !learner };
    Change::Add(member_info_to(0, &info))
}

/// Changes the members on the leader.
#[derive(Clone)]
pub(crate) struct Members {
    pub raft: Raft,
    pub id: MemberId,
    /// Do the members speak TLS?
    pub tls: bool,
    pub peers: Arc<Peers>,
    /// The writes under way, which a planned change of the leader waits for.
    pub forwarded: Arc<Forwarded>,
    pub alarms: watch::Receiver<Vec<Alarm>>,
    /// Has this master been told to end?
    pub ends: watch::Receiver<bool>,
    /// Whoever holds it changes the members: what a change is judged by stays true until it is
    /// made, and nobody takes half of it for one that was abandoned.
    pub changing: Arc<Mutex<()>>,
}

impl Members {
    /// Carries a change out, if this master leads; waits a moment for one that is under way.
    pub(crate) async fn change(&self, change: Change) -> Result<Option<Member>, AdminError> {
        let deadline = Instant::now() + UNDER_WAY;
        loop {
            match self.attempt(change.clone()).await {
                Err(AdminError::UnderWay) if Instant::now() < deadline => {
                    tokio::time::sleep(UNDER_WAY / 100).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, change: Change) -> Result<Option<Member>, AdminError> {
        if !self.raft.is_leader() {
            return Err(AdminError::NotLeader);
        }
        // Who leads is no matter of members.
        let _changing = match change {
            Change::TransferLeader(_) => None,
            _ => Some(self.begin().await?),
        };
        match change {
            Change::Add(new) => self.add(member_info_from(new).1).await.map(Some),
            Change::Promote(id) => self.promote(id).await.map(|()| None),
            Change::Remove(id) => self.remove(id).await.map(|()| None),
            Change::TransferLeader(to) => {
                self.transfer((to != 0).then_some(to)).await.map(|()| None)
            }
        }
    }

    /// The right to change the members until it is dropped.
    async fn begin(&self) -> Result<MutexGuard<'_, ()>, AdminError> {
        let begun = tokio::time::timeout(UNDER_WAY, self.changing.lock()).await;
        begun.map_err(|_| AdminError::UnderWay)
    }

    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    async fn add(&self, info: MemberInfo) -> Result<Member, AdminError> {
        let scheme = if self.tls { "https://" } else { "http://" };
        if !info.peer_url.starts_with(scheme) {
            let reason = format!("peer address {:?} must begin with {scheme}", info.peer_url);
            return Err(AdminError::Invalid(reason));
        }
        for (_, other) in self.metrics().membership_config.membership().nodes() {
            if other.peer_url == info.peer_url {
                return Err(AdminError::Exists(format!("the peer address {}", info.peer_url)));
            }
            if !info.name.is_empty() && other.name == info.name {
                return Err(AdminError::Exists(format!("the name {}", info.name)));
            }
        }
        let fresh = self.raft.write_blank().await?;
        let id = FIRST_ADDED + fresh.log_id.index;
        self.raft.add_learner(id, info.clone(), false).await?;
        tracing::info!(id, name = info.name, peer_url = info.peer_url, "added a member");
        Ok(member(id, &info, self.metrics().membership_config.membership()))
    }

    async fn promote(&self, id: MemberId) -> Result<(), AdminError> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&id).is_none() {
            return Err(AdminError::NotFound(id));
        }
        if membership.voter_ids().any(|voter| voter == id) {
            return Err(AdminError::Membership(format!("member {id} has a vote already")));
        }
        let lag = lag(&metrics, id);
        if lag.is_none_or(|lag| lag > CAUGHT_UP) {
            let lag = lag.map_or("an unknown number of".into(), |lag| lag.to_string());
            let reason = format!("learner {id} lags by {lag} entries; wait until it has caught up");
            return Err(AdminError::Membership(reason));
        }
        self.raft
            .change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), false)
            .await?;
        tracing::info!(id, "a learner has got its vote");
        Ok(())
    }

    async fn remove(&self, id: MemberId) -> Result<(), AdminError> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&id).is_none() {
            return Err(AdminError::NotFound(id));
        }
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        if !voters.contains(&id) {
            self.raft.change_membership(ChangeMembers::RemoveNodes([id].into()), false).await?;
            tracing::info!(id, "removed a learner");
            return Ok(());
        }
        let left: Vec<_> = voters.iter().copied().filter(|voter| *voter != id).collect();
        let answering = self.count_answering(&left).await;
        if answering <= left.len() / 2 {
            let reason = format!(
                "without member {id} there are {} voters, of which {answering} can be reached: \
                 that is no majority; bring one back first",
                left.len()
            );
            return Err(AdminError::Membership(reason));
        }
        if id == self.id {
            self.transfer(None).await?;
            return Err(AdminError::NotLeader);
        }
        self.raft.change_membership(ChangeMembers::RemoveVoters([id].into()), false).await?;
        tracing::info!(id, "removed a member");
        Ok(())
    }

    /// How many of these answer now, and mean to stay: one that has just died was heard a moment
    /// ago, and would not be missed before nothing can be written any more.
    async fn count_answering(&self, ids: &[MemberId]) -> usize {
        let metrics = self.metrics();
        let nodes = metrics.membership_config.membership().nodes();
        let asked = nodes.filter(|(id, _)| ids.contains(id)).map(|(id, info)| (*id, info.clone()));
        let asked: BTreeMap<_, _> = asked.collect();
        let deadline = Instant::now() + REACHABLE;
        loop {
            let states = ask(&self.peers, self.id, &asked).await;
            let there = states.iter().filter(|state| state.admitted && !state.ends).count();
            let answering = there + usize::from(ids.contains(&self.id) && !*self.ends.borrow());
            // A connection may have to be made anew.
            if answering > ids.len() / 2 || Instant::now() >= deadline {
                return answering;
            }
            tokio::time::sleep(REACHABLE / 20).await;
        }
    }

    fn reachable(&self, metrics: &RaftMetrics<TypeConfig>, id: MemberId) -> bool {
        let contact = || metrics.heartbeat.as_ref()?.get(&id).copied()?;
        id == self.id || contact().is_some_and(|at| at.elapsed() <= REACHABLE)
    }

    fn is_corrupt(&self, id: MemberId) -> bool {
        let corrupt = Alarm { member: id, kind: AlarmKind::Corrupt.into() };
        self.alarms.borrow().contains(&corrupt)
    }

    /// Hands leadership to `to`, or to the member that is furthest ahead.
    pub(crate) async fn transfer(&self, to: Option<MemberId>) -> Result<(), AdminError> {
        if to == Some(self.id) {
            return Ok(());
        }
        let metrics = self.metrics();
        let voters: BTreeSet<_> = metrics.membership_config.membership().voter_ids().collect();
        let target = match to {
            Some(to) if !voters.contains(&to) => return Err(AdminError::NotFound(to)),
            Some(to) if self.is_corrupt(to) => {
                let reason = format!("the data of member {to} is wrong; rebuild it first");
                return Err(AdminError::Membership(reason));
            }
            Some(to) => to,
            None => {
                let others = voters.into_iter().filter(|id| *id != self.id);
                let others = others.filter(|id| !self.is_corrupt(*id));
                let best = others.filter(|id| self.reachable(&metrics, *id)).max_by_key(|id| {
                    metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten())
                });
                let none = || AdminError::Unavailable("no other voter is reachable".into());
                best.ok_or_else(none)?
            }
        };
        // Until another master leads; those who want to write meanwhile wait for that.
        let pause = self.forwarded.pause().await;
        let mut metrics = self.raft.server_metrics();
        let trigger = self.raft.trigger().transfer_leader(target).await;
        trigger.map_err(|error| AdminError::Unavailable(error.to_string()))?;
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
        tokio::pin!(changed);
        if tokio::time::timeout(PAUSE, &mut changed).await.is_ok() {
            return Ok(());
        }
        // It does not go as it should: writes do not wait for it any longer.
        drop(pause);
        let late = |_| AdminError::Unavailable("no other master has taken over in time".into());
        tokio::time::timeout(HANDOVER, changed).await.map_err(late)
    }

    /// Finishes a change of the voters that was begun by a leader that is gone, or for a caller
    /// that has given up: until then a majority of the voters before is needed as well.
    pub(crate) async fn finish_change(&self) {
        let _changing = self.changing.lock().await;
        let joint = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_joint_config().len() > 1
        };
        if !joint {
            return;
        }
        let rest = ChangeMembers::AddVoterIds(BTreeSet::new());
        match self.raft.change_membership(rest, false).await {
            Ok(_) => tracing::info!("finished a change of the members that was abandoned"),
            Err(error) => tracing::debug!(%error, "a change of the members is not finished yet"),
        }
    }

    /// Gives learners that wait for it their vote once they have caught up, one at a time.
    pub(crate) async fn promote_ready(&self) {
        let _changing = self.changing.lock().await;
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let waiting = membership.nodes().filter(|(id, info)| info.promote && !voters.contains(id));
        for (id, _) in waiting {
            let caught_up = lag(&metrics, *id).is_some_and(|lag| lag <= CAUGHT_UP);
            if caught_up
                && self.reachable(&metrics, *id)
                && let Err(error) = self.promote(*id).await
            {
                tracing::warn!(id, ?error, "a learner has not got its vote yet");
            }
        }
    }
}

/// How many entries a member lags behind; `None` when nothing of the log is known to be on it.
fn lag(metrics: &RaftMetrics<TypeConfig>, id: MemberId) -> Option<u64> {
    let matched = metrics.replication.as_ref()?.get(&id).copied()??;
    Some(metrics.last_log_index?.saturating_sub(matched.index))
}
