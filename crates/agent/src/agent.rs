//! The agent's one loop: sessions, the runtime's events and timers come in; pods, services
//! and statuses follow. It never waits for any of them.

mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::NodeCondition;
use parking_lot::RwLock;
use quorate_proto::v1;
use quorate_proto::v1::agent_message::Message as ToMaster;
use quorate_proto::v1::master_message::Message as FromMaster;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use self::report::InFlight;
use crate::AgentOptions;
use crate::assignments::{Assignments, Shared};
use crate::dns::{self, zone::Zone};
use crate::error::AgentError;
use crate::node::Troubles;
use crate::pods::access::Tokens;
use crate::pods::manager::Manager;
use crate::pods::outbox::Outbox;
use crate::pods::worker::{Context, Network};
use crate::proxy::table::{self, Table};
use crate::runtime::{Record, Runtime};
use crate::session::{Event, Sessions};
use crate::{background, streams, usage};

/// Looks for orphans and for what was missed.
const ROUND: Duration = Duration::from_secs(30);

struct Session {
    url: String,
    /// URLs of all masters, as this one names them.
    named: Vec<String>,
    control: mpsc::Sender<ToMaster>,
    channel: Channel,
}

/// What happens inside of the agent.
pub(crate) enum Internal {
    /// A container of the pod with this uid changed.
    Pod(String),
    /// The runtime's events may have gaps: look at everything.
    Resync,
    /// The runtime answers, or why not.
    Runtime(Option<String>),
    /// All containers of the node, to find orphans.
    Records(Vec<Record>),
    /// What the node and its containers use.
    Usage(v1::UsageReport),
}

/// All state of the loop.
pub(crate) struct Agent {
    node_name: String,
    cluster: String,
    address: std::net::IpAddr,
    runtime: Arc<dyn Runtime>,
    shared: Shared,
    outbox: Arc<Outbox>,
    manager: Manager,
    sessions: Sessions,
    up: BTreeMap<u64, Session>,
    /// To some master, for questions that any of them answers.
    channel: watch::Sender<Option<Channel>>,
    /// The session whose master sent the newest assignments.
    leader: Option<u64>,
    /// A ready leader has told everything since this agent started.
    authoritative: bool,
    /// A master of the own cluster has answered since this agent started.
    welcomed: bool,
    sequence: u64,
    in_flight: Option<InFlight>,
    /// The leader could not write: not again before this.
    hold: Option<Instant>,
    troubles: Troubles,
    told_troubles: Option<Troubles>,
    told_conditions: Vec<NodeCondition>,
    cidr: watch::Sender<Option<String>>,
    network: watch::Receiver<Network>,
    table: watch::Sender<Table>,
    zone: watch::Sender<Arc<Zone>>,
    problems: watch::Receiver<Vec<String>>,
    /// Tells whoever writes assignments down.
    dirty: Arc<Notify>,
    /// Tells whoever removes the data of volumes.
    doomed: Arc<Notify>,
    internal: mpsc::Sender<Internal>,
    internal_receiver: Option<mpsc::Receiver<Internal>>,
    cancel: CancellationToken,
}

/// What the node has beside its runtime.
pub(crate) struct Machine {
    /// Identity, assignments, volumes; none: the node keeps nothing.
    pub data_dir: Option<PathBuf>,
    /// Pods get addresses, and services are served.
    pub network: bool,
}

fn kept(file: &std::path::Path) -> Result<Assignments, AgentError> {
    let kept = Assignments::load(file).map_err(|e| AgentError::DataDir {
        path: file.to_owned(),
        message: format!("cannot read the assignments: {e}; remove the file to start without"),
    })?;
    info!(pods = kept.pods().count(), term = kept.term(), "kept assignments");
    Ok(kept)
}

