//! The peer service: incoming calls of the other masters.

use std::fs::File;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use quorate_proto::peer as pb;
use quorate_proto::peer::peer_server::{Peer, PeerServer as Service};
use quorate_proto::{MASTERS, Subject, Tls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::{CLUSTER_HEADER, MAX_MESSAGE};
use crate::ask::Answers;
use crate::codec;
use crate::forward::Forwarded;
use crate::leases::Leases;
use crate::members::{self, Members};
use crate::reads::ReadIndex;
use crate::state::{Digest, ReceivedFile, SnapshotData, State, snapshot_meta};
use crate::types::{Raft, TypeConfig};

/// How long a call waits for the end of a lease that is just being revoked.
const LEASE_TIMEOUT: Duration = Duration::from_secs(5);

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the calls need.
#[derive(Clone)]
pub(crate) struct Handlers {
    pub raft: Raft,
    pub state: Arc<State>,
    pub forwarded: Arc<Forwarded>,
    pub reads: ReadIndex,
    pub leases: Leases,
    pub members: Members,
    pub answers: Answers,
    /// See `AliveReply`.
    pub process: u64,
    /// Does this master take part yet? See [`crate::admission`].
    pub admitted: watch::Receiver<bool>,
    /// Has this master been told to end?
    pub ends: watch::Receiver<bool>,
    /// Was it started to join a cluster that exists?
    pub joins: bool,
    pub cancel: CancellationToken,
}

/// The service on its port.
pub(crate) struct PeerServer;

impl PeerServer {
    /// Serves until `handlers.cancel`.
    pub(crate) async fn run(
        handlers: Handlers,
        cluster_id: String,
        tls: Option<Tls>,
        listener: TcpListener,
    ) -> Result<(), tonic::transport::Error> {
        let cancel = handlers.cancel.clone();
        let service = Service::new(handlers)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        });
        let mut server = tonic::transport::Server::builder();
        let secure = tls.is_some();
        if let Some(tls) = tls {
            server = server.tls_config(tls.server())?;
        }
        server
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .http2_keepalive_interval(Some(super::KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(super::KEEPALIVE_TIMEOUT))
            .add_service(InterceptedService::new(service, move |request: Request<()>| {
                if secure {
                    check_master(&request)?;
                }
                check_cluster(&cluster_id, request)
            }))
            .serve_with_incoming_shutdown(incoming, cancel.cancelled_owned())
            .await
    }
}

/// Only masters are peers: agents and users have certificates of the same authority, and whoever
/// gets in here can write anything.
fn check_master(request: &Request<()>) -> Result<(), Status> {
    let certificates = request.peer_certs().unwrap_or_default();
    let subject = certificates.first().and_then(|certificate| Subject::of(certificate));
    if subject.as_ref().is_some_and(Subject::is_master) {
        return Ok(());
    }
    let name = subject.map(|subject| subject.common_name).unwrap_or_default();
    Err(Status::permission_denied(format!(
        "{name:?} is no master: its certificate must have the organisation {MASTERS}"
    )))
}

fn check_cluster(ours: &str, request: Request<()>) -> Result<Request<()>, Status> {
    let theirs = request.metadata().get(CLUSTER_HEADER).and_then(|value| value.to_str().ok());
    if theirs == Some(ours) {
        return Ok(request);
    }
    Err(Status::failed_precondition(format!(
        "this master belongs to cluster {ours:?}, the caller to {:?}",
        theirs.unwrap_or("none")
    )))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped: {error}"))
}

