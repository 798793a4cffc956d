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
use crate::types::{LogId, Raft, Vote};

/// Pause between two attempts to watch a leader that is there but does not serve.
const RETRY: Duration = Duration::from_millis(100);
/// How long the other followers get to say how far their logs go.
const ASK_TIMEOUT: Duration = Duration::from_millis(60);
/// Head start of a follower with a better claim, per such follower.
const DEFER: Duration = Duration::from_millis(80);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

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
                () = watching => {}
                // Only the leader matters, and metrics change for other reasons too.
                changed = leader_changed(&mut metrics, vote, leader) => {
                    if !changed {
                        return;
                    }
                    continue;
                }
            }
            // It is gone and we have reacted: wait until something else leads.
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = leader_changed(&mut metrics, vote, leader) => if !changed { return },
                // The attempt may have failed: look again.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
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
                }
            }
            if gone || process_gone(&peer).await {
                tracing::info!(leader, "the leader's process is gone");
                self.stand(vote, leader).await;
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Stands for election, unless another follower has a better claim and uses it.
    async fn stand(&self, vote: Vote, leader: MemberId) {
        if self.state.corrupt.load(Relaxed) {
            return;
        }
        let Ok(last) = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await
        else {
            return;
        };
        let better = self.better_claims(leader, last).await;
        if better > 0 {
            tokio::time::sleep(DEFER * better).await;
        }
        if self.raft.server_metrics().borrow_watched().vote != vote {
            return;
        }
        self.peers.leader_gone(vote.leader_id.term);
        if let Err(error) = self.raft.trigger().elect(false).await {
            tracing::warn!(%error, "cannot stand for election");
        }
    }

    /// How many other voters have a longer log, or the same and a smaller id.
    async fn better_claims(&self, leader: MemberId, last: Option<LogId>) -> u32 {
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
        let better = claims
            .into_iter()
            .flatten()
            .filter(|(theirs, id)| *theirs > last || (*theirs == last && *id < self.id));
        u32::try_from(better.count()).unwrap_or(1)
    }
}

async fn leader_changed(
    metrics: &mut openraft::type_config::alias::WatchReceiverOf<
        crate::types::TypeConfig,
        openraft::metrics::RaftServerMetrics<crate::types::TypeConfig>,
    >,
    vote: Vote,
    leader: Option<MemberId>,
) -> bool {
    loop {
        if metrics.changed().await.is_err() {
            return false;
        }
        let metrics = metrics.borrow_watched();
        if metrics.vote != vote || metrics.current_leader != leader {
            return true;
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