impl Agent {
    /// Takes up what the last run left, and starts the tasks in the background.
    pub(crate) fn start(
        options: &AgentOptions,
        machine: Machine,
        cluster: &str,
        runtime: Arc<dyn Runtime>,
        sessions: Sessions,
        cancel: CancellationToken,
    ) -> Result<(Self, Option<tokio::task::JoinHandle<()>>), AgentError> {
        let file = machine.data_dir.as_ref().map(|folder| folder.join("assignments.json"));
        let kept = file.as_deref().map(kept).transpose()?.unwrap_or_default();
        let shared: Shared = Arc::new(RwLock::new(kept));
        let (cidr, cidr_receiver) = watch::channel(None);
        let (network_sender, network) = watch::channel(if machine.network {
            Network::Waiting("the node has no pod address range yet".into())
        } else {
            Network::Ready
        });
        let (table, table_receiver) = watch::channel(Table::new());
        let (problems_sender, problems) = watch::channel(Vec::new());
        let (internal, internal_receiver) = mpsc::channel(1024);
        let (channel, channel_receiver) = watch::channel(None);
        let outbox = Arc::new(Outbox::default());
        let dirty = Arc::new(Notify::new());
        let context = Arc::new(Context {
            runtime: runtime.clone(),
            objects: shared.clone(),
            outbox: outbox.clone(),
            node_name: options.node_name.clone(),
            node_address: options.node_address,
            tokens: Tokens::new(channel_receiver),
            data_dir: machine.data_dir,
            network: network.clone(),
        });
        background::events(runtime.clone(), internal.clone(), cancel.clone());
        usage::measure(runtime.clone(), internal.clone(), cancel.clone());
        let doomed = Arc::new(Notify::new());
        background::remove_data(context.clone(), doomed.clone(), cancel.clone());
        if let Some(file) = file {
            background::save(shared.clone(), dirty.clone(), file, cancel.clone());
        }
        let (zone, zone_receiver) = watch::channel(Arc::default());
        let proxy = machine.network.then(|| {
            // Answers pods' questions; nothing but the agent's end ends it.
            tokio::spawn(dns::run(cidr_receiver.clone(), zone_receiver, cancel.clone()));
            background::network(runtime.clone(), cidr_receiver, network_sender, cancel.clone());
            let proxy = crate::proxy::Proxy::new(cluster, table_receiver, problems_sender);
            // Serves services; its last act is to remove routes, so its end is awaited.
            tokio::spawn(proxy.run(cancel.clone()))
        });
        let agent = Self {
            node_name: options.node_name.clone(),
            cluster: cluster.to_owned(),
            address: options.node_address,
            runtime,
            shared,
            outbox,
            manager: Manager::new(context),
            sessions,
            up: BTreeMap::new(),
            channel,
            leader: None,
            authoritative: false,
            welcomed: false,
            sequence: 0,
            in_flight: None,
            hold: None,
            troubles: Troubles::default(),
            told_troubles: None,
            told_conditions: Vec::new(),
            cidr,
            network,
            table,
            zone,
            problems,
            dirty,
            doomed,
            internal,
            internal_receiver: Some(internal_receiver),
            cancel,
        };
        Ok((agent, proxy))
    }

