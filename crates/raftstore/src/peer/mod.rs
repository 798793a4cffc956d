//! Transport between masters, on a port of its own.
//!
//! Two connections per peer: one for replication, which may carry megabytes, and one for
//! everything small and urgent (heartbeats, votes, forwarded writes, read indexes). Snapshots
//! open a third one while they run. So no heartbeat or vote waits behind bulk data.

mod detect;
mod network;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use quorate_proto::Tls;
use quorate_proto::peer::peer_client::PeerClient;
use quorate_store::MemberId;
use tokio::runtime::Handle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::error::RaftStoreError;
use crate::types::MemberInfo;
pub(crate) use detect::LeaderWatch;
pub(crate) use network::NetworkFactory;
pub(crate) use server::{Handlers, PeerServer};

pub(crate) const CLUSTER_HEADER: &str = "quorate-cluster";
pub(crate) const MEMBER_HEADER: &str = "quorate-member";
/// Largest message taken: a group of entries is cut at about 1 MiB, one entry at 1.5 MiB.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection that is silent for this long is probed...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// ...and given up after this long without an answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Client = PeerClient<InterceptedService<Channel, Identify>>;

/// Puts who we are on every call.
#[derive(Clone, Debug)]
pub(crate) struct Identify {
    cluster: MetadataValue<Ascii>,
    /// 0 while this master does not know its id yet.
    member: Arc<AtomicU64>,
}

impl Interceptor for Identify {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER_HEADER, self.cluster.clone());
        let member = MetadataValue::from(self.member.load(Ordering::Relaxed));
        request.metadata_mut().insert(MEMBER_HEADER, member);
        Ok(request)
    }
}

/// The connections to one member. They connect when they are used, and again when they broke.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    url: String,
    endpoint: Endpoint,
    identify: Identify,
    bulk: Channel,
    urgent: Channel,
}

impl Peer {
    fn client(&self, channel: Channel) -> Client {
        PeerClient::with_interceptor(channel, self.identify.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// For replication.
    pub(crate) fn bulk(&self) -> Client {
        self.client(self.bulk.clone())
    }

    /// For everything small.
    pub(crate) fn urgent(&self) -> Client {
        self.client(self.urgent.clone())
    }

    /// A new connection, for a snapshot.
    pub(crate) fn separate(&self) -> Client {
        self.client(self.endpoint.connect_lazy())
    }

    /// `host:port`, for a bare TCP connection.
    pub(crate) fn authority(&self) -> Option<String> {
        let uri = self.endpoint.uri();
        Some(format!("{}:{}", uri.host()?, uri.port_u16()?))
    }
}

/// All members we talk to.
#[derive(Debug)]
pub(crate) struct Peers {
    identify: Identify,
    tls: Option<Tls>,
    /// Where the connections live, whoever is the first to use them.
    runtime: Handle,
    peers: Mutex<HashMap<MemberId, Arc<Peer>>>,
    /// The term of a leader whose process is gone; 0 for none.
    gone_term: AtomicU64,
}

impl Peers {
    /// The leader of this term is gone: votes for the next term need not respect its lease.
    pub(crate) fn leader_gone(&self, term: u64) {
        self.gone_term.fetch_max(term, Ordering::Relaxed);
    }

    /// May an election for this term ignore the lease of the leader before?
    pub(crate) fn ignores_lease(&self, term: u64) -> bool {
        let gone = self.gone_term.load(Ordering::Relaxed);
        gone != 0 && term == gone + 1
    }

    /// Within the runtime that is to carry the connections.
    pub(crate) fn new(cluster_id: &str, tls: Option<Tls>) -> Result<Arc<Self>, RaftStoreError> {
        let cluster = MetadataValue::try_from(cluster_id).map_err(|_| {
            RaftStoreError::Options(format!("cluster id {cluster_id:?} has unusual characters"))
        })?;
        let identify = Identify { cluster, member: Arc::default() };
        Ok(Arc::new(Self {
            identify,
            tls,
            runtime: Handle::current(),
            peers: Mutex::new(HashMap::new()),
            gone_term: AtomicU64::new(0),
        }))
    }

    /// This master knows its id.
    pub(crate) fn introduce(&self, id: MemberId) {
        self.identify.member.store(id, Ordering::Relaxed);
    }

    /// The connections to a member; new ones when its address has changed.
    pub(crate) fn get(&self, id: MemberId, info: &MemberInfo) -> Result<Arc<Peer>, Status> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(&id)
            && peer.url == info.peer_url
        {
            return Ok(Arc::clone(peer));
        }
        let peer = Arc::new(self.create(id, &info.peer_url)?);
        peers.insert(id, Arc::clone(&peer));
        Ok(peer)
    }

    /// Asks all of these members at once. Who has no answer within `patience` is left out.
    pub(crate) async fn ask_all<'a, T, F>(
        &self,
        members: impl IntoIterator<Item = (MemberId, &'a MemberInfo)>,
        patience: Duration,
        ask: impl Fn(Client) -> F,
    ) -> Vec<(MemberId, T)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = members.into_iter().map(|(id, info)| {
            let answer = self.get(id, info).map(|peer| ask(peer.urgent()));
            async move {
                let reply = tokio::time::timeout(patience, answer.ok()?).await.ok()?;
                let known = reply.inspect_err(|status| {
                    tracing::debug!(member = id, %status, "a question has no answer");
                });
                Some((id, known.ok()?.into_inner()))
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn create(&self, id: MemberId, url: &str) -> Result<Peer, Status> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| Status::invalid_argument(format!("peer address {url:?}: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        if let Some(tls) = &self.tls {
            endpoint = endpoint
                .tls_config(tls.client())
                .map_err(|error| Status::invalid_argument(format!("TLS for {url:?}: {error}")))?;
        }
        let _carrier = self.runtime.enter();
        Ok(Peer {
            id,
            url: url.to_owned(),
            identify: self.identify.clone(),
            bulk: endpoint.connect_lazy(),
            urgent: endpoint.connect_lazy(),
            endpoint,
        })
    }
}
