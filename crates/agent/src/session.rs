//! Sessions: one with every master, all the time, so that whichever leads next already
//! hears this node. Each reconnects by itself; none ever stops anything on the node.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use quorate_proto::v1;
use quorate_proto::v1::agent_message::Message as ToMaster;
use quorate_proto::v1::master_message::Message as FromMaster;
use quorate_proto::v1::nodes_client::NodesClient;
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::connections::{Connection, Connections};

/// For the answer to Register.
const WELCOME: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// With what is added to it by chance, well below the time after which a node that is not heard
/// counts as dead: the masters that were all away come back to nodes that are there.
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Status batches waiting to be sent; there is one at a time.
const CONTROL: usize = 8;
/// An Assignments message carries every service of the cluster.
const MESSAGE: usize = 64 << 20;

/// What a session tells.
pub enum Event {
    /// A master answered.
    Up {
        /// Number of the session; never used twice.
        session: u64,
        /// The master's URL.
        url: String,
        /// Its first message.
        welcome: v1::Welcome,
        /// For statuses.
        control: mpsc::Sender<ToMaster>,
        /// For streams that the master asks for.
        channel: Channel,
    },
    /// A message came.
    Message {
        /// Of which session.
        session: u64,
        /// The message.
        message: FromMaster,
    },
    /// The session is over.
    Down {
        /// Which.
        session: u64,
    },
    /// A master takes this agent for another cluster's.
    Refused {
        /// The master's words.
        message: String,
    },
    /// A master refuses this agent: a newer one of the same node is there.
    Replaced {
        /// The master's words.
        message: String,
    },
}

/// What every session says of itself.
pub struct Introduction {
    /// Name of the node.
    pub node_name: String,
    /// Set as soon as it is known.
    pub cluster_id: OnceLock<String>,
    /// The Node object.
    pub node_json: Bytes,
    /// Newer at each start.
    pub incarnation: u64,
    /// Of this node among those of the process.
    pub number: usize,
    /// Names the process when it has many nodes; empty for one.
    pub process: String,
    /// The node has no use for Services.
    pub without_services: bool,
    /// Shared by the nodes of the process.
    pub connections: Arc<Connections>,
}

/// A session that is kept up.
struct Kept {
    /// Name of the master that answered there last; empty: none has yet.
    master: String,
    end: CancellationToken,
}

