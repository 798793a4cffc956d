//! Notices at once when the leader's process is gone, instead of waiting for silence.
//!
//! A killed process resets its connections, and its port refuses new ones. That is proof enough
//! to ask for votes in spite of the leader's lease: safety never rests on leases here, and a
//! wrong guess costs one election. Silence alone (a partition, a paused process) is left to the
//! election timeout. A process that is there again already gives itself away by its number.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use quorate_proto::peer as pb;
use quorate_store::MemberId;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Peer, Peers};
use crate::state::State;
use crate::types::{Raft, Vote};

/// Pauses between two attempts to watch a leader that is there but does not serve: the first, which
/// a process that is just ending needs to close its port after its connections, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_millis(100);
/// How long the other followers get to say how far their logs go.
const ASK_TIMEOUT: Duration = Duration::from_millis(60);
/// Head start of a follower with a better claim, per such follower.
const DEFER: Duration = Duration::from_millis(80);
/// After this time an election that has brought forth no leader has failed: it takes some 10 ms on
/// a quiet machine. Two followers whose logs still grew when they asked each other may both have
/// stood, and the election timeout would let half a second go by. Each round lasts twice as long
/// as the one before: disks may be slow.
const ROUND: Duration = Duration::from_millis(200);
/// So often a follower stands before it leaves things to the election timeout.
const ROUNDS: u32 = 3;
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after all rounds.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The task that watches whoever leads.
pub(crate) struct LeaderWatch {
    pub raft: Raft,
    pub peers: Arc<Peers>,
    pub state: Arc<State>,
    pub id: MemberId,
}

impl LeaderWatch {
    /// Runs until `cancel`.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (vote, leader) = {
                let metrics = metrics.borrow_and_update();
                (metrics.vote, metrics.current_leader)
            };
            let watching = async {
                match leader {
                    Some(leader) if leader != self.id => self.watch(vote, leader).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                // It is gone and we have done our part: look again if nobody leads after all.
                () = watching => tokio::select! {
                    () = cancel.cancelled() => return,
                    led = led_anew(&mut metrics, vote, leader) => if !led { return },
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                },
                led = led_anew(&mut metrics, vote, leader) => if !led { return },
            }
        }
    }

    fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        let metrics = self.raft.server_metrics();
        let info = metrics.borrow_watched().membership_config.membership().get_node(&id)?.clone();
        self.peers.get(id, &info).ok()
    }

    /// Returns when the leader's process is gone and this master has done its part.
    async fn watch(&self, vote: Vote, leader: MemberId) {
        let Some(peer) = self.peer(leader) else { return std::future::pending().await };
        let mut watched = None;
        let mut pause = FIRST_RETRY;
        loop {
            let mut gone = false;
            if let Ok(alive) = peer.urgent().alive(pb::AliveRequest {}).await {
                let mut alive = alive.into_inner();
                // Ends with the connection or with the leader's orderly shutdown.
                while let Ok(Some(pb::AliveReply { process })) = alive.message().await {
                    // It was quick to come back, but it does not lead any more.
                    gone = *watched.get_or_insert(process) != process;
                    if gone {
                        break;
                    }
                    pause = FIRST_RETRY;
                }
            }
            if gone || process_gone(&peer).await {
                tracing::info!(leader, "the leader's process is gone");
                self.stand(vote, leader).await;
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    /// Stands for election, unless another follower has a better claim and uses it; and again, until
    /// somebody leads.
    async fn stand(&self, before: Vote, gone: MemberId) {
        let mut metrics = self.raft.server_metrics();
        let mut vote = before;
        for round in 0..ROUNDS {
            if self.state.corrupt.load(Relaxed) {
                return;
            }
            let Some(better) = self.better_claims(gone).await else { return };
            tokio::time::sleep(DEFER * better).await;
            if metrics.borrow_watched().vote == vote {
                self.peers.leader_gone(vote.leader_id.term);
                if let Err(error) = self.raft.trigger().elect(false).await {
                    tracing::warn!(%error, "cannot stand for election");
                    return;
                }
            }
            let led = led_anew(&mut metrics, before, Some(gone));
            if tokio::time::timeout(ROUND * (1 << round), led).await.is_ok() {
                return;
            }
            vote = metrics.borrow_watched().vote;
        }
    }

    /// How many other voters have a longer log, or the same and a smaller id; `None` when raft has
    /// ended.
    async fn better_claims(&self, leader: MemberId) -> Option<u32> {
        let voters: Vec<_> = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().voter_ids().collect()
        };
        let others = voters.into_iter().filter(|id| *id != self.id && *id != leader);
        let asked = others.map(|id| async move {
            let peer = self.peer(id)?;
            let mut client = peer.urgent();
            let reply = tokio::time::timeout(ASK_TIMEOUT, client.state(pb::StateRequest {})).await;
            let state = reply.ok()?.ok()?.into_inner();
            Some((state.last.map(crate::codec::log_id_from), id))
        });
        let claims = futures::future::join_all(asked).await;
        // Read after theirs: what the leader had sent before its end may only just arrive, and two
        // followers that both compare an old end with a new one both give way.
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await.ok()?;
        let better = claims
            .into_iter()
            .flatten()
            .filter(|(theirs, id)| *theirs > last || (*theirs == last && *id < self.id));
        Some(u32::try_from(better.count()).unwrap_or(1))
    }
}

/// Waits until somebody leads, and not as `leader` did by `vote`; false when raft has ended.
async fn led_anew(
    metrics: &mut openraft::type_config::alias::WatchReceiverOf<
        crate::types::TypeConfig,
        openraft::metrics::RaftServerMetrics<crate::types::TypeConfig>,
    >,
    vote: Vote,
    leader: Option<MemberId>,
) -> bool {
    loop {
        {
            let now = metrics.borrow_and_update();
            if now.current_leader.is_some() && (now.vote, now.current_leader) != (vote, leader) {
                return true;
            }
        }
        if metrics.changed().await.is_err() {
            return false;
        }
    }
}

/// Does nobody listen at the peer's port? A time-out is no proof.
async fn process_gone(peer: &Peer) -> bool {
    let Some(authority) = peer.authority() else { return false };
    match tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(authority)).await {
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}
