//! Which nodes have a session with this master.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_proto::v1::master_message::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::error::{status, unavailable};

/// Messages to an agent that wait to be sent; then whoever sends waits.
const OUTGOING: usize = 32;
/// Chunks of a log that wait for its reader.
const LOG_CHUNKS: usize = 64;

/// One agent's session.
pub(crate) struct Session {
    pub node: String,
    pub incarnation: u64,
    /// Tells sessions of one agent apart.
    id: u64,
    pub outgoing: mpsc::Sender<v1::MasterMessage>,
    /// Ends everything that belongs to the session.
    pub ended: CancellationToken,
    /// What the agent is told when the session ends.
    reason: Mutex<Option<Status>>,
    /// Logs being read from the node, by request.
    logs: Mutex<HashMap<u64, mpsc::Sender<v1::LogData>>>,
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

    pub fn open_log(&self, id: u64) -> mpsc::Receiver<v1::LogData> {
        let (sender, receiver) = mpsc::channel(LOG_CHUNKS);
        self.logs.lock().insert(id, sender);
        receiver
    }

    pub fn log(&self, id: u64) -> Option<mpsc::Sender<v1::LogData>> {
        self.logs.lock().get(&id).cloned()
    }

    pub fn close_log(&self, id: u64) -> bool {
        self.logs.lock().remove(&id).is_some()
    }
}

/// All sessions of this master, by node.
pub(crate) struct Table {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// Changes with every session that begins.
    begun: watch::Sender<u64>,
    next_id: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        let begun = watch::Sender::new(0);
        Self { sessions: Mutex::default(), begun, next_id: AtomicU64::new(1) }
    }
}

impl Table {
    /// A number that no other session or log request of this master has.
    pub fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
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
            id: self.fresh_id(),
            outgoing,
            ended,
            reason: Mutex::default(),
            logs: Mutex::default(),
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
        self.begun.send_modify(|count| *count += 1);
        Ok((session, receiver))
    }

    /// Takes a session out, if it is still the node's.
    pub fn leave(&self, session: &Session) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&session.node).is_some_and(|current| current.id == session.id) {
            sessions.remove(&session.node);
        }
        drop(sessions);
        // Readers of logs see their channels close.
        session.logs.lock().clear();
    }

    /// The node's session; waits a moment for one, as agents come back quickly.
    pub async fn find(&self, node: &str, patience: Duration) -> Option<Arc<Session>> {
        let mut begun = self.begun.subscribe();
        let find = || self.sessions.lock().get(node).cloned();
        let appear = async {
            loop {
                if let Some(session) = find() {
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
