//! [`Server`]: one port, all services.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::future::BoxFuture;
use quorate_proto::v1;
use quorate_proto::v1::cluster_server::ClusterServer;
use quorate_proto::v1::nodes_server::NodesServer;
use quorate_proto::v1::objects_server::ObjectsServer;
use quorate_proto::v1::scheduler_server::SchedulerServer;
use quorate_proto::{FILE_DESCRIPTOR_SET, Tls};
use quorate_registry::{Registry, RegistryError};
use quorate_store::SharedStore;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Layer as _;

use crate::auth::Auth;
use crate::cluster::ClusterService;
use crate::connections;
use crate::etcd::{self, Etcd, EtcdOptions};
use crate::gate::{GateLayer, Metrics};
use crate::limits::{MAX_REQUEST_BYTES, MAX_SESSIONS};
use crate::nodes::NodesService;
use crate::objects::ObjectsService;
use crate::prometheus;
use crate::rest::Rest;
use crate::scheduler::SchedulerService;

const SYNC_POLL: Duration = Duration::from_secs(1);
/// What health can be asked about, beside "" for the whole server.
const SERVICES: &[&str] =
    &["", "quorate.v1.Objects", "quorate.v1.Nodes", "quorate.v1.Cluster", "quorate.v1.Scheduler"];

/// Says why the pod of this namespace and name is where it is.
pub type Explain = Arc<
    dyn Fn(String, String) -> BoxFuture<'static, Result<v1::ExplainResponse, RegistryError>>
        + Send
        + Sync,
>;

/// Settings of a [`Server`].
pub struct ApiOptions {
    /// Already bound, so that a taken port is reported before anything else starts.
    pub listen: TcpListener,
    /// `None`: plain HTTP, on loopback addresses only.
    pub tls: Option<Tls>,
    /// Version of the binary.
    pub version: String,
    /// Agents of another cluster are refused.
    pub cluster_id: String,
    /// How `Scheduler.Explain` does it, while this master leads.
    pub explain: Option<Explain>,
    /// How often agents are to send heartbeats.
    pub heartbeat_interval: Duration,
    /// Every client of the etcd API is a cluster admin; has no effect with TLS.
    pub etcd_admin: bool,
}

impl ApiOptions {
    /// Plain HTTP and the usual settings.
    #[must_use]
    pub fn new(listen: TcpListener, cluster_id: impl Into<String>) -> Self {
        Self {
            listen,
            tls: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: cluster_id.into(),
            explain: None,
            heartbeat_interval: Duration::from_millis(500),
            etcd_admin: false,
        }
    }
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Plain HTTP where others can listen.
    #[error("{0} is no loopback address: plain HTTP is for loopback only, use certificates")]
    PlainText(std::net::SocketAddr),
    /// The listener is broken.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// The certificates cannot be used.
    #[error("cannot speak TLS: {0}")]
    Certificates(String),
    /// The descriptors of our own services are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The users of the etcd API cannot be read.
    #[error("the users of the etcd API cannot be read: {0}")]
    Etcd(String),
}

/// Everything that reaches a master over the network.
pub struct Server {
    registry: Registry,
    store: SharedStore,
    options: ApiOptions,
    metrics: Arc<Metrics>,
}

impl Server {
    /// A server that does not listen yet.
    #[must_use]
    pub fn new(registry: Registry, store: SharedStore, options: ApiOptions) -> Self {
        Self { registry, store, options, metrics: Arc::default() }
    }

