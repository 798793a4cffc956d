//! Which nodes have a session with this master.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_proto::v1::master_message::Message;
use quorate_registry::Heartbeats;
use quorate_store::Term;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::streams::Joined;
use crate::error::{status, unavailable};

/// Messages to an agent that wait to be sent; then whoever sends waits.
const OUTGOING: usize = 32;
/// What a process with many nodes says counts for all of them, at most this often: while its nodes
/// have much to tell, there is always something that has just come.
const PROCESS_HEARD: Duration = Duration::from_millis(100);
/// How long an agent may take to say what it holds; then it is told everything.
const HOLDING_PATIENCE: Duration = Duration::from_secs(1);

/// One agent's session.
pub(crate) struct Session {
    pub node: String,
    pub incarnation: u64,
    /// See `Register.process`; empty for an agent of one node.
    process: String,
    /// Its node has no use for Services and EndpointSlices.
    pub without_services: bool,
    /// Tells sessions of one agent apart.
    id: u64,
    pub outgoing: mpsc::Sender<v1::MasterMessage>,
    /// Ends everything that belongs to the session.
    pub ended: CancellationToken,
    /// What the agent is told when the session ends.
    reason: Mutex<Option<Status>>,
    /// When it was heard last.
    heard: Mutex<Instant>,
    /// Does it answer a Leadership with what it holds?
    tells_holding: bool,
    /// Its newest answer.
    pub holding: watch::Sender<v1::Holding>,
    /// Calls that wait for the agent to open its end of a stream, by id.
    streams: Mutex<HashMap<u64, oneshot::Sender<Joined>>>,
}

/// A call that waits for an agent's end of a stream; dropped, it waits no longer.
pub(crate) struct Expected<'a> {
    /// Of the stream. It cannot be guessed.
    pub id: u64,
    session: &'a Session,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.session.take_stream(self.id);
    }
}

impl Session {
    /// Ends the session; the first reason counts.
    pub fn end(&self, reason: Status) {
        self.reason.lock().get_or_insert(reason);
        self.ended.cancel();
    }

    pub fn reason(&self) -> Status {
        let reason = self.reason.lock().clone();
        reason.unwrap_or_else(|| unavailable("the session has ended"))
    }

    /// Sends a message; `None` when the session has ended meanwhile.
    pub async fn send(&self, message: Message) -> Option<()> {
        let message = v1::MasterMessage { message: Some(message) };
        tokio::select! {
            biased;
            () = self.ended.cancelled() => None,
            sent = self.outgoing.send(message) => sent.ok(),
        }
    }

    /// What the agent says it holds, to a leader of this term; `None` when it does not say.
    pub async fn holding(&self, term: Term) -> Option<v1::Holding> {
        if !self.tells_holding {
            return None;
        }
        let mut holding = self.holding.subscribe();
        let answer = holding.wait_for(|holding| holding.term == term);
        let answer = tokio::time::timeout(HOLDING_PATIENCE, answer).await.ok()?;
        answer.ok().map(|holding| holding.clone())
    }

    /// Notes who waits for a stream of this session.
    pub fn expect_stream(&self, waiting: oneshot::Sender<Joined>) -> Expected<'_> {
        let id = rand::random();
        self.streams.lock().insert(id, waiting);
        Expected { id, session: self }
    }

    /// Whoever waits for the stream; nobody else gets it.
    pub fn take_stream(&self, id: u64) -> Option<oneshot::Sender<Joined>> {
        self.streams.lock().remove(&id)
    }

    /// How long it has not been heard.
    pub fn silence(&self) -> Duration {
        self.heard.lock().elapsed()
    }
}

/// A process with many nodes, which lives and dies as a whole.
#[derive(Default)]
struct Process {
    /// By id.
    sessions: HashMap<u64, Arc<Session>>,
    /// When that was last noted for all of them.
    heard: Option<Instant>,
}

/// All sessions of this master, by node.
pub(crate) struct Table {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// Processes with many nodes.
    processes: Mutex<HashMap<String, Process>>,
    /// Changes with every session that begins.
    begun: watch::Sender<u64>,
    next_id: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        let begun = watch::Sender::new(0);
        let (sessions, processes) = Default::default();
        Self { sessions, processes, begun, next_id: AtomicU64::new(1) }
    }
}

