//! One agent's session: what it says goes to the registry, what changes goes to it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use quorate_proto::v1;
use quorate_proto::v1::agent_message::Message as FromAgent;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_store::Leadership;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tonic::{Code, Status, Streaming};
use tracing::Instrument as _;

use super::Shared;
use super::assignments;
use super::registration::Registration;
use super::status::{StatusWriter, refuse};
use super::table::Session;
use crate::auth::{MASTERS, NODE_PREFIX, NODES, User};
use crate::convert;
use crate::error::{bad_request, status, unavailable};

/// An agent must introduce itself within this time.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// A session on which nothing is heard for this many heartbeat intervals is over.
const SILENT_HEARTBEATS: u32 = 20;
/// Status batches that wait to be written; agents send one at a time.
const STATUS_BATCHES: usize = 4;
/// How long a session has its turn while it waits for its agent.
const AT_ONCE: Duration = Duration::from_millis(50);
/// Why the sessions of a master that ends do.
const ENDING: &str = "this master is shutting down";

/// Registers the agent and starts its session.
pub(crate) async fn open(
    shared: Shared,
    caller: Option<Arc<User>>,
    mut inbound: Streaming<v1::AgentMessage>,
) -> Result<BoxStream<'static, Result<v1::MasterMessage, Status>>, Status> {
    let first = tokio::time::timeout(REGISTER_TIMEOUT, inbound.message())
        .await
        .map_err(|_| status(Code::DeadlineExceeded, "Timeout", "no Register came"))??;
    let Some(FromAgent::Register(register)) = first.and_then(|first| first.message) else {
        return Err(bad_request("a session begins with Register"));
    };
    check(&shared, &register)?;
    check_node(caller.as_deref(), &register.node_name)?;
    let registration = Registration::decode(&register)?;
    let (session, outgoing) = shared.table.enter(&register, shared.cancel.child_token())?;
    shared.table.heard(&session, &shared.registry.heartbeats());
    let guard = Guard { shared: shared.clone(), session: Arc::clone(&session) };
    // The queue is new and empty, so this does not wait.
    session.send(ToAgent::Welcome(welcome(&shared))).await;
    let span = tracing::info_span!("session", node = %session.node);
    let run = run(shared, Arc::clone(&session), inbound, registration);
    // Task "node session": ends with the session; its failure ends the session.
    tokio::spawn(run.instrument(span));
    Ok(outbound(guard, outgoing))
}

fn check(shared: &Shared, register: &v1::Register) -> Result<(), Status> {
    // An agent that has never been in a cluster does not know its id yet.
    if !register.cluster_id.is_empty() && register.cluster_id != *shared.cluster_id {
        let text = format!(
            "node {:?} belongs to cluster {:?}, this is cluster {:?}; give the agent the right \
             masters, or another data directory",
            register.node_name, register.cluster_id, shared.cluster_id
        );
        return Err(status(Code::FailedPrecondition, "WrongCluster", text));
    }
    if register.node_name.is_empty() {
        return Err(bad_request("Register has no node_name"));
    }
    Ok(())
}

/// An agent speaks for its own node only; admins may for any.
pub(super) fn check_node(caller: Option<&User>, node: &str) -> Result<(), Status> {
    let user =
        caller.ok_or_else(|| status(Code::Unauthenticated, "Unauthorized", "Unauthorized"))?;
    if user.is_in(MASTERS) || user.node() == Some(node) {
        return Ok(());
    }
    let text = format!(
        "User {:?} may not be the agent of node {node:?}: its certificate must have the common \
         name {NODE_PREFIX}{node} and the organisation {NODES}",
        user.name
    );
    Err(status(Code::PermissionDenied, "Forbidden", text))
}

/// Takes the session out of the table when the agent's stream is dropped.
struct Guard {
    shared: Shared,
    session: Arc<Session>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.session.end(unavailable("the agent has gone"));
        if self.shared.table.leave(&self.session) {
            self.shared.registry.metrics().remove(&self.session.node);
        }
    }
}

/// What goes to the agent, until the session ends; then why.
fn outbound(
    guard: Guard,
    outgoing: mpsc::Receiver<v1::MasterMessage>,
) -> BoxStream<'static, Result<v1::MasterMessage, Status>> {
    let next = |state: Option<(Guard, mpsc::Receiver<v1::MasterMessage>)>| async move {
        let (guard, mut outgoing) = state?;
        let message = tokio::select! {
            biased;
            () = guard.session.ended.cancelled() => None,
            message = outgoing.recv() => message,
        };
        match message {
            Some(message) => Some((Ok(message), Some((guard, outgoing)))),
            None => Some((Err(guard.session.reason()), None)),
        }
    };
    Box::pin(futures::stream::unfold(Some((guard, outgoing)), next))
}

fn welcome(shared: &Shared) -> v1::Welcome {
    let store = shared.store.status();
    let own = store.members.iter().find(|m| m.member.id == store.id);
    v1::Welcome {
        cluster_id: shared.cluster_id.to_string(),
        master_name: own.map(|m| m.member.name.clone()).unwrap_or_default(),
        heartbeat_interval_ms: u32::try_from(shared.heartbeat_interval.as_millis())
            .unwrap_or(u32::MAX),
        leadership: Some(leadership(&shared.store.leadership().borrow())),
        master_urls: store.members.iter().map(|m| m.member.client_url.clone()).collect(),
    }
}