    /// The counters of requests.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves until `cancel`, then lets calls end that are being carried out.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), ApiError> {
        let address = self.options.listen.local_addr()?;
        if self.options.tls.is_none() && !address.ip().is_loopback() {
            return Err(ApiError::PlainText(address));
        }
        let tls = self.options.tls.as_ref().map(connections::acceptor).transpose()?;
        let reporter = HealthReporter::new();
        let auth = Arc::new(Auth::new(self.registry.clone()));
        let nodes = self.nodes(&auth, &cancel);
        let rest = Arc::new(self.rest(&nodes, &auth, &cancel));
        let routes = self.routes(nodes, &reporter, &auth, &cancel).await?.into_axum_router();
        let routes = prometheus::route(routes, Arc::clone(&self.store), self.metrics());
        let routes =
            routes.fallback(move |request: Request<Body>| Arc::clone(&rest).serve(request));
        let health = report_health(&reporter, &self.registry, &cancel);
        let service = GateLayer { metrics: Arc::clone(&self.metrics), auth }.layer(routes);
        // Itself, not a copy: when it is dropped nobody may listen any more, or clients that come
        // then wait for a master that is going away.
        self.options.listen.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(self.options.listen)?;
        tracing::info!(%address, tls = tls.is_some(), "API is served");
        let serve = connections::serve(listener, tls, service, cancel.clone());
        tokio::select! {
            () = Box::pin(serve) => Ok(()),
            never = Box::pin(health) => match never {},
        }
    }

    fn nodes(&self, auth: &Arc<Auth>, cancel: &CancellationToken) -> NodesService {
        NodesService::new(
            self.registry.clone(),
            Arc::clone(auth),
            Arc::clone(&self.store),
            self.options.cluster_id.clone(),
            self.options.heartbeat_interval,
            cancel.clone(),
        )
    }

    fn rest(&self, nodes: &NodesService, auth: &Arc<Auth>, cancel: &CancellationToken) -> Rest {
        Rest {
            auth: Arc::clone(auth),
            registry: self.registry.clone(),
            store: Arc::clone(&self.store),
            version: self.options.version.clone(),
            nodes: nodes.shared(),
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            cancel: cancel.clone(),
        }
    }

    async fn routes(
        &self,
        nodes: NodesService,
        reporter: &HealthReporter,
        auth: &Arc<Auth>,
        cancel: &CancellationToken,
    ) -> Result<Routes, ApiError> {
        let health = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let objects = ObjectsService {
            registry: self.registry.clone(),
            auth: Arc::clone(auth),
            cancel: cancel.clone(),
        };
        let cluster = ClusterService {
            registry: self.registry.clone(),
            store: Arc::clone(&self.store),
            cluster_id: self.options.cluster_id.clone(),
            version: self.options.version.clone(),
        };
        let scheduler = SchedulerServer::new(SchedulerService {
            store: Arc::clone(&self.store),
            explain: self.options.explain.clone(),
        });
        let mut routes = Routes::builder();
        routes
            .add_service(ObjectsServer::new(objects).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(NodesServer::new(nodes).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(ClusterServer::new(cluster).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(scheduler.max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(tonic_health::pb::health_server::HealthServer::new(health))
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        self.etcd(auth, cancel).await?.register(&mut routes);
        Ok(routes.routes())
    }

    async fn etcd(&self, auth: &Arc<Auth>, cancel: &CancellationToken) -> Result<Etcd, ApiError> {
        let options = EtcdOptions {
            auth: self.options.tls.is_some().then(|| Arc::clone(auth)),
            all_admins: self.options.etcd_admin,
            ..EtcdOptions::new(&self.options.cluster_id, &self.options.version)
        };
        let started = Etcd::start(Arc::clone(&self.store), options, cancel.clone()).await;
        started.map_err(|status| ApiError::Etcd(status.message().to_owned()))
    }
}

/// SERVING from the moment that the caches have been read: without a quorum a master still
/// answers stale reads, so that is no reason to be taken out of service.
async fn report_health(
    reporter: &HealthReporter,
    registry: &Registry,
    cancel: &CancellationToken,
) -> std::convert::Infallible {
    set_all(reporter, ServingStatus::NotServing).await;
    let synced = async { while registry.wait_synced(SYNC_POLL).await.is_err() {} };
    tokio::select! {
        () = synced => set_all(reporter, ServingStatus::Serving).await,
        () = cancel.cancelled() => {}
    }
    cancel.cancelled().await;
    set_all(reporter, ServingStatus::NotServing).await;
    std::future::pending().await
}

async fn set_all(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES.iter().chain(etcd::SERVICES) {
        reporter.set_service_status(*service, status).await;
    }
}
