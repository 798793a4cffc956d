//! `quorate.v1.Nodes`: sessions of agents, and streams with pods through them.

mod assignments;
mod feeds;
mod registration;
mod session;
mod status;
pub(crate) mod streams;
mod table;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use quorate_proto::v1;
use quorate_proto::v1::nodes_server::Nodes;
use quorate_proto::v1::output::Data;
use quorate_proto::v1::stream_request::Kind;
use quorate_registry::Registry;
use quorate_registry::metrics::NodeUsage;
use quorate_store::SharedStore;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use feeds::Feeds;
use table::Table;

use crate::auth::{Attributes, Auth, User};
use crate::limits::{Effect, within};
use crate::objects::{caller, require};

/// Thousands of nodes that come at once are written one after the other, nearly: each write
/// then takes no longer than it may.
const REGISTRATIONS: usize = 64;

/// Sessions that hear what their node holds, and tell it the rest, at the same time when a master
/// begins to lead. Each takes a processor for a millisecond: were thousands ready to run at once,
/// everything else would wait behind them: Raft's heartbeats until others want to lead, for whom it
/// would be the same; the next pod that is to be bound; and what nodes say, until it is too late.
const TURNS: usize = 16;

/// What every session needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub registry: Registry,
    pub auth: Arc<Auth>,
    pub store: SharedStore,
    pub cluster_id: Arc<str>,
    pub heartbeat_interval: Duration,
    pub table: Arc<Table>,
    pub feeds: Arc<Feeds>,
    /// Nodes being written at the same time.
    pub registrations: Arc<Semaphore>,
    /// Sessions whose turn it is.
    pub turns: Arc<Semaphore>,
    pub cancel: CancellationToken,
}

impl Shared {
    /// May the caller open such a stream with a pod?
    fn require_pod(
        &self,
        caller: Option<&User>,
        namespace: &str,
        pod: &str,
        kind: &Kind,
    ) -> Result<(), Status> {
        let (verb, subresource) = match kind {
            Kind::Logs(_) => ("get", "log"),
            Kind::Exec(_) => ("create", "exec"),
            Kind::Attach(_) => ("create", "attach"),
            Kind::PortForward(_) => ("create", "portforward"),
        };
        let wanted = Attributes {
            verb: verb.into(),
            resource: "pods".into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: pod.into(),
            ..Attributes::default()
        };
        require(&self.auth, caller, &wanted)
    }
}

pub(crate) struct NodesService {
    /// Also for others who open streams with pods.
    pub(crate) shared: Shared,
}

impl NodesService {
    pub(crate) fn new(
        registry: Registry,
        auth: Arc<Auth>,
        store: SharedStore,
        cluster_id: String,
        heartbeat_interval: Duration,
        cancel: CancellationToken,
    ) -> Self {
        let (table, cluster_id) = (Arc::default(), cluster_id.into());
        let feeds = Feeds::start(registry.clone(), cancel.clone());
        let registrations = Arc::new(Semaphore::new(REGISTRATIONS));
        let shared = Shared {
            registry,
            auth,
            store,
            cluster_id,
            heartbeat_interval,
            table,
            feeds,
            registrations,
            turns: Arc::new(Semaphore::new(TURNS)),
            cancel,
        };
        Self { shared }
    }

    /// For others who open streams with pods.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }
}

#[tonic::async_trait]
impl Nodes for NodesService {
    type SessionStream = BoxStream<'static, Result<v1::MasterMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller(&request);
        session::open(self.shared.clone(), caller, request.into_inner()).await.map(Response::new)
    }

    type StreamStream = BoxStream<'static, Result<v1::Input, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let caller = caller(&request);
        streams::join(&self.shared, caller, request.into_inner()).await.map(Response::new)
    }

    type LogsStream = BoxStream<'static, Result<v1::LogChunk, Status>>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let caller = caller(&request);
        let v1::LogsRequest { namespace, pod, options } = request.into_inner();
        let all = || v1::LogOptions { tail_lines: -1, ..Default::default() };
        let kind = Kind::Logs(options.unwrap_or_else(all));
        self.shared.require_pod(caller.as_deref(), &namespace, &pod, &kind)?;
        let stream = streams::open(&self.shared, &namespace, &pod, kind).await?;
        let chunks = futures::stream::unfold(stream, |mut stream| async move {
            let chunk = stream.output.next().await?.map(|data| match data {
                Data::Stdout(data) | Data::Stderr(data) => v1::LogChunk { data },
                Data::Exit(_) => v1::LogChunk::default(),
            });
            Some((chunk, stream))
        });
        Ok(Response::new(chunks.boxed()))
    }

    type ExecStream = BoxStream<'static, Result<v1::Output, Status>>;

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let caller = caller(&request);
        streams::serve(&self.shared, caller, request.into_inner()).await.map(Response::new)
    }

    type AttachStream = BoxStream<'static, Result<v1::Output, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = caller(&request);
        streams::serve(&self.shared, caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let wanted = Attributes {
            verb: "list".into(),
            group: "metrics.k8s.io".into(),
            resource: "pods".into(),
            ..Attributes::default()
        };
        require(&self.shared.auth, caller(&request).as_deref(), &wanted)?;
        let all = self.shared.registry.metrics().all();
        let node = |(name, usage): (String, Arc<NodeUsage>)| v1::NodeUsage {
            name,
            report: Some(crate::convert::usage_report(&usage)),
        };
        let nodes = all.into_iter().map(node).collect();
        Ok(Response::new(v1::GetUsageResponse { nodes }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let work = tokens::create(&self.shared, caller.as_deref(), r);
        within(&metadata, Effect::Read, work).await.map(Response::new)
    }

    type PortForwardStream = BoxStream<'static, Result<v1::Output, Status>>;

    async fn port_forward(
        &self,
        request: Request<Streaming<v1::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        let caller = caller(&request);
        streams::serve(&self.shared, caller, request.into_inner()).await.map(Response::new)
    }
}
