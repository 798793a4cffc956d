//! [`Store`]: all that the rest of a master knows of its key-value store.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::StoreError;
use crate::types::{
    Command, CommandResult, KeyRange, MemberId, RangeRequest, RangeResponse, Revision, Term,
    TxnRequest, TxnResponse,
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
    /// Its role.
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
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// First revision wanted; 0 means "from now on" (strictly after the applied revision).
    pub start_revision: Revision,
    /// Fill in the previous records.
    pub prev_kv: bool,
}

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
