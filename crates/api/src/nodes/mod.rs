//! `quorate.v1.Nodes`: sessions of agents, and logs through them.

mod assignments;
mod logs;
mod registration;
mod session;
mod status;
mod table;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use quorate_proto::v1;
use quorate_proto::v1::nodes_server::Nodes;
use quorate_registry::Registry;
use quorate_store::SharedStore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use table::Table;

/// What every session needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub registry: Registry,
    pub store: SharedStore,
    pub cluster_id: Arc<str>,
    pub heartbeat_interval: Duration,
    pub table: Arc<Table>,
    pub cancel: CancellationToken,
}

pub(crate) struct NodesService {
    shared: Shared,
}

impl NodesService {
    pub(crate) fn new(
        registry: Registry,
        store: SharedStore,
        cluster_id: String,
        heartbeat_interval: Duration,
        cancel: CancellationToken,
    ) -> Self {
        let table = Arc::default();
        let cluster_id = cluster_id.into();
        Self { shared: Shared { registry, store, cluster_id, heartbeat_interval, table, cancel } }
    }
}

#[tonic::async_trait]
impl Nodes for NodesService {
    type SessionStream = BoxStream<'static, Result<v1::MasterMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        session::open(self.shared.clone(), request.into_inner()).await.map(Response::new)
    }

    type LogsStream = BoxStream<'static, Result<v1::LogChunk, Status>>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        logs::open(&self.shared, request.into_inner()).await.map(Response::new)
    }
}
