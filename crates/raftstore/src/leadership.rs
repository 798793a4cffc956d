//! Who leads, and whether leader work may run here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use quorate_store::{Leadership, Member, MemberId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::state::{Applied, State};
use crate::types::{MemberInfo, Membership, Raft, ServerMetrics};

pub(crate) fn member(id: MemberId, info: &MemberInfo, membership: &Membership) -> Member {
    Member {
        id,
        name: info.name.clone(),
        peer_url: info.peer_url.clone(),
        client_url: info.client_url.clone(),
        learner: !membership.voter_ids().any(|voter| voter == id),
    }
}

/// Pauses before a request looks for a leader again, when nothing else wakes it: the first, and the
/// longest. A new leader takes nothing before a quorum has answered it for the first time; that
/// takes a moment, and its followers hear no news of it.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What one request does to find a leader that takes it.
pub(crate) struct Search {
    leadership: watch::Receiver<Leadership>,
    pub deadline: Instant,
    pause: Duration,
}

impl Search {
    pub(crate) fn new(leadership: watch::Receiver<Leadership>, limit: Duration) -> Self {
        Self { leadership, deadline: Instant::now() + limit, pause: FIRST_PAUSE }
    }

    /// Waits until the leadership changes, or a moment, which is longer each time; false once the
    /// deadline has passed.
    pub(crate) async fn again(&mut self) -> bool {
        let pause = self.deadline.min(Instant::now() + self.pause);
        self.pause = match tokio::time::timeout_at(pause, self.leadership.changed()).await {
            // Whoever leads now is as new as the news.
            Ok(_) => FIRST_PAUSE,
            Err(_) => (self.pause * 2).min(LONGEST_PAUSE),
        };
        Instant::now() < self.deadline
    }
}

/// Resolves when this master knows that somebody else than `leader` leads. Who waits for an answer of
/// `leader` may wait for a host that is cut off, of which nothing comes any more.
pub(crate) async fn replaced(raft: &Raft, leader: MemberId) {
    let mut metrics = raft.server_metrics();
    loop {
        let current = metrics.borrow_and_update().current_leader;
        if current.is_some_and(|current| current != leader) {
            return;
        }
        if metrics.changed().await.is_err() {
            // Raft has ended: what is waited for has a time-out of its own.
            return std::future::pending().await;
        }
    }
}

/// Publishes [`Leadership`] until `cancel`.
pub(crate) struct LeadershipTask {
    pub raft: Raft,
    pub state: Arc<State>,
    pub sender: Arc<watch::Sender<Leadership>>,
    /// A leader that no quorum has confirmed for this long does not count as ready: openraft
    /// keeps such a leader in office (it only refuses writes).
    pub quorum_patience: Duration,
}

impl LeadershipTask {
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut metrics = self.raft.server_metrics();
        let mut applied = self.state.applied();
        let mut seen = None;
        let mut tick = tokio::time::interval(self.quorum_patience / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let server = metrics.borrow_and_update().clone();
            let current = self.current(&server, *applied.borrow_and_update());
            let ready = current.ready;
            let leader = current.leader.as_ref().map(|leader| leader.id);
            if leader.is_some() && leader != seen {
                seen = leader;
                self.state.metrics.leader_changes.fetch_add(1, Relaxed);
            }
            self.state.machine.lessor().lead(ready);
            self.sender.send_if_modified(|published| {
                if *published == current {
                    return false;
                }
                tracing::info!(
                    term = current.term,
                    leader = current.leader.as_ref().map(|leader| leader.name.as_str()),
                    ready = current.ready.is_some(),
                    "leadership"
                );
                *published = current;
                true
            });
            // Not `Raft::is_leader`: that reads the metrics as a whole, which come after this news.
            // A leader that believed them would sleep until the next election, never ready.
            let leads = server.state == ServerState::Leader;
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
                // Applied entries matter only between the election and the first own entry.
                _ = applied.changed(), if leads && ready.is_none() => {}
                _ = tick.tick(), if leads => {}
            }
        }
    }

    /// `server` is the news that woke the task: the metrics as a whole are published after it, and
    /// reading the leader from those would at times miss the last change, for good on a follower.
    fn current(&self, server: &ServerMetrics, applied: Applied) -> Leadership {
        let membership = server.membership_config.membership();
        let term = server.vote.leader_id.term;
        let leader = server
            .current_leader
            .and_then(|id| Some(member(id, membership.get_node(&id)?, membership)));
        let leads = server.state == ServerState::Leader && server.current_leader == Some(server.id);
        // The only voter is its own quorum: openraft counts no acknowledgements for it.
        let alone = membership.voter_ids().all(|voter| voter == server.id);
        let ready = (leads && applied.term == term && (alone || self.in_office())).then_some(term);
        Leadership { term, leader, ready }
    }

    /// Has a quorum confirmed this leader of late? Looked at again with each tick.
    fn in_office(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.last_quorum_acked;
        metrics.running_state.is_ok()
            && acked.is_none_or(|acked| acked.elapsed() <= self.quorum_patience)
    }
}

#[cfg(test)]
#[path = "leadership_test.rs"]
mod tests;
