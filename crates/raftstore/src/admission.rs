//! A master with an empty directory: is it new, or has it lost its disk?
//!
//! A member that has lost its disk has forgotten its votes and entries that it acknowledged; if
//! it took part again under its old id, a term could get two leaders, and acknowledged writes
//! could be lost. So every member registers, in the replicated state, a number that it chose
//! when its directory was new. A master with an empty directory neither votes nor takes entries
//! before it has heard from enough others that no data of its id has ever registered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use quorate_proto::peer as pb;
use quorate_store::{Command, CommandKind, MemberId, RegisterRequest, Store as _, StoreError};
use tokio::time::Instant;

use crate::codec::membership_from;
use crate::error::RaftStoreError;
use crate::peer::{Client, Peers};
use crate::store::RaftStore;
use crate::types::MemberInfo;

/// Pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(20);
/// The same once it takes long.
const LONG_PAUSE: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the first master, when there is no cluster yet, waits for a majority that votes: a first
/// election without voters would only cost an election timeout.
pub(crate) const FORM_WAIT: Duration = Duration::from_secs(3);
/// How long a master that is to join looks for somebody who knows it, once somebody answers.
const JOIN_WAIT: Duration = Duration::from_secs(30);
/// How often a member that does not lead asks whether it still is one.
const REMOVED_CHECK: Duration = Duration::from_secs(3);

/// What the others say of a master with an empty directory.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Too few have answered to be sure.
    Open,
    /// No member has ever registered: there is no cluster yet.
    NoCluster,
    /// The cluster exists, and this member is new in it.
    New,
    /// The cluster exists, and this member has been part of it.
    Lost,
    /// The cluster exists, and this master does not belong to it.
    Stranger,
}

/// What one other master has answered.
struct Answer {
    instances: Vec<pb::Instance>,
    /// The ids of the voters, and of all members.
    voters: Vec<MemberId>,
    members: Vec<MemberId>,
    /// Does it vote?
    admitted: bool,
    /// Was it started to join a cluster that exists?
    joins: bool,
}

impl Answer {
    fn new(reply: pb::StateReply) -> Self {
        let membership = membership_from(reply.membership.unwrap_or_default()).unwrap_or_default();
        Self {
            admitted: reply.admitted,
            joins: reply.joins,
            instances: reply.instances,
            voters: membership.voter_ids().collect(),
            members: membership.nodes().map(|(id, _)| *id).collect(),
        }
    }
}

/// Judges by the answers; `members` is the size of the first membership, and `exists` says that
/// there is a cluster, whether or not somebody of it answers.
fn judge(id: MemberId, members: usize, exists: bool, answers: &[Answer]) -> Verdict {
    // Whoever registers knows a leader, so its log holds a vote at least.
    if answers.iter().flat_map(|answer| &answer.instances).any(|known| known.member == id) {
        return Verdict::Lost;
    }
    // The newest membership that somebody has applied, as far as one can tell.
    let formed: Vec<_> = answers.iter().filter(|answer| !answer.instances.is_empty()).collect();
    if formed.is_empty() {
        // New masters that are about to join know nothing either, except that there is one.
        let none = !exists && answers.iter().all(|answer| !answer.joins);
        let majority = (answers.len() + 1) * 2 > members;
        return if none && majority { Verdict::NoCluster } else { Verdict::Open };
    }
    // A registration is on a quorum; enough answers see at least one member of every quorum,
    // even if this member itself belonged to it.
    let voters = formed.iter().map(|answer| answer.voters.len()).max().unwrap_or(members);
    let others = formed.iter().flat_map(|a| &a.voters).any(|voter| *voter == id);
    let quorum = voters / 2 + 1;
    let needed = if others { voters - quorum + 1 } else { quorum };
    if answers.len() < needed.min(voters.saturating_sub(1)).max(1) {
        return Verdict::Open;
    }
    match formed.iter().any(|answer| answer.members.contains(&id)) {
        true => Verdict::New,
        false => Verdict::Stranger,
    }
}

/// What these members, all but `id`, say of themselves; who does not answer in time is left out.
pub(crate) async fn ask(
    peers: &Peers,
    id: MemberId,
    nodes: &BTreeMap<MemberId, MemberInfo>,
) -> Vec<pb::StateReply> {
    let others = nodes.iter().map(|(other, info)| (*other, info)).filter(|(other, _)| *other != id);
    let ask = |mut client: Client| async move { client.state(pb::StateRequest {}).await };
    let replies = peers.ask_all(others, ASK_TIMEOUT, ask).await;
    replies.into_iter().map(|(_, reply)| reply).collect()
}

/// The id under which the members know a master that is to join them.
///
/// # Errors
/// When nobody of those who answer knows it in time.
pub(crate) async fn find_id(
    peers: &Peers,
    name: &str,
    nodes: &BTreeMap<MemberId, MemberInfo>,
) -> Result<MemberId, RaftStoreError> {
    let own = nodes.values().find(|info| info.name == name);
    let own_url = own.map(|info| info.peer_url.clone()).unwrap_or_default();
    let (mut deadline, mut told) = (None, false);
    loop {
        let replies = ask(peers, 0, nodes).await;
        let (heard, now) = (!replies.is_empty(), Instant::now());
        if let Some(id) = own_id(name, &own_url, replies) {
            return Ok(id);
        }
        // While nobody answers, nobody has said that it is no member.
        if heard && now >= *deadline.get_or_insert(now + JOIN_WAIT) {
            return Err(RaftStoreError::NotMember { name: name.into() });
        }
        if !heard && !told {
            told = true;
            tracing::warn!("no member of the cluster answers yet; this master waits to join it");
        }
        tokio::time::sleep(LONG_PAUSE).await;
    }
}

