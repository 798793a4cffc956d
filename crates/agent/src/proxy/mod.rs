//! Services: connections to a service's cluster address or node port go to a pod that is
//! ready. Works from the last known state for as long as no master says otherwise.

pub mod balancer;
pub mod frontend;
pub mod routes;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::frontend::{Listening, bind, serve};
use self::routes::Routes;
use self::table::{Frontend, Table};

/// Connections at the same time, of all services.
const CONNECTIONS: usize = 8192;
/// Before trying again what could not be bound.
const RETRY: Duration = Duration::from_secs(2);
/// Routes that somebody removed come back.
const RECHECK: Duration = Duration::from_secs(30);
/// Connections get this long to end when the agent ends.
const DRAIN: Duration = Duration::from_secs(2);

struct Listener {
    frontend: watch::Sender<Frontend>,
    cancel: CancellationToken,
}

/// Serves a table that changes, and tells what it cannot serve.
pub struct Proxy {
    table: watch::Receiver<Table>,
    problems: watch::Sender<Vec<String>>,
    routes: Routes,
    listeners: BTreeMap<SocketAddr, Listener>,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Proxy {
    /// A proxy that serves nothing yet.
    #[must_use]
    pub fn new(
        cluster: &str,
        table: watch::Receiver<Table>,
        problems: watch::Sender<Vec<String>>,
    ) -> Self {
        Self {
            table,
            problems,
            routes: Routes::new(cluster),
            listeners: BTreeMap::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut recheck = tokio::time::interval(RECHECK);
        loop {
            let complete = self.update().await;
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = self.table.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(RETRY), if !complete => {}
                _ = recheck.tick() => self.routes.recheck(),
            }
        }
        for listener in self.listeners.values() {
            listener.cancel.cancel();
        }
        self.listeners.clear();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            debug!(count = self.tasks.len(), "connections are cut");
        }
        self.routes.clear().await;
    }

    /// Makes listeners match the table; answers whether all are there.
    async fn update(&mut self) -> bool {
        let table = self.table.borrow_and_update().clone();
        self.listeners.retain(|address, listener| {
            let keep = table.contains_key(address);
            if !keep {
                listener.cancel.cancel();
            }
            keep
        });
        let addresses: BTreeSet<IpAddr> =
            table.iter().filter(|(_, f)| f.cluster_address).map(|(a, _)| a.ip()).collect();
        // Existing listeners first: their endpoints must not wait for a slow route.
        let mut missing = Vec::new();
        for (address, frontend) in table {
            match self.listeners.get(&address) {
                Some(listener) => {
                    listener.frontend.send_if_modified(|present| {
                        let changed = *present != frontend;
                        if changed {
                            *present = frontend;
                        }
                        changed
                    });
                }
                None => missing.push((address, frontend)),
            }
        }
        let mut problems: Vec<String> = self.routes.set(&addresses).await.into_iter().collect();
        let routed = problems.is_empty();
        for (address, frontend) in missing {
            if frontend.cluster_address && !routed {
                continue;
            }
            if let Err(problem) = self.listen(address, frontend) {
                problems.push(problem);
            }
        }
        let complete = problems.is_empty();
        self.problems.send_if_modified(|present| {
            if *present == problems {
                return false;
            }
            for problem in &problems {
                warn!("{problem}");
            }
            *present = problems;
            true
        });
        complete
    }

    fn listen(&mut self, address: SocketAddr, frontend: Frontend) -> Result<(), String> {
        let listener = bind(address, frontend.cluster_address).map_err(|e| {
            format!("cannot listen on {address} for service {}: {e}", frontend.service)
        })?;
        info!(%address, service = frontend.service, "serving");
        let (sender, receiver) = watch::channel(frontend);
        let cancel = CancellationToken::new();
        let listening = Listening {
            frontend: receiver,
            connections: self.connections.clone(),
            tasks: self.tasks.clone(),
        };
        // The accept loop of one address; it ends only when cancelled.
        self.tasks.spawn(serve(listener, listening, cancel.clone()));
        self.listeners.insert(address, Listener { frontend: sender, cancel });
        Ok(())
    }
}

#[cfg(test)]
#[path = "proxy_test.rs"]
mod tests;