/// The sessions of an agent.
pub struct Sessions {
    introduction: Arc<Introduction>,
    events: mpsc::Sender<Event>,
    /// By the master's URL.
    kept: BTreeMap<String, Kept>,
    next: Arc<std::sync::atomic::AtomicU64>,
    cancel: CancellationToken,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(
        introduction: Arc<Introduction>,
        events: mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> Self {
        Self { introduction, events, kept: BTreeMap::new(), next: Arc::default(), cancel }
    }

    /// Keeps a session with this master from now on.
    pub fn add(&mut self, url: &str) {
        let url = url.trim_end_matches('/');
        if url.is_empty() || self.keeps(url) {
            return;
        }
        let end = self.cancel.child_token();
        self.kept.insert(url.to_owned(), Kept { master: String::new(), end: end.clone() });
        let keeper = Keeper {
            url: url.to_owned(),
            introduction: self.introduction.clone(),
            events: self.events.clone(),
            next: self.next.clone(),
        };
        // Keeps the session with one master; ends with the agent, or when another URL of that
        // master is kept.
        tokio::spawn(async move { end.run_until_cancelled(keeper.keep()).await });
    }

    /// Is a session with the master at this URL kept?
    #[must_use]
    pub fn keeps(&self, url: &str) -> bool {
        self.kept.contains_key(url)
    }

    /// The master of this name has answered at `url`. A master ends the older of two sessions of
    /// a node, so of several URLs that lead to it one is kept: one that masters name if such a
    /// one is up, else the one that answered just now. Answers the URLs that are given up.
    pub fn settle(
        &mut self,
        url: &str,
        master: &str,
        named: impl Fn(&str) -> bool,
        up: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let Some(kept) = self.kept.get_mut(url).filter(|_| !master.is_empty()) else {
            return Vec::new();
        };
        master.clone_into(&mut kept.master);
        let of_master = |(other, kept): &(&String, &Kept)| *other != url && kept.master == master;
        let others: Vec<&String> =
            self.kept.iter().filter(of_master).map(|(other, _)| other).collect();
        let better = !named(url) && others.iter().any(|other| named(other) && up(other));
        let mut given_up: Vec<String> =
            others.into_iter().filter(|other| !named(other)).cloned().collect();
        given_up.extend(better.then(|| url.to_owned()));
        for url in &given_up {
            info!(master, url, "the master is known by another URL; this one is given up");
            if let Some(kept) = self.kept.remove(url) {
                kept.end.cancel();
            }
        }
        given_up
    }
}

struct Keeper {
    url: String,
    introduction: Arc<Introduction>,
    events: mpsc::Sender<Event>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

impl Keeper {
    async fn keep(&self) {
        let mut wait = FIRST_RETRY;
        let mut reported = false;
        while !self.events.is_closed() {
            let session = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let result = self.session(session, &mut wait, &mut reported).await;
            let _ = self.events.send(Event::Down { session }).await;
            match result {
                Ok(()) => debug!(master = self.url, "the master ended the session"),
                Err(status)
                    if matches!(
                        status.code(),
                        tonic::Code::AlreadyExists | tonic::Code::Aborted
                    ) =>
                {
                    let message = status.message().to_owned();
                    let _ = self.events.send(Event::Replaced { message }).await;
                }
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    warn!(master = self.url, error = status.message(), "refused");
                    let message = status.message().to_owned();
                    let _ = self.events.send(Event::Refused { message }).await;
                }
                // Of many nodes' sessions the connection tells, once.
                Err(status) if !reported && self.introduction.process.is_empty() => {
                    reported = true;
                    warn!(master = self.url, error = status.message(), "no session; retrying");
                }
                Err(status) => debug!(master = self.url, error = status.message(), "no session"),
            }
            let jitter = rand::rng().random_range(0.7..1.3);
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    async fn session(
        &self,
        session: u64,
        wait: &mut Duration,
        reported: &mut bool,
    ) -> Result<(), tonic::Status> {
        let connections = &self.introduction.connections;
        let connection = connections.get(&self.url, self.introduction.number).await?;
        let result = self.on(&connection, session, wait, reported).await;
        // A master that refuses or ends a session has nothing against the connection.
        if result.as_ref().is_err_and(|status| status.code() == tonic::Code::Unavailable) {
            connections.broken(&self.url, self.introduction.number, &connection).await;
        }
        result
    }

    async fn on(
        &self,
        connection: &Connection,
        session: u64,
        wait: &mut Duration,
        reported: &mut bool,
    ) -> Result<(), tonic::Status> {
        let channel = connection.channel.clone();
        let (control, control_receiver) = mpsc::channel(CONTROL);
        let register = ToMaster::Register(v1::Register {
            node_name: self.introduction.node_name.clone(),
            cluster_id: self.introduction.cluster_id.get().cloned().unwrap_or_default(),
            node_json: self.introduction.node_json.clone(),
            incarnation: self.introduction.incarnation,
            process: self.introduction.process.clone(),
            without_services: self.introduction.without_services,
            tells_holding: true,
        });
        let _ = control.try_send(register);
        let outgoing = ReceiverStream::new(control_receiver)
            .map(|message| v1::AgentMessage { message: Some(message) });
        let mut client =
            NodesClient::<Channel>::new(channel.clone()).max_decoding_message_size(MESSAGE);
        let opened = tokio::time::timeout(WELCOME, client.session(outgoing)).await;
        let mut incoming =
            opened.map_err(|_| tonic::Status::unavailable("no answer in time"))??.into_inner();
        let first = tokio::time::timeout(WELCOME, incoming.message())
            .await
            .map_err(|_| tonic::Status::unavailable("no welcome in time"))??;
        let Some(FromMaster::Welcome(welcome)) = first.and_then(|m| m.message) else {
            return Err(tonic::Status::internal("the master did not begin with a welcome"));
        };
        if self.introduction.process.is_empty() {
            info!(master = welcome.master_name, url = self.url, "session");
        } else {
            debug!(master = welcome.master_name, url = self.url, "session");
        }
        (*wait, *reported) = (FIRST_RETRY, false);
        let interval = u64::from(welcome.heartbeat_interval_ms.clamp(50, 60_000));
        let url = self.url.clone();
        let up = Event::Up { session, url, welcome, control: control.clone(), channel };
        if self.events.send(up).await.is_err() {
            return Ok(());
        }
        self.converse(session, incoming, control, Duration::from_millis(interval)).await
    }

    async fn converse(
        &self,
        session: u64,
        mut incoming: tonic::Streaming<v1::MasterMessage>,
        control: mpsc::Sender<ToMaster>,
        interval: Duration,
    ) -> Result<(), tonic::Status> {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sequence = 0;
        let process = !self.introduction.process.is_empty();
        // One session of the process sends for all; when it ends, another takes over.
        let turn = self.introduction.connections.beat(&self.url);
        let mut turn = std::pin::pin!(turn.acquire_owned());
        let mut beating = None;
        loop {
            tokio::select! {
                biased;
                permit = &mut turn, if process && beating.is_none() => {
                    beating = permit.ok();
                    ticks.reset_immediately();
                }
                _ = ticks.tick(), if !process || beating.is_some() => {
                    sequence += 1;
                    let beat = ToMaster::Heartbeat(v1::Heartbeat { sequence });
                    // A full queue means that the connection does not move; its keepalive
                    // will end it.
                    if let Err(mpsc::error::TrySendError::Closed(_)) = control.try_send(beat) {
                        return Err(tonic::Status::unavailable("the connection is closed"));
                    }
                }
                received = incoming.message() => {
                    let Some(received) = received? else { return Ok(()) };
                    let Some(message) = received.message else { continue };
                    if self.events.send(Event::Message { session, message }).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