impl Table {
    /// The node of the session was heard, and with it all nodes of its process.
    pub fn heard(&self, session: &Session, heartbeats: &Heartbeats) {
        let now = Instant::now();
        let group = self.others(session, now);
        heartbeats
            .record_all(group.iter().map(|one| one.node.as_str()).chain([&*session.node]), now);
        *session.heard.lock() = now;
        group.iter().for_each(|one| *one.heard.lock() = now);
    }

    /// The sessions of its process, when it is time to note again that it lives.
    fn others(&self, session: &Session, now: Instant) -> Vec<Arc<Session>> {
        if session.process.is_empty() {
            return Vec::new();
        }
        let mut processes = self.processes.lock();
        let Some(process) = processes.get_mut(&session.process) else { return Vec::new() };
        if process.heard.is_some_and(|last| now.saturating_duration_since(last) < PROCESS_HEARD) {
            return Vec::new();
        }
        process.heard = Some(now);
        process.sessions.values().cloned().collect()
    }

    /// Enters a new session. Of two agents with one name the newer start wins; a newer
    /// connection of the same agent replaces the older one.
    pub fn enter(
        &self,
        register: &v1::Register,
        ended: CancellationToken,
    ) -> Result<(Arc<Session>, mpsc::Receiver<v1::MasterMessage>), Status> {
        let (outgoing, receiver) = mpsc::channel(OUTGOING);
        let session = Arc::new(Session {
            node: register.node_name.clone(),
            incarnation: register.incarnation,
            process: register.process.clone(),
            without_services: register.without_services,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            outgoing,
            ended,
            reason: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            tells_holding: register.tells_holding,
            holding: watch::Sender::default(),
            streams: Mutex::default(),
        });
        let mut sessions = self.sessions.lock();
        if let Some(old) = sessions.get(&session.node) {
            if old.incarnation > session.incarnation {
                return Err(displaced(&session.node));
            }
            if old.incarnation < session.incarnation {
                old.end(displaced(&session.node));
            } else {
                old.end(unavailable("the agent has opened a newer session"));
            }
        }
        sessions.insert(session.node.clone(), Arc::clone(&session));
        drop(sessions);
        if !session.process.is_empty() {
            let mut processes = self.processes.lock();
            let process = processes.entry(session.process.clone()).or_default();
            process.sessions.insert(session.id, Arc::clone(&session));
        }
        self.begun.send_modify(|count| *count += 1);
        Ok((session, receiver))
    }

    /// Takes a session out, if it is still the node's. Was it?
    pub fn leave(&self, session: &Session) -> bool {
        let mut sessions = self.sessions.lock();
        let current = sessions.get(&session.node).is_some_and(|current| current.id == session.id);
        if current {
            sessions.remove(&session.node);
        }
        drop(sessions);
        let mut processes = self.processes.lock();
        if let Some(process) = processes.get_mut(&session.process) {
            process.sessions.remove(&session.id);
            if process.sessions.is_empty() {
                processes.remove(&session.process);
            }
        }
        drop(processes);
        // Whoever waits for a stream sees its channel close.
        session.streams.lock().clear();
        current
    }

    /// The node's session, if there is one.
    pub fn now(&self, node: &str) -> Option<Arc<Session>> {
        self.sessions.lock().get(node).cloned()
    }

    /// The node's session; waits a moment for one, as agents come back quickly.
    pub async fn find(&self, node: &str, patience: Duration) -> Option<Arc<Session>> {
        let mut begun = self.begun.subscribe();
        let appear = async {
            loop {
                if let Some(session) = self.now(node) {
                    return session;
                }
                if begun.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(patience, appear).await.ok()
    }
}

fn displaced(node: &str) -> Status {
    let text = format!(
        "a newer agent runs as node {node:?}: this one must stop. If both machines are to be \
         nodes, give one of them another --name"
    );
    status(Code::Aborted, "Displaced", text)
}
