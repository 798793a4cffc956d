//! openraft's outgoing calls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_proto::{never_sent, peer as pb};
use quorate_store::MemberId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Client, Peer, Peers};
use crate::codec::{self, Malformed};
use crate::state::{Digest, SnapshotData};
use crate::types::{MemberInfo, TypeConfig, Vote};

type RpcError = RPCError<TypeConfig>;
type Request = AppendEntriesRequest<TypeConfig>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Appends on their way to one member.
const PIPELINE: usize = 64;
/// A stream on which an answer takes longer than this is given up.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Chunks of a snapshot that wait to be sent.
const SNAPSHOT_CHUNKS: usize = 4;
/// From the first byte of a snapshot until it is installed.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes the clients that openraft's tasks use.
pub(crate) struct NetworkFactory {
    pub peers: Arc<Peers>,
    pub id: MemberId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Replication,
    Heartbeat,
}

impl NetworkFactory {
    fn network(&self, target: MemberId, node: &MemberInfo, purpose: Purpose) -> Network {
        Network {
            peer: self.peers.get(target, node),
            peers: Arc::clone(&self.peers),
            id: self.id,
            target,
            purpose,
            stream: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: MemberId, node: &MemberInfo) -> Network {
        self.network(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &MemberInfo) -> Network {
        self.network(target, node, Purpose::Heartbeat)
    }
}

/// Calls to one member.
pub(crate) struct Network {
    /// An address that does not parse stays an error.
    peer: Result<Arc<Peer>, Status>,
    peers: Arc<Peers>,
    id: MemberId,
    target: MemberId,
    purpose: Purpose,
    /// The open append stream. It outlives openraft's sessions: those come and go with every
    /// pause of the writers.
    stream: Option<AppendStream>,
}

struct AppendStream {
    requests: mpsc::Sender<pb::AppendRequest>,
    replies: Streaming<pb::AppendReply>,
}

fn rpc_error(status: &Status) -> RpcError {
    if never_sent(status).is_some() {
        return RPCError::Unreachable(Unreachable::from_string(status.message()));
    }
    RPCError::Network(NetworkError::from_string(status))
}

fn malformed(error: Malformed) -> RpcError {
    RPCError::Network(NetworkError::from_string(error))
}

impl Network {
    fn peer(&self) -> Result<&Arc<Peer>, RpcError> {
        self.peer.as_ref().map_err(rpc_error)
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        RPCError::Timeout(Timeout { action, id: self.id, target: self.target, timeout })
    }

    /// One urgent call, within the time openraft gives.
    async fn call<T, F>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, RpcError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let client = self.peer()?.urgent();
        let limit = option.soft_ttl();
        match tokio::time::timeout(limit, call(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(self.timeout(action, limit)),
        }
    }

    async fn heartbeat(
        &self,
        request: Request,
        option: &RPCOption,
    ) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        let request = codec::append_request_to(request);
        let reply = self
            .call(RPCTypes::AppendEntries, option, |mut client| async move {
                client.heartbeat(request).await
            })
            .await?;
        codec::append_reply_from(reply).map_err(malformed)
    }

    async fn open_stream(&self) -> Result<AppendStream, RpcError> {
        let mut client = self.peer()?.bulk();
        let (requests, outgoing) = mpsc::channel(PIPELINE);
        let open = client.append(ReceiverStream::new(outgoing));
        match tokio::time::timeout(APPEND_TIMEOUT, open).await {
            Ok(Ok(response)) => Ok(AppendStream { requests, replies: response.into_inner() }),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(self.timeout(RPCTypes::AppendEntries, APPEND_TIMEOUT)),
        }
    }
}

/// One of openraft's sessions on the append stream.
struct Session<'s, S> {
    network: &'s mut Network,
    input: S,
    /// Taken out of the network while answers are outstanding: a session that is dropped in the
    /// middle takes the stream with it, so that no answer reaches the wrong session.
    stream: Option<AppendStream>,
    outstanding: usize,
    exhausted: bool,
    failed: bool,
}

