//! [`Links`]: a proxy of ours in front of every master, so that each connection between two
//! processes can be cut, slowed or made to lose what it carries. The kernel here has no netem.
//!
//! Each master is reached at an address of the proxy and listens on another. Who is at the
//! other end of a connection is read from `/proc`: the process that owns the socket. What is
//! cut behaves like a network that drops every packet: nothing arrives, nothing is refused, and
//! when it heals the bytes on their way arrive late, as TCP's retransmissions would.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::sockets;

/// Everybody who is no process of the cluster.
pub const CLIENTS: &str = "clients";

/// Pause between two looks whether a master is there (again).
const PROBE: Duration = Duration::from_millis(5);
/// Longest time for a connection on this machine.
const CONNECT: Duration = Duration::from_secs(2);
/// Bytes taken at once.
const CHUNK: usize = 16 * 1024;
/// Chunks on their way in one direction.
const ON_THE_WAY: usize = 256;
/// What a lost packet costs: TCP sends it again after this time.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// What happens to bytes that one process sends to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// Nothing passes.
    pub cut: bool,
    /// Everything comes later by this much.
    pub delay: Duration,
    /// Share of pieces that are lost at first, and come when TCP repeats them.
    pub loss: f64,
}

/// Rules by sender and receiver.
type Rules = HashMap<(String, String), Rule>;

/// A master as the proxy sees it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// Where others think it is.
    pub advertised: SocketAddr,
    /// Where it listens.
    pub real: SocketAddr,
}

/// Names of the cluster's processes by process id, as they are at the moment.
pub type Processes = Arc<dyn Fn() -> BTreeMap<String, i32> + Send + Sync>;

/// Names of nodes by the addresses of their hosts, for those that are on hosts of their own.
pub type Addresses = Arc<HashMap<IpAddr, String>>;

/// The proxies in front of all masters. Dropping it closes them.
pub struct Links {
    rules: Arc<watch::Sender<Rules>>,
    cancel: CancellationToken,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("rules", &*self.rules.borrow()).finish_non_exhaustive()
    }
}

impl Links {
    /// Starts the proxies. `processes` says who owns a connection, `addresses` the same of
    /// connections that come from elsewhere.
    #[must_use]
    pub fn start(
        destinations: Vec<Destination>,
        processes: Processes,
        addresses: Addresses,
    ) -> Self {
        let rules = Arc::new(watch::Sender::new(Rules::new()));
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for destination in destinations {
            let proxy = Proxy {
                destination,
                rules: Arc::clone(&rules),
                processes: Arc::clone(&processes),
                addresses: Arc::clone(&addresses),
            };
            let cancel = cancel.clone();
            // Task "proxy": it ends when the links are dropped; a port that is taken shows as a
            // cluster that does not come up.
            tasks.spawn(async move {
                cancel.run_until_cancelled(proxy.run()).await;
            });
        }
        Self { rules, cancel, _tasks: tasks }
    }

    /// Sets the rule for what `from` sends to `to`.
    pub fn set(&self, from: &str, to: &str, rule: Rule) {
        self.rules.send_modify(|rules| {
            let key = (from.to_owned(), to.to_owned());
            if rule == Rule::default() {
                rules.remove(&key);
            } else {
                rules.insert(key, rule);
            }
        });
    }

    /// The same in both directions.
    pub fn set_both(&self, one: &str, other: &str, rule: Rule) {
        self.set(one, other, rule);
        self.set(other, one, rule);
    }