/// The id of the member with this name. One that was added without a name, as etcd's clients do it,
/// is known by its address; one with another name is whoever had the address before, of whom a
/// master that lags has not heard yet that it was removed.
fn own_id(name: &str, own_url: &str, mut replies: Vec<pb::StateReply>) -> Option<MemberId> {
    replies.sort_by_key(|reply| std::cmp::Reverse(reply.membership_index));
    let memberships = replies.into_iter().filter_map(|reply| reply.membership);
    let members: Vec<_> = memberships.flat_map(|membership| membership.members).collect();
    let named = members.iter().find(|member| member.name == name);
    let unnamed = |member: &&pb::Member| member.name.is_empty() && member.peer_url == own_url;
    named.or_else(|| members.iter().find(unnamed)).map(|member| member.id)
}

/// The task "admission" of a master with an empty directory: lets it take part once that is
/// safe, and forms the cluster if there is none and this is its first member.
pub(crate) async fn admit(store: Arc<RaftStore>, nodes: BTreeMap<MemberId, MemberInfo>) {
    let begin = Instant::now();
    let first = nodes.first_key_value().is_some_and(|(id, _)| *id == store.id);
    let name = nodes.get(&store.id).map(|info| info.name.clone()).unwrap_or_default();
    let mut told = false;
    loop {
        let replies = ask(&store.peers, store.id, &nodes).await;
        let answers: Vec<_> = replies.into_iter().map(Answer::new).collect();
        let late = begin.elapsed() >= FORM_WAIT;
        match judge(store.id, nodes.len(), store.joins, &answers) {
            Verdict::NoCluster if first && !late && !majority_votes(&answers, nodes.len()) => {}
            Verdict::NoCluster => return form(&store, first.then_some(nodes)).await,
            Verdict::New => {
                tracing::info!("joining the cluster as a new member");
                store.admitted.send_replace(true);
                return;
            }
            Verdict::Lost => {
                return store.fatal.signal(RaftStoreError::LostData { name }.to_string());
            }
            Verdict::Stranger => {
                return store.fatal.signal(RaftStoreError::NotMember { name }.to_string());
            }
            Verdict::Open if late && !told => {
                told = true;
                tracing::warn!(
                    answers = answers.len(),
                    "this master has no data; it waits for more of the others, to make sure that \
                     it has not lost any"
                );
            }
            Verdict::Open => {}
        }
        tokio::time::sleep(if late { LONG_PAUSE } else { PAUSE }).await;
    }
}

fn majority_votes(answers: &[Answer], members: usize) -> bool {
    (answers.iter().filter(|answer| answer.admitted).count() + 1) * 2 > members
}

async fn form(store: &RaftStore, nodes: Option<BTreeMap<MemberId, MemberInfo>>) {
    store.admitted.send_replace(true);
    let Some(nodes) = nodes else { return };
    match store.raft.initialize(nodes).await {
        Ok(()) => tracing::info!("formed the cluster"),
        Err(error) => tracing::warn!(%error, "did not form the cluster"),
    }
}

/// The task "registration": registers this member's data, once per process, which also finds
/// out whether the directory was exchanged behind our back.
pub(crate) async fn register(store: Arc<RaftStore>, name: String) {
    let request = RegisterRequest { member: store.id, instance: store.instance };
    loop {
        let mut leadership = store.leadership.subscribe();
        // The sender lives in the store.
        let _ = leadership.wait_for(|leadership| leadership.leader.is_some()).await;
        match store.propose(Command::from(CommandKind::Register(request))).await {
            Ok(_) => return,
            Err(StoreError::Membership(_)) => {
                return store.fatal.signal(RaftStoreError::LostData { name }.to_string());
            }
            Err(error) => tracing::debug!(%error, "not registered yet"),
        }
        tokio::time::sleep(LONG_PAUSE).await;
    }
}

/// The task "removal": a member to which nobody sends anything any more would never learn why, so
/// it asks from time to time whether it was removed.
pub(crate) async fn notice_removal(store: Arc<RaftStore>, name: String) {
    let mut missed = 0;
    loop {
        tokio::time::sleep(REMOVED_CHECK).await;
        if store.raft.is_leader() {
            continue;
        }
        let nodes: BTreeMap<_, _> = {
            let metrics = store.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.nodes().map(|(id, info)| (*id, info.clone())).collect()
        };
        let applied = store.state.membership_index();
        let replies = ask(&store.peers, store.id, &nodes).await;
        let newer = replies.into_iter().filter(|reply| reply.membership_index >= applied);
        let answers: Vec<_> = newer.map(Answer::new).collect();
        let without =
            |answer: &&Answer| !answer.members.is_empty() && !answer.members.contains(&store.id);
        // A majority, twice: one that lags may not have applied yet that this member was added.
        let removed = answers.iter().filter(without).count();
        let voters = answers.iter().map(|answer| answer.voters.len()).max().unwrap_or(0);
        missed = if removed > 0 && removed * 2 > voters { missed + 1 } else { 0 };
        if missed == 2 {
            return store.fatal.signal(RaftStoreError::Removed { name }.to_string());
        }
    }
}

#[cfg(test)]
#[path = "admission_test.rs"]
mod tests;