fn leadership(now: &Leadership) -> v1::Leadership {
    let leader = now.leader.as_ref();
    v1::Leadership {
        term: now.term,
        leader_name: leader.map(|m| m.name.clone()).unwrap_or_default(),
        leader_url: leader.map(|m| m.client_url.clone()).unwrap_or_default(),
        self_ready: now.ready.is_some(),
    }
}

/// Everything of one session; it ends as a whole.
async fn run(
    shared: Shared,
    session: Arc<Session>,
    inbound: Streaming<v1::AgentMessage>,
    registration: Registration,
) {
    tracing::info!(incarnation = session.incarnation, "agent connected");
    let (batches, queue) = mpsc::channel(STATUS_BATCHES);
    let reason = tokio::select! {
        () = session.ended.cancelled() => session.reason(),
        reason = Box::pin(read(&shared, &session, inbound, batches)) => reason,
        reason = Box::pin(StatusWriter::new(&shared, &session).run(queue)) => reason,
        reason = Box::pin(follow(&shared, &session, &registration)) => reason,
    };
    tracing::info!(reason = reason.message(), "session ended");
    session.end(reason);
    shared.table.leave(&session);
}

/// Takes what the agent says; returns why that ended.
async fn read(
    shared: &Shared,
    session: &Session,
    mut inbound: Streaming<v1::AgentMessage>,
    batches: mpsc::Sender<v1::StatusBatch>,
) -> Status {
    let silence = shared.heartbeat_interval * SILENT_HEARTBEATS;
    loop {
        let message = match tokio::time::timeout(silence, inbound.message()).await {
            Ok(Ok(Some(message))) => message.message,
            Ok(Ok(None)) => return unavailable("the agent ended the session"),
            Ok(Err(status)) => {
                return unavailable(format!("the connection broke: {}", status.message()));
            }
            // Perhaps another session of its process was heard.
            Err(_) if session.silence() < silence => continue,
            Err(_) => return unavailable(format!("nothing heard for {silence:?}")),
        };
        shared.table.heard(session, &shared.registry.heartbeats());
        match message {
            Some(FromAgent::Status(batch)) => {
                // Never wait here: heartbeats are behind it.
                if let Err(refused) = batches.try_send(batch) {
                    let ack = refuse(&refused.into_inner());
                    if session.send(ToAgent::StatusAck(ack)).await.is_none() {
                        return session.reason();
                    }
                }
            }
            Some(FromAgent::Usage(report)) => {
                shared.registry.metrics().put(&session.node, convert::node_usage(report));
            }
            Some(FromAgent::Holding(holding)) => drop(session.holding.send_replace(holding)),
            Some(FromAgent::Heartbeat(_)) | None => {}
            Some(FromAgent::Register(_)) => return bad_request("Register came twice"),
        }
    }
}

/// Tells the agent who leads; while that is this master, writes the Node and sends assignments.
async fn follow(shared: &Shared, session: &Session, registration: &Registration) -> Status {
    let mut changes = shared.store.leadership();
    loop {
        let now = changes.borrow_and_update().clone();
        if now.ready.is_some() {
            tokio::select! {
                () = assignments::caught_up(shared) => {}
                more = changes.changed() => match more {
                    Ok(()) => continue,
                    Err(_) => return unavailable(ENDING),
                }
            }
        }
        // One after the other, for there may be thousands.
        let mut turn = Turn::take(&shared.turns).await;
        let news = ToAgent::Leadership(leadership(&now));
        if turn.wait_for(session.send(news)).await.is_none() {
            return session.reason();
        }
        let lead = async {
            let Some(term) = now.ready else {
                drop(turn);
                return std::future::pending().await;
            };
            // A new leader hears thousands of nodes at once, and nearly all are as they were.
            if !registration.is_written(&shared.registry) {
                turn.pass();
                let permit = shared.registrations.acquire().await;
                registration.write(&shared.registry, term).await;
                drop(permit);
                // What was written just now is to be in the first message.
                assignments::caught_up(shared).await;
            }
            assignments::send(shared, session, term, turn).await
        };
        tokio::select! {
            more = async { changes.wait_for(|next| *next != now).await.is_ok() } => {
                if !more {
                    return unavailable(ENDING);
                }
            }
            reason = Box::pin(lead) => return reason,
        }
    }
}

/// One of the turns, while a session has it.
pub(super) struct Turn<'a> {
    turns: &'a Semaphore,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    async fn take(turns: &'a Semaphore) -> Self {
        let mut turn = Self { turns, permit: None };
        turn.again().await;
        turn
    }

    /// Lets others go on.
    pub fn pass(&mut self) {
        self.permit = None;
    }

    /// Waits for what its agent does; one that takes its time keeps nobody else waiting.
    pub async fn wait_for<T>(&mut self, answer: impl Future<Output = T>) -> T {
        tokio::pin!(answer);
        match tokio::time::timeout(AT_ONCE, answer.as_mut()).await {
            Ok(answer) => answer,
            Err(_) => {
                self.pass();
                answer.await
            }
        }
    }

    /// Waits for a turn, unless it has one.
    pub async fn again(&mut self) {
        if self.permit.is_none() {
            // Nobody closes it.
            self.permit = self.turns.acquire().await.ok();
        }
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
