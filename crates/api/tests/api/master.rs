//! A master without Raft, and helpers of all tests.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use quorate_api::{ApiOptions, Server};
use quorate_client::{Client, ClientOptions};
use quorate_registry::{Registry, RegistryOptions};
use quorate_store::{MemoryStore, SharedStore};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const CLUSTER: &str = "test-cluster";
/// Nothing here takes longer unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Master {
    pub store: Arc<MemoryStore>,
    pub registry: Registry,
    pub address: SocketAddr,
    cancel: CancellationToken,
    server: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Master {
    pub async fn start() -> Self {
        Self::on(MemoryStore::new()).await
    }

    /// Another master's face of the same store.
    pub async fn on(store: Arc<MemoryStore>) -> Self {
        let cancel = CancellationToken::new();
        let options = RegistryOptions {
            bookmark_interval: Duration::from_millis(300),
            ..RegistryOptions::default()
        };
        let shared: SharedStore = store.clone();
        let registry = Registry::start(shared, options, cancel.clone());
        registry.wait_synced(PATIENCE).await.unwrap();
        registry.ensure_system_objects(None).await.unwrap();
        let address = free_address();
        let mut master = Self { store, registry, address, cancel, server: None };
        master.start_server();
        master
    }

    fn serve(&mut self, listener: TcpListener) {
        let cancel = self.cancel.child_token();
        let options = ApiOptions::new(listener, CLUSTER);
        let server = Server::new(self.registry.clone(), self.store.clone(), options);
        let run = server.run(cancel.clone());
        self.server = Some((cancel, tokio::spawn(async move { run.await.unwrap() })));
    }

    pub async fn stop_server(&mut self) {
        if let Some((cancel, task)) = self.server.take() {
            cancel.cancel();
            task.await.unwrap();
        }
    }

    /// Tells the server to end, and returns what ends with it.
    pub fn end_server(&mut self) -> JoinHandle<()> {
        let (cancel, task) = self.server.take().unwrap();
        cancel.cancel();
        task
    }

    pub fn start_server(&mut self) {
        self.serve(TcpListener::bind(self.address).unwrap());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn client(&self) -> Client {
        Client::new(vec![self.url()], ClientOptions::default()).unwrap()
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Where nothing listens yet. Held until the process ends, so that nobody else is given it.
pub fn free_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Fails the test instead of hanging it.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "data": {"key": value},
    })
}

pub fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "web:1"}],
        },
    })
}