    /// Runs until cancelled. What runs on the node goes on.
    pub(crate) async fn run(
        mut self,
        early: Vec<Event>,
        mut events: mpsc::Receiver<Event>,
    ) -> Result<(), AgentError> {
        let Some(mut internal) = self.internal_receiver.take() else { return Ok(()) };
        self.spread(&crate::assignments::Change {
            pods: true,
            configs: true,
            volumes: true,
            services: true,
            node: true,
        });
        for event in early {
            self.event(event)?;
        }
        let mut round = tokio::time::interval(ROUND);
        let (cancel, outbox) = (self.cancel.clone(), self.outbox.clone());
        let (mut network, mut problems) = (self.network.clone(), self.problems.clone());
        loop {
            let due = self.due();
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                event = events.recv() => match event {
                    Some(event) => self.event(event)?,
                    None => return Ok(()),
                },
                message = internal.recv() => if let Some(message) = message {
                    self.internal(message);
                },
                () = self.manager.finished() => {}
                () = outbox.changed() => {}
                Ok(()) = network.changed() => {
                    self.troubles.network = match network.borrow_and_update().clone() {
                        Network::Waiting(why) => Some(why),
                        Network::Ready => None,
                    };
                    self.manager.wake_all();
                }
                Ok(()) = problems.changed() => {
                    self.troubles.services = problems.borrow_and_update().clone();
                }
                _ = round.tick() => self.look_for_orphans(),
                () = tokio::time::sleep_until(due) => {}
            }
            self.send();
        }
    }

    fn event(&mut self, event: Event) -> Result<(), AgentError> {
        match event {
            Event::Up { session, url, welcome, control, channel } => {
                if welcome.cluster_id != self.cluster {
                    return self.refuse(url, welcome.cluster_id);
                }
                // It has been given up while this was on its way.
                if !self.sessions.keeps(&url) {
                    return Ok(());
                }
                for other in &welcome.master_urls {
                    self.sessions.add(other);
                }
                debug!(session, url, "session is up");
                self.welcomed = true;
                let named = welcome.master_urls;
                self.up.insert(session, Session { url: url.clone(), named, control, channel });
                self.settle(&url, &welcome.master_name);
                self.choose_channel();
            }
            Event::Down { session } => self.down(session),
            Event::Replaced { message } => {
                error!(message, "a master refuses this agent");
                return Err(AgentError::Replaced(self.node_name.clone()));
            }
            // Once a master has welcomed it, another master's word does not end it.
            Event::Refused { message } if !self.welcomed => {
                return Err(AgentError::Refused(message));
            }
            Event::Refused { .. } => {}
            Event::Message { session, message } => self.message(session, message),
        }
        Ok(())
    }

    /// One session with each master, however many URLs lead to it.
    fn settle(&mut self, url: &str, master: &str) {
        let up = &self.up;
        let named = |url: &str| {
            let mut all = up.values().flat_map(|session| &session.named);
            all.any(|named| named.trim_end_matches('/') == url)
        };
        let is_up = |url: &str| up.values().any(|session| session.url == url);
        let given_up = self.sessions.settle(url, master, named, is_up);
        let of = |session: &Session| given_up.contains(&session.url);
        let over: Vec<u64> =
            self.up.iter().filter(|(_, session)| of(session)).map(|(id, _)| *id).collect();
        for session in over {
            self.down(session);
        }
    }

    fn down(&mut self, session: u64) {
        self.up.remove(&session);
        self.choose_channel();
        if self.leader == Some(session) {
            self.lose_leader();
        }
    }

    /// The leader's, if it is there.
    fn choose_channel(&self) {
        let leader = self.leader.and_then(|session| self.up.get(&session));
        let session = leader.or_else(|| self.up.values().next());
        self.channel.send_replace(session.map(|session| session.channel.clone()));
    }

    /// A master of another cluster: fatal for a node that has never heard its own.
    fn refuse(&self, master: String, theirs: String) -> Result<(), AgentError> {
        let wrong = AgentError::WrongCluster { master, theirs, ours: self.cluster.clone() };
        if self.shared.read().term() == 0 {
            return Err(wrong);
        }
        error!("{wrong}");
        Ok(())
    }

    fn lose_leader(&mut self) {
        self.leader = None;
        // Whoever leads next hears it all again.
        self.in_flight = None;
        self.told_troubles = None;
    }

    fn message(&mut self, session: u64, message: FromMaster) {
        match message {
            FromMaster::Assignments(assignments) => self.assignments(session, assignments),
            FromMaster::StatusAck(ack) => self.acknowledged(session, &ack),
            FromMaster::Leadership(leadership) if leadership.self_ready => {
                self.tell_holding(session, leadership.term);
            }
            FromMaster::Leadership(_) if self.leader == Some(session) => self.lose_leader(),
            FromMaster::Leadership(_) => {}
            FromMaster::StreamRequest(request) => self.stream(session, request),
            FromMaster::Welcome(_) => {}
        }
    }

    /// So that a new leader need not send what the node has already.
    fn tell_holding(&self, session: u64, term: u64) {
        let Some(session) = self.up.get(&session) else { return };
        if let Ok(holding) = self.shared.write().hold(term) {
            // A full queue: the leader sends everything then.
            let _ = session.control.try_send(ToMaster::Holding(holding));
        }
    }

    fn assignments(&mut self, session: u64, message: v1::Assignments) {
        if !self.up.contains_key(&session) {
            return;
        }
        let (complete, term) = (message.full || message.complete, message.term);
        let change = match self.shared.write().apply(message) {
            Ok(change) => change,
            Err(stale) => {
                warn!(
                    term = stale.term,
                    newest = stale.newest,
                    "refused assignments of a leader of an older term"
                );
                return;
            }
        };
        if self.leader != Some(session) {
            self.lose_leader();
            self.leader = Some(session);
            let url = self.up.get(&session).map_or("", |s| s.url.as_str());
            info!(term, url, "taking assignments from the leader");
            self.choose_channel();
        }
        self.dirty.notify_one();
        self.spread(&change);
        if complete {
            self.authoritative = true;
            let pods: Vec<_> = self.shared.read().pods().cloned().collect();
            for pod in pods {
                if let Some(uid) = &pod.metadata.uid {
                    self.outbox.compare(uid, pod.status.as_ref());
                }
            }
            self.look_for_orphans();
        }
    }

    /// Hands a change to those whom it concerns.
    fn spread(&mut self, change: &crate::assignments::Change) {
        if change.pods {
            let pods: Vec<_> = self.shared.read().pods().cloned().collect();
            self.manager.assign(&pods);
        }
        if change.configs || change.volumes {
            self.manager.wake_all();
        }
        if change.volumes {
            self.doomed.notify_one();
        }
        if change.services {
            let (services, slices) = {
                let all = self.shared.read();
                (all.services(), all.slices())
            };
            self.zone.send_replace(Arc::new(dns::zone::build(&services, &slices)));
            self.table.send_replace(table::build(&services, &slices, self.address));
        }
        if change.node {
            let cidr = self.shared.read().pod_cidr();
            self.cidr.send_if_modified(|present| {
                let changed = *present != cidr;
                *present = cidr;
                changed
            });
        }
    }

    fn look_for_orphans(&self) {
        if !self.authoritative {
            return;
        }
        let (runtime, internal) = (self.runtime.clone(), self.internal.clone());
        // One look; when the runtime does not answer, the next round looks again.
        tokio::spawn(async move {
            match runtime.list(None).await {
                Ok(records) => drop(internal.send(Internal::Records(records)).await),
                Err(error) => debug!(%error, "cannot look for orphans"),
            }
        });
    }

    fn internal(&mut self, message: Internal) {
        match message {
            Internal::Pod(uid) => self.manager.wake(&uid),
            Internal::Resync => self.manager.wake_all(),
            Internal::Runtime(trouble) => self.troubles.runtime = trouble,
            Internal::Records(records) => self.manager.remove_orphans(&records),
            Internal::Usage(report) => {
                for session in self.up.values() {
                    // A full queue: the next measurement is as good.
                    let _ = session.control.try_send(ToMaster::Usage(report.clone()));
                }
            }
        }
    }

    fn stream(&mut self, session: u64, request: v1::StreamRequest) {
        let Some(channel) = self.up.get(&session).map(|s| s.channel.clone()) else { return };
        let pod = self.shared.read().pod(&request.namespace, &request.pod);
        let (runtime, node) = (self.runtime.clone(), self.node_name.clone());
        let serve = streams::serve(runtime, node, channel, pod, request);
        // Serves one stream; its failure is told to whoever asked for it.
        tokio::spawn(self.cancel.clone().run_until_cancelled_owned(serve));
    }
}