#[tonic::async_trait]
impl Peer for Handlers {
    type AppendStream = BoxStream<pb::AppendReply>;
    type AliveStream = BoxStream<pb::AliveReply>;
    type ImageStream = BoxStream<pb::ImageChunk>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.admitted()?;
        let requests = request.into_inner().scan((), |(), request| {
            std::future::ready(match request {
                Ok(request) => match codec::append_request_from(request) {
                    Ok(request) => Some(request),
                    Err(error) => {
                        tracing::error!(%error, "refusing an append");
                        None
                    }
                },
                Err(status) => {
                    tracing::debug!(%status, "append stream has ended");
                    None
                }
            })
        });
        let replies = self.raft.stream_append(requests).map(|result| match result {
            Ok(result) => Ok(codec::append_reply_to(result)),
            Err(error) => Err(stopped(error)),
        });
        Ok(Response::new(Box::pin(replies.take_until(self.cancel.clone().cancelled_owned()))))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        self.admitted()?;
        use openraft::raft::{AppendEntriesResponse as R, StreamAppendError as E};
        let request = codec::append_request_from(request.into_inner())?;
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        let result = match response {
            R::Success => Ok(last),
            R::PartialSuccess(matched) => Ok(matched),
            R::Conflict => match previous {
                Some(previous) => Err(E::Conflict(previous)),
                None => return Err(Status::internal("a conflict before the first entry")),
            },
            R::HigherVote(vote) => Err(E::HigherVote(vote)),
        };
        Ok(Response::new(codec::append_reply_to(result)))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.admitted()?;
        let request = codec::vote_request_from(request.into_inner())?;
        let response = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(codec::vote_reply_to(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.admitted()?;
        let request = codec::vote_request_from(request.into_inner())?;
        let response = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(codec::vote_reply_to(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferReply>, Status> {
        self.admitted()?;
        use openraft::raft::{TransferLeaderError as E, TransferLeaderRequest};
        let request = request.into_inner();
        // The others hear of it too: they may vote for the successor at once.
        if request.to == self.members.id && self.state.corrupt.load(Relaxed) {
            return Err(Status::failed_precondition("this member's data is wrong"));
        }
        let from = codec::vote_from(request.from)?;
        let last = request.last.map(codec::log_id_from);
        let request = TransferLeaderRequest::<TypeConfig>::new(from, request.to, last);
        let reply = match self.raft.handle_transfer_leader(request).await.map_err(stopped)? {
            Ok(()) => pb::TransferReply::default(),
            Err(error) => {
                let mut reply =
                    pb::TransferReply { refusal: error.to_string(), ..Default::default() };
                match error {
                    E::VoteChanged { actual, .. } => {
                        reply.vote_changed = true;
                        reply.actual_vote = Some(codec::vote_to(&actual));
                    }
                    E::LogNotFlushed { actual, .. } => {
                        reply.actual_last = actual.map(codec::log_id_to);
                    }
                }
                reply
            }
        };
        Ok(Response::new(reply))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        self.admitted()?;
        let (vote, snapshot) = self.receive_snapshot(request.into_inner()).await?;
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotReply { vote: Some(codec::vote_to(&response.vote)) }))
    }

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardReply>, Status> {
        Ok(Response::new(self.forwarded.handle(request.into_inner()).await))
    }

    async fn read_index(
        &self,
        _request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        let index = self.reads.leader_index().await.map_err(Status::unavailable)?;
        Ok(Response::new(pb::ReadIndexReply { index }))
    }

    async fn lease(
        &self,
        request: Request<pb::LeaseRequest>,
    ) -> Result<Response<pb::LeaseReply>, Status> {
        let answer = self.leases.handle(request.into_inner());
        match tokio::time::timeout(LEASE_TIMEOUT, answer).await {
            Ok(answer) => answer.map(Response::new),
            Err(_) => Err(Status::unavailable("the lease is just being revoked")),
        }
    }

    async fn admin(
        &self,
        request: Request<pb::AdminRequest>,
    ) -> Result<Response<pb::AdminReply>, Status> {
        let change = request.into_inner().change;
        let change = change.ok_or_else(|| Status::invalid_argument("an unknown change"))?;
        Ok(Response::new(members::encode(self.members.change(change).await)))
    }

    async fn state(
        &self,
        _request: Request<pb::StateRequest>,
    ) -> Result<Response<pb::StateReply>, Status> {
        let (vote, last) = self
            .raft
            .with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied()))
            .await
            .map_err(stopped)?;
        let broken = |error| Status::internal(format!("cannot read the state: {error}"));
        let instances = self.state.machine.instances().map_err(broken)?.into_iter();
        let (revision, content) = self.state.machine.content();
        Ok(Response::new(pb::StateReply {
            member: *self.raft.node_id(),
            vote: Some(codec::vote_to(&vote)),
            last: last.map(codec::log_id_to),
            initialized: self.raft.is_initialized().await.map_err(stopped)?,
            instances: instances
                .map(|(member, instance)| pb::Instance { member, instance })
                .collect(),
            membership: Some(codec::membership_to(&self.state.membership())),
            membership_index: self.state.membership_index(),
            admitted: *self.admitted.borrow(),
            ends: *self.ends.borrow(),
            joins: self.joins,
            revision,
            content,
        }))
    }

