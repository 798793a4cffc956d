//! [`Store`]: all that the rest of a master knows of its key-value store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::command::{
    Alarm, AlarmRequest, Command, CommandKind, CommandResult, LeaseRevokeRequest,
};
use crate::error::StoreError;
use crate::types::{
    HashKv, KeyRange, LeaseId, MemberId, RangeRequest, RangeResponse, Revision, Term, TxnRequest,
    TxnResponse,
};
use crate::watch::Watcher;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began (ReadIndex).
    #[default]
    Linearizable,
    /// Whatever this master has applied; needs no quorum and no network.
    Serializable,
}

/// One master, as the membership knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Never used twice.
    pub id: MemberId,
    /// For people.
    pub name: String,
    /// Where the other masters reach it.
    pub peer_url: String,
    /// Where clients reach it.
    pub client_url: String,
    /// Does it only learn, without a vote?
    pub learner: bool,
}

/// A member to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMember {
    /// For people; may be empty, then the member names itself when it joins.
    pub name: String,
    /// Where the other masters will reach it.
    pub peer_url: String,
    /// Where clients will reach it; may be empty, then the member says so when it joins.
    pub client_url: String,
    /// Shall it stay without a vote?
    pub learner: bool,
}

/// A [`Member`] with what the answering master knows of its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The member.
    pub member: Member,
    /// Last log index known to be on it. Only the leader knows; `None` elsewhere.
    pub matched_index: Option<u64>,
    /// Milliseconds since the leader last heard from it. Only the leader knows.
    pub last_contact_ms: Option<u64>,
}

/// What this master is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Has no vote.
    Learner,
}

/// Who leads, as this master sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The newest term this master knows.
    pub term: Term,
    /// The leader of that term, when known.
    pub leader: Option<Member>,
    /// `Some(term)` exactly while this master leads *and* has applied an entry of that term of
    /// its own: only then may leader work run.
    pub ready: Option<Term>,
}

/// A snapshot of a master's condition, for `status` and metrics. Needs no quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// This master.
    pub id: MemberId,
    /// The name that it was started with; the others know it by that when it is a member.
    pub name: String,
    /// Its role in the term of `leadership`.
    pub role: Role,
    /// Who leads.
    pub leadership: Leadership,
    /// All members, in order of id.
    pub members: Vec<MemberStatus>,
    /// Last index in the log.
    pub last_index: u64,
    /// Last index applied.
    pub applied_index: u64,
    /// Revision applied.
    pub revision: Revision,
    /// Revision up to which history is compacted.
    pub compact_revision: Revision,
    /// Milliseconds since the leader last confirmed a quorum. Only the leader knows.
    pub quorum_ack_ms: Option<u64>,
    /// Bytes on disk of state and log (0 for a store in memory).
    pub disk_bytes: u64,
    /// Bytes on disk of the state alone: what the size budget counts.
    pub state_bytes: u64,
    /// About how many of them hold data that is not deleted or compacted.
    pub state_bytes_in_use: u64,
    /// The size budget; 0 for none.
    pub budget_bytes: u64,
    /// The alarms that are on.
    pub alarms: Vec<Alarm>,
}

impl StoreStatus {
    /// Does this master know that it is a member? One that has just lost its disk, or that is to
    /// join, knows nothing of the members, and should not be believed when it names them.
    #[must_use]
    pub fn knows_itself(&self) -> bool {
        self.members.iter().any(|status| status.member.id == self.id)
    }
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// First revision wanted; 0 means "from now on" (strictly after the applied revision).
    pub start_revision: Revision,
    /// Fill in the previous records.
    pub prev_kv: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGranted {
    /// Its id.
    pub id: LeaseId,
    /// Its time to live in seconds; may be more than what was asked for.
    pub ttl_seconds: i64,
    /// The store's revision.
    pub revision: Revision,
}

/// What is known of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub id: LeaseId,
    /// The time to live that it was granted, in seconds.
    pub granted_ttl: i64,
    /// What is left of it, in whole seconds.
    pub ttl: i64,
    /// The keys attached to it, when asked for.
    pub keys: Vec<Bytes>,
}

/// A whole state on its way into a file: see [`crate::read_image`].
#[derive(Debug)]
pub struct Snapshot {
    /// The revision of the state.
    pub revision: Revision,
    /// About how many bytes will come.
    pub bytes: u64,
    /// The image in order. It is complete when the channel closes without an error.
    pub chunks: mpsc::Receiver<Result<Bytes, StoreError>>,
}

/// How a member answers the questions of others: see [`Store::ask_members`]. Called on an async
/// thread, so it only looks at memory.
pub type Answerer = Arc<dyn Fn(Bytes) -> Bytes + Send + Sync>;