    /// Removes all rules.
    pub fn heal(&self) {
        self.rules.send_modify(Rules::clear);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The proxy in front of one port of one master.
struct Proxy {
    destination: Destination,
    rules: Arc<watch::Sender<Rules>>,
    processes: Processes,
    addresses: Addresses,
}

impl Proxy {
    /// Listens exactly while the master does: a port that refuses is how others notice at once
    /// that a process is gone.
    async fn run(self) {
        loop {
            if !is_there(self.destination.real).await {
                sleep(PROBE).await;
                continue;
            }
            match TcpListener::bind(self.destination.advertised).await {
                Ok(listener) => self.serve(listener).await,
                Err(error) => {
                    eprintln!("links: {}: {error}", self.destination.advertised);
                    sleep(CONNECT).await;
                }
            }
        }
    }

    /// Returns, with the listener and all connections closed, when the master is gone.
    async fn serve(&self, listener: TcpListener) {
        let gone = CancellationToken::new();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = gone.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    let Ok((client, peer)) = accepted else { continue };
                    let from = self.owner(peer);
                    let connection = Connection {
                        from,
                        to: self.destination.name.clone(),
                        real: self.destination.real,
                        rules: self.rules.subscribe(),
                        gone: gone.clone(),
                    };
                    connections.spawn(connection.run(client));
                }
            }
        }
        // In this order: who sees the connection break finds a port that refuses.
        drop(listener);
        connections.shutdown().await;
    }

    fn owner(&self, peer: SocketAddr) -> String {
        if let Some(node) = self.addresses.get(&peer.ip()) {
            return node.clone();
        }
        let processes = (self.processes)();
        let owner = sockets::inode(peer, self.destination.advertised).and_then(|inode| {
            processes.into_iter().find(|(_, pid)| sockets::owns(*pid, inode)).map(|(name, _)| name)
        });
        owner.unwrap_or_else(|| CLIENTS.to_owned())
    }
}

async fn is_there(address: SocketAddr) -> bool {
    matches!(timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// One connection through the proxy.
struct Connection {
    from: String,
    to: String,
    real: SocketAddr,
    rules: watch::Receiver<Rules>,
    /// Cancelled by whoever notices that the master is gone.
    gone: CancellationToken,
}

impl Connection {
    async fn run(self, client: TcpStream) {
        let mut forth = Way { key: (self.from.clone(), self.to.clone()), rules: self.rules };
        forth.open().await;
        let Ok(Ok(server)) = timeout(CONNECT, TcpStream::connect(self.real)).await else {
            self.gone.cancel();
            // The proxy drops this task together with the listener.
            return std::future::pending().await;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let back = Way { key: (self.to, self.from), rules: forth.rules.clone() };
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        tokio::select! {
            _ = forth.carry(client_reads, server_writes) => {}
            // Held until it is known why the master closed it: if it died, its port refuses now,
            // and ours has to before anybody sees the connection break.
            _held = back.carry(server_reads, client_writes) => {
                if !is_there(self.real).await {
                    self.gone.cancel();
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// One direction of a connection.
struct Way {
    key: (String, String),
    rules: watch::Receiver<Rules>,
}

impl Way {
    fn rule(&mut self) -> Rule {
        self.rules.borrow_and_update().get(&self.key).copied().unwrap_or_default()
    }

    /// Waits until something may pass.
    async fn open(&mut self) {
        while self.rule().cut {
            if self.rules.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Carries everything until the sender is done; returns the receiver's side still open.
    async fn carry(mut self, mut from: OwnedReadHalf, to: OwnedWriteHalf) -> OwnedWriteHalf {
        let (sender, receiver) = mpsc::channel(ON_THE_WAY);
        let rules = self.rules.clone();
        let deliver = Way { key: self.key.clone(), rules }.deliver(receiver, to);
        let take = async {
            let mut buffer = vec![0; CHUNK];
            let mut due = Instant::now();
            while let Ok(size) = from.read(&mut buffer).await {
                if size == 0 {
                    break;
                }
                let rule = self.rule();
                let lost = rule.loss > 0.0 && rand::random_bool(rule.loss.min(1.0));
                let late = if lost { RETRANSMISSION } else { Duration::ZERO };
                // TCP keeps the order: what follows a late piece is late too.
                due = due.max(Instant::now() + rule.delay + late);
                if sender.send((due, buffer[..size].to_vec())).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        tokio::join!(take, deliver).1
    }

    async fn deliver(
        mut self,
        mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
        mut to: OwnedWriteHalf,
    ) -> OwnedWriteHalf {
        while let Some((due, piece)) = pieces.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            self.open().await;
            if to.write_all(&piece).await.is_err() {
                // A receiver that is gone is noticed by its own direction.
                break;
            }
        }
        self.open().await;
        to
    }
}

#[cfg(test)]
#[path = "links_test.rs"]
mod tests;