impl<S: Stream<Item = Request> + Unpin> Session<'_, S> {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RpcError>> {
        if self.failed {
            return None;
        }
        let step = self.step().await;
        // After anything but a match the other side ends the stream.
        match &step {
            Some(Ok(Ok(_))) => {}
            None => {
                if self.outstanding == 0 {
                    self.network.stream = self.stream.take();
                }
            }
            Some(_) => {
                self.failed = true;
                self.stream = None;
            }
        }
        step
    }

    async fn step(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RpcError>> {
        loop {
            if self.exhausted && self.outstanding == 0 {
                return None;
            }
            let stream = self.stream.as_mut()?;
            tokio::select! {
                biased;
                reply = tokio::time::timeout(APPEND_TIMEOUT, stream.replies.message()),
                    if self.outstanding > 0 =>
                {
                    self.outstanding -= 1;
                    return Some(match reply {
                        Ok(Ok(Some(reply))) => codec::append_reply_from(reply).map_err(malformed),
                        Ok(Ok(None)) => {
                            Err(rpc_error(&Status::unavailable("the append stream has ended")))
                        }
                        Ok(Err(status)) => Err(rpc_error(&status)),
                        Err(_) => {
                            Err(self.network.timeout(RPCTypes::AppendEntries, APPEND_TIMEOUT))
                        }
                    });
                }
                request = self.input.next(), if !self.exhausted && self.outstanding < PIPELINE => {
                    let Some(request) = request else {
                        self.exhausted = true;
                        continue;
                    };
                    let request = codec::append_request_to(request);
                    if stream.requests.send(request).await.is_err() {
                        let status = Status::unavailable("the append stream has ended");
                        return Some(Err(rpc_error(&status)));
                    }
                    self.outstanding += 1;
                }
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: Request,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        self.heartbeat(request, &option).await.map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose == Purpose::Heartbeat {
                let network = &*self;
                let replies = async_heartbeats(network, input, option);
                return Ok(Box::pin(replies) as BoxStream<'s, _>);
            }
            let mut first = None;
            let stream = match self.stream.take() {
                Some(stream) => stream,
                None => {
                    // Nothing is connected before there is something to send.
                    first = input.next().await;
                    self.open_stream().await?
                }
            };
            let input = futures::stream::iter(first).chain(input);
            let session = Session {
                network: self,
                input,
                stream: Some(stream),
                outstanding: 0,
                exhausted: false,
                failed: false,
            };
            let replies = futures::stream::unfold(session, |mut session| async move {
                let reply = session.next().await?;
                Some((reply, session))
            });
            Ok(Box::pin(replies) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut request = codec::vote_request_to(&request);
        request.leadership_transfer |=
            request.vote.is_some_and(|vote| self.peers.ignores_lease(vote.term));
        let reply = self
            .call(RPCTypes::Vote, &option, |mut client| async move { client.vote(request).await })
            .await?;
        codec::vote_reply_from(reply).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let request = codec::vote_request_to(&request);
        let reply =
            self.call(RPCTypes::Vote, &option, |mut client| async move {
                client.pre_vote(request).await
            })
            .await?;
        codec::vote_reply_from(reply).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let client = self.peer().map_err(StreamingError::from)?.separate();
        let sending = tokio::time::timeout(SNAPSHOT_TIMEOUT, send_snapshot(client, vote, snapshot));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => match sent {
                Ok(Ok(reply)) => {
                    let vote = codec::vote_from(reply.vote).map_err(malformed)?;
                    Ok(SnapshotResponse::new(vote))
                }
                Ok(Err(status)) => Err(rpc_error(&status).into()),
                Err(_) => Err(self.timeout(RPCTypes::InstallSnapshot, SNAPSHOT_TIMEOUT).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        use openraft::raft::TransferLeaderError as E;
        let expected_last = request.last_log_id().copied();
        let expected_vote = *request.from_leader();
        let message = pb::TransferRequest {
            from: Some(codec::vote_to(&expected_vote)),
            to: *request.to_node_id(),
            last: expected_last.map(codec::log_id_to),
        };
        let reply = self
            .call(RPCTypes::TransferLeader, &option, |mut client| async move {
                client.transfer_leader(message).await
            })
            .await?;
        if reply.refusal.is_empty() {
            return Ok(Ok(()));
        }
        Ok(Err(if reply.vote_changed {
            let actual = codec::vote_from(reply.actual_vote).map_err(malformed)?;
            E::VoteChanged { expected: expected_vote, actual }
        } else {
            let actual = reply.actual_last.map(codec::log_id_from);
            E::LogNotFlushed { expected: expected_last, actual }
        }))
    }
}

/// Heartbeats one after the other, each a call of its own on the urgent connection.
fn async_heartbeats<'s, S>(
    network: &'s Network,
    input: S,
    option: RPCOption,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RpcError>> + 's
where
    S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
{
    input.then(move |request| {
        let option = option.clone();
        async move { network.heartbeat(request, &option).await }
    })
}

async fn send_snapshot(
    mut client: Client,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<pb::SnapshotReply, Status> {
    use pb::snapshot_chunk::Part;
    let (chunks, outgoing) = mpsc::channel(SNAPSHOT_CHUNKS);
    let header = pb::SnapshotHeader {
        vote: Some(codec::vote_to(&vote)),
        last: snapshot.meta.last_log_id.map(codec::log_id_to),
        membership: Some(codec::stored_membership_to(&snapshot.meta.last_membership)),
    };
    // Reads the checkpoint; ends with it, or when the call is given up. Its failure closes the
    // stream without a trailer, which the receiver refuses.
    let reading = tokio::task::spawn_blocking(move || {
        let send = |part| chunks.blocking_send(pb::SnapshotChunk { part: Some(part) }).is_ok();
        if !send(Part::Header(header)) {
            return Ok(());
        }
        let digest = snapshot.snapshot.send(|data| send(Part::Data(data.into())))?;
        if let Some(Digest { records, checksum }) = digest {
            send(Part::Trailer(pb::SnapshotTrailer { records, checksum }));
        }
        Ok::<_, std::io::Error>(())
    });
    let reply = client.install_snapshot(ReceiverStream::new(outgoing)).await;
    match reading.await {
        Ok(Ok(())) => Ok(reply?.into_inner()),
        Ok(Err(error)) => Err(Status::internal(format!("cannot read the snapshot: {error}"))),
        Err(error) => Err(Status::internal(format!("cannot read the snapshot: {error}"))),
    }
}
