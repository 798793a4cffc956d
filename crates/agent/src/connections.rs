//! Connections to masters, shared by the nodes of one process: an agent of one node has one
//! with each master, a process of thousands of nodes has a few. Over each go a session and the
//! streams of every node that uses it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_proto::Tls;
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};

const CONNECT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Nodes that share a connection. Masters allow 4096 calls on one, and each node may have
/// streams beside its session.
const SHARE: usize = 1000;
/// A master that did not answer is not asked again within this time, whoever asks.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that may be under way on a connection, and on each call of it.
const WINDOWS: (u32, u32) = (8 << 20, 1 << 20);

/// A connection, and which one it is.
#[derive(Clone)]
pub struct Connection {
    /// For calls.
    pub channel: Channel,
    number: u64,
}

#[derive(Default)]
struct Slot {
    open: Option<Connection>,
    failed: Option<(Instant, String)>,
}

/// What all sessions with one master share.
struct Master {
    slots: Vec<Arc<tokio::sync::Mutex<Slot>>>,
    /// Whoever holds it sends the heartbeats of the whole process.
    beat: Arc<Semaphore>,
}

/// The connections of a process.
pub struct Connections {
    /// How many nodes the process has.
    nodes: usize,
    tls: Option<Tls>,
    masters: Mutex<HashMap<String, Arc<Master>>>,
    next: AtomicU64,
}

impl Connections {
    /// No connections yet, for so many nodes.
    #[must_use]
    pub fn new(nodes: usize, tls: Option<Tls>) -> Self {
        Self { nodes, tls, masters: Mutex::default(), next: AtomicU64::new(0) }
    }

    fn master(&self, url: &str) -> Arc<Master> {
        let mut masters = self.masters.lock();
        let fresh = || {
            let slots = (0..self.nodes.div_ceil(SHARE).max(1)).map(|_| Arc::default()).collect();
            Arc::new(Master { slots, beat: Arc::new(Semaphore::new(1)) })
        };
        Arc::clone(masters.entry(url.to_owned()).or_insert_with(fresh))
    }

    /// The turn to send heartbeats to the master for the whole process.
    #[must_use]
    pub fn beat(&self, url: &str) -> Arc<Semaphore> {
        Arc::clone(&self.master(url).beat)
    }

    /// The connection that the node with this number uses, opened if need be.
    ///
    /// # Errors
    /// When the master does not answer, or did not a moment ago.
    pub async fn get(&self, url: &str, node: usize) -> Result<Connection, tonic::Status> {
        let master = self.master(url);
        let slot = Arc::clone(&master.slots[node % master.slots.len()]);
        let mut slot = slot.lock().await;
        if let Some(open) = &slot.open {
            return Ok(open.clone());
        }
        if let Some((at, why)) = &slot.failed
            && at.elapsed() < PAUSE
        {
            return Err(tonic::Status::unavailable(why.clone()));
        }
        let endpoint = self.endpoint(url)?;
        let connected = tokio::time::timeout(CONNECT, endpoint.connect()).await;
        let connected = connected
            .map_err(|_| "no answer in time".to_owned())
            .and_then(|result| result.map_err(|e| deepest(&e)));
        match connected {
            Ok(channel) => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let open = Connection { channel, number };
                *slot = Slot { open: Some(open.clone()), failed: None };
                Ok(open)
            }
            Err(why) => {
                if self.nodes > 1 && slot.failed.is_none() {
                    tracing::warn!(master = url, error = why, "no connection; retrying");
                }
                slot.failed = Some((Instant::now(), why.clone()));
                Err(tonic::Status::unavailable(why))
            }
        }
    }

    /// The connection is of no use any more: the next one who asks gets a new one.
    pub async fn broken(&self, url: &str, node: usize, connection: &Connection) {
        let master = self.master(url);
        let mut slot = master.slots[node % master.slots.len()].lock().await;
        if slot.open.as_ref().is_some_and(|open| open.number == connection.number) {
            slot.open = None;
        }
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, tonic::Status> {
        let bad = |e: tonic::transport::Error| tonic::Status::invalid_argument(deepest(&e));
        let (connection, call) = WINDOWS;
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(bad)?
            .connect_timeout(CONNECT)
            .initial_connection_window_size(connection)
            .initial_stream_window_size(call)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.client()).map_err(bad),
            None => Ok(endpoint),
        }
    }
}

/// tonic says "transport error"; the reason is at the bottom.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(inner) = current.source() {
        current = inner;
    }
    current.to_string()
}