/// The replicated store, or the one in memory.
///
/// Every method is safe to call from any task on any master: followers forward writes to the
/// leader. Every method gives up by itself after the store's request timeout.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads a range.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for revisions that cannot be
    /// read; [`StoreError::Unavailable`] when a linearizable read finds no quorum.
    async fn range(
        &self,
        request: RangeRequest,
        consistency: Consistency,
    ) -> Result<RangeResponse, StoreError>;

    /// Proposes a command and waits until it is applied here or its fate is known. The leader
    /// stamps `time_ms`. A refusal by `apply` comes back as the matching [`StoreError`].
    ///
    /// # Errors
    /// [`StoreError::OutcomeUnknown`] when the command may or may not take effect.
    async fn propose(&self, command: Command) -> Result<CommandResult, StoreError>;

    /// The revision that contains every write acknowledged before this call; it is applied here
    /// when the call returns. This is ReadIndex for readers of caches.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no quorum.
    async fn read_revision(&self) -> Result<Revision, StoreError>;

    /// Watches a range. The watcher pulls: one that does not read costs no memory.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history from `start_revision` is gone.
    fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError>;

    /// The newest revision applied here. Sent after the state is readable.
    fn applied(&self) -> watch::Receiver<Revision>;

    /// Who leads, and whether leader work may run here.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// The master's condition.
    fn status(&self) -> StoreStatus;

    /// Grants a lease. With id 0 the store chooses one. A time to live so short that a change of
    /// leader could eat it up is raised to the least that makes sense.
    ///
    /// # Errors
    /// [`StoreError::LeaseExists`], and as [`Store::propose`].
    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<LeaseGranted, StoreError>;

    /// Ends a lease; the keys attached to it are deleted at one revision. Returns the revision
    /// afterwards.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`], and as [`Store::propose`].
    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, StoreError> {
        let revoke = CommandKind::LeaseRevoke(LeaseRevokeRequest { id });
        Ok(self.propose(revoke.into()).await?.revision)
    }

    /// Gives a lease its full time again, and returns that in seconds; 0 when there is no such
    /// lease. Only the leader's memory changes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no leader with a quorum.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, StoreError>;

    /// What a lease has left, as the leader counts; `None` when there is no such lease.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no leader with a quorum.
    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<LeaseInfo>, StoreError>;

    /// All leases, in order of their ids.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no quorum.
    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError>;

    /// Forgets the history before `revision`. With `physical` it returns when this master has
    /// removed the superseded records, too.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`]; as [`Store::propose`].
    async fn compact(&self, revision: Revision, physical: bool) -> Result<Revision, StoreError>;

    /// Adds a member, as a learner at first; unless it is to stay one, it gets its vote by
    /// itself as soon as it has caught up, so that a member that never starts costs no quorum.
    ///
    /// # Errors
    /// [`StoreError::MemberExists`]; [`StoreError::Membership`] when another change is under way.
    async fn member_add(&self, member: NewMember) -> Result<Member, StoreError>;

    /// Gives a learner that has caught up its vote.
    ///
    /// # Errors
    /// [`StoreError::MemberNotFound`]; [`StoreError::Membership`] when it lags.
    async fn member_promote(&self, id: MemberId) -> Result<(), StoreError>;

    /// Removes a member for good: its id is never used again.
    ///
    /// # Errors
    /// [`StoreError::MemberNotFound`]; [`StoreError::Membership`] when the members that are left
    /// and reachable would have no quorum.
    async fn member_remove(&self, id: MemberId) -> Result<(), StoreError>;

    /// Hands leadership to `to`, or to the member that is furthest ahead. Returns when another
    /// master leads.
    ///
    /// # Errors
    /// [`StoreError::MemberNotFound`]; [`StoreError::Unavailable`] when nobody has taken over in
    /// time.
    async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), StoreError>;

    /// A hash of all that can be read or watched at `revision` (0: the present one). Reads the
    /// whole history.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`].
    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, StoreError>;

    /// A complete image of what this master has applied.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Gives the room of what is deleted and compacted back to the file system. Costs a lot of
    /// reading and writing, but stops nobody.
    ///
    /// # Errors
    /// When the storage fails.
    async fn defragment(&self) -> Result<(), StoreError>;

    /// Appends what the status does not say, in Prometheus' text format, under etcd's names where
    /// the meaning is the same.
    fn write_metrics(&self, text: &mut String);

    /// Asks every other member something that is in its memory only; nothing is replicated, and
    /// no quorum is needed. Returns the answers that came within `patience`. A store without other
    /// members has nobody to ask.
    async fn ask_members(&self, _question: Bytes, _patience: Duration) -> Vec<(MemberId, Bytes)> {
        Vec::new()
    }

    /// From now on this member answers the questions of others so.
    fn answer_members(&self, _answerer: Answerer) {}

    /// The alarms that are on.
    fn alarms(&self) -> watch::Receiver<Vec<Alarm>>;

    /// Switches an alarm on or off.
    ///
    /// # Errors
    /// As [`Store::propose`].
    async fn set_alarm(&self, alarm: Alarm, active: bool) -> Result<(), StoreError> {
        let request = CommandKind::Alarm(AlarmRequest { alarm, active });
        self.propose(request.into()).await.map(drop)
    }

    /// Runs a transaction without fence or request id.
    ///
    /// # Errors
    /// As [`Store::propose`].
    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        let result = self.propose(Command::from(request)).await?;
        result.txn.ok_or_else(|| StoreError::Internal("a transaction without an answer".into()))
    }
}

/// A store shared by the parts of a master.
pub type SharedStore = Arc<dyn Store>;
