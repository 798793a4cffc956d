//! Messages between simulated masters.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_store::MemberId;

use super::storage::Image;
use super::{Life, Raft, Simulated, Vote, World};
use crate::types::MemberInfo;

type RpcError = RPCError<Simulated>;
type Snapshot = openraft::type_config::alias::SnapshotOf<Simulated, Image>;

/// Microseconds that a message takes.
const LATENCY: std::ops::Range<u64> = 50..1_500;

/// How long an image may take.
const SNAPSHOT: Duration = Duration::from_secs(2);

/// The wires of one life of one master.
#[derive(Clone)]
pub(super) struct SimulatedNetwork {
    pub world: Arc<World>,
    pub from: MemberId,
    pub life: u64,
}

/// One of the wires.
pub(super) struct Wire {
    network: SimulatedNetwork,
    to: MemberId,
}

impl RaftNetworkFactory<Simulated> for SimulatedNetwork {
    type Network = Wire;

    async fn new_client(&mut self, to: MemberId, _: &MemberInfo) -> Wire {
        Wire { network: self.clone(), to }
    }
}

impl Wire {
    /// Carries a message one way. Does it arrive?
    async fn carry(&self, from: MemberId, to: MemberId) -> bool {
        let world = &self.network.world;
        tokio::time::sleep(world.delay(LATENCY)).await;
        let loss = *world.loss.lock();
        !world.cut.lock().contains(&(from, to)) && !world.chance(loss)
    }

    fn silence(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        let (id, target) = (self.network.from, self.to);
        RPCError::Timeout(Timeout { action, id, target, timeout })
    }

    /// Asks, and waits for the answer as long as a real call would.
    async fn call<T, E: std::error::Error + 'static>(
        &self,
        action: RPCTypes,
        patience: Duration,
        ask: impl AsyncFnOnce(Raft) -> Result<T, E>,
    ) -> Result<T, RpcError> {
        let (world, from, to) = (&self.network.world, self.network.from, self.to);
        let exchange = async {
            let sent = world.is_alive(from, self.network.life) && self.carry(from, to).await;
            if !sent {
                return std::future::pending().await;
            }
            let Some(Life { number, raft, .. }) = world.alive(to) else {
                // Its port refuses.
                let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                return Err(RPCError::Unreachable(Unreachable::new(&refused)));
            };
            let answer = ask(raft).await;
            let heard = world.is_alive(to, number)
                && self.carry(to, from).await
                && world.is_alive(from, self.network.life);
            if !heard {
                return std::future::pending().await;
            }
            answer.map_err(|error| RPCError::Network(NetworkError::from_string(error)))
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silence(action, patience)),
        }
    }
}

impl RaftNetworkV2<Simulated> for Wire {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Simulated>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Simulated>, RpcError> {
        self.call(RPCTypes::AppendEntries, option.soft_ttl(), async move |raft: Raft| {
            raft.append_entries(request).await
        })
        .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Simulated>,
        option: RPCOption,
    ) -> Result<VoteResponse<Simulated>, RpcError> {
        self.call(RPCTypes::Vote, option.soft_ttl(), async move |raft: Raft| {
            raft.vote(request).await
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Simulated>,
        option: RPCOption,
    ) -> Result<VoteResponse<Simulated>, RpcError> {
        self.call(RPCTypes::Vote, option.soft_ttl(), async move |raft: Raft| {
            raft.pre_vote(request).await
        })
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Simulated>, StreamingError<Simulated>> {
        // A real connection that carries nothing breaks long before openraft gives up.
        let patience = option.soft_ttl().min(SNAPSHOT);
        let sent = self.call(RPCTypes::InstallSnapshot, patience, async move |raft: Raft| {
            raft.install_full_snapshot(vote, snapshot).await
        });
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Simulated>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Simulated>, RpcError> {
        self.call(RPCTypes::TransferLeader, option.soft_ttl(), async move |raft: Raft| {
            raft.handle_transfer_leader(request).await
        })
        .await
    }
}