    async fn image(
        &self,
        _request: Request<pb::ImageRequest>,
    ) -> Result<Response<Self::ImageStream>, Status> {
        let snapshot = self
            .state
            .image()
            .await
            .map_err(|error| Status::internal(format!("cannot read the state: {error}")))?;
        let chunks = ReceiverStream::new(snapshot.chunks).map(|chunk| match chunk {
            Ok(data) => Ok(pb::ImageChunk { data }),
            Err(error) => Err(Status::internal(error.to_string())),
        });
        Ok(Response::new(Box::pin(chunks.take_until(self.cancel.clone().cancelled_owned()))))
    }

    async fn alive(
        &self,
        _request: Request<pb::AliveRequest>,
    ) -> Result<Response<Self::AliveStream>, Status> {
        // After the first item only its end says something.
        let first = futures::stream::iter([Ok(pb::AliveReply { process: self.process })]);
        let silence = first.chain(futures::stream::pending());
        Ok(Response::new(Box::pin(silence.take_until(self.cancel.clone().cancelled_owned()))))
    }

    async fn ask(
        &self,
        request: Request<pb::AskRequest>,
    ) -> Result<Response<pb::AskReply>, Status> {
        self.answers.handle(request.into_inner()).map(Response::new)
    }
}

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

impl Handlers {
    fn admitted(&self) -> Result<(), Status> {
        if *self.admitted.borrow() {
            return Ok(());
        }
        Err(Status::unavailable("this master does not know yet whether it has lost its data"))
    }

    /// Stores the stream in a file; nothing of the state is touched before it is complete.
    async fn receive_snapshot(
        &self,
        mut chunks: Streaming<pb::SnapshotChunk>,
    ) -> Result<(crate::types::Vote, Snapshot), Status> {
        use pb::snapshot_chunk::Part;
        let cut = || Status::invalid_argument("the snapshot stream was cut");
        let header = match chunks.message().await?.and_then(|chunk| chunk.part) {
            Some(Part::Header(header)) => header,
            _ => return Err(cut()),
        };
        let vote = codec::vote_from(header.vote)?;
        let meta = snapshot_meta(header)?;
        let received = ReceivedFile { path: self.state.snapshots.temporary("receiving") };
        let disk = |error| Status::internal(format!("cannot store the snapshot: {error}"));
        let mut file = File::create(&received.path).map_err(disk)?;
        let mut digest = Digest::new();
        let trailer = loop {
            match chunks.message().await?.and_then(|chunk| chunk.part) {
                Some(Part::Data(data)) => {
                    digest.update(&data);
                    // At most half a megabyte into the page cache.
                    file.write_all(&data).map_err(disk)?;
                }
                Some(Part::Trailer(trailer)) => break trailer,
                Some(Part::Header(_)) | None => return Err(cut()),
            }
        };
        if trailer.checksum != digest.checksum {
            return Err(Status::data_loss("the snapshot's checksum is wrong"));
        }
        Ok((vote, Snapshot { meta, snapshot: SnapshotData::Received(received) }))
    }
}
