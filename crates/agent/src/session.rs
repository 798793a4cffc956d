//! Sessions: one with every master, all the time, so that whichever leads next already
//! hears this node. Each reconnects by itself; none ever stops anything on the node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{PollNext, select_with_strategy};
use quorate_proto::v1;
use quorate_proto::v1::agent_message::Message as ToMaster;
use quorate_proto::v1::master_message::Message as FromMaster;
use quorate_proto::v1::nodes_client::NodesClient;
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

const CONNECT: Duration = Duration::from_secs(2);
/// For the answer to Register.
const WELCOME: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Status batches waiting to be sent; there is one at a time.
const CONTROL: usize = 8;
/// Pieces of logs waiting to be sent; readers of logs wait beyond that.
const DATA: usize = 8;
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
        /// For logs.
        data: mpsc::Sender<ToMaster>,
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
    /// Certificates; none: plain http.
    pub tls: Option<quorate_proto::Tls>,
}

/// The sessions of an agent.
pub struct Sessions {
    introduction: Arc<Introduction>,
    events: mpsc::Sender<Event>,
    urls: Vec<String>,
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
        Self { introduction, events, urls: Vec::new(), next: Arc::default(), cancel }
    }

    /// Keeps a session with this master from now on.
    pub fn add(&mut self, url: &str) {
        let url = url.trim_end_matches('/');
        if url.is_empty() || self.urls.iter().any(|known| known == url) {
            return;
        }
        self.urls.push(url.to_owned());
        let keeper = Keeper {
            url: url.to_owned(),
            introduction: self.introduction.clone(),
            events: self.events.clone(),
            next: self.next.clone(),
        };
        let cancel = self.cancel.clone();
        // Keeps the session with one master; ends only when the agent does.
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
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
                Ok(()) => info!(master = self.url, "the master ended the session"),
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
                Err(status) if !reported => {
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
        let channel = self.channel()?;
        let channel = tokio::time::timeout(CONNECT, channel.connect())
            .await
            .map_err(|_| tonic::Status::unavailable("no answer in time"))?
            .map_err(|e| tonic::Status::unavailable(deepest(&e)))?;
        let (control, control_receiver) = mpsc::channel(CONTROL);
        let (data, data_receiver) = mpsc::channel(DATA);
        let register = ToMaster::Register(v1::Register {
            node_name: self.introduction.node_name.clone(),
            cluster_id: self.introduction.cluster_id.get().cloned().unwrap_or_default(),
            node_json: self.introduction.node_json.clone(),
            incarnation: self.introduction.incarnation,
        });
        let _ = control.try_send(register);
        // Heartbeats and statuses go before logs.
        let outgoing = select_with_strategy(
            ReceiverStream::new(control_receiver),
            ReceiverStream::new(data_receiver),
            |(): &mut ()| PollNext::Left,
        )
        .map(|message| v1::AgentMessage { message: Some(message) });
        let mut client = NodesClient::<Channel>::new(channel).max_decoding_message_size(MESSAGE);
        let opened = tokio::time::timeout(WELCOME, client.session(outgoing)).await;
        let mut incoming =
            opened.map_err(|_| tonic::Status::unavailable("no answer in time"))??.into_inner();
        let first = tokio::time::timeout(WELCOME, incoming.message())
            .await
            .map_err(|_| tonic::Status::unavailable("no welcome in time"))??;
        let Some(FromMaster::Welcome(welcome)) = first.and_then(|m| m.message) else {
            return Err(tonic::Status::internal("the master did not begin with a welcome"));
        };
        info!(master = welcome.master_name, url = self.url, "session");
        (*wait, *reported) = (FIRST_RETRY, false);
        let interval = u64::from(welcome.heartbeat_interval_ms.clamp(50, 60_000));
        let up =
            Event::Up { session, url: self.url.clone(), welcome, control: control.clone(), data };
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
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {
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

    fn channel(&self) -> Result<Endpoint, tonic::Status> {
        let bad = |e: tonic::transport::Error| tonic::Status::invalid_argument(deepest(&e));
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(bad)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        match &self.introduction.tls {
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
