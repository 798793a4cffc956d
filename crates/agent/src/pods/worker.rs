//! The task of one pod. It looks, decides, takes one step, tells the status, and waits for
//! something to happen. Only it touches the pod's containers, so no two steps collide.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus, Volume};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::access::{self, Tokens};
use super::events::Recorder;
use super::outbox::Outbox;
use super::plan::{Failure, Memory, Plan, Step, plan, plan_end};
use super::prober::Prober;
use super::steps::{
    Condemned, LEAST_GRACE, StepError, find_container, node_values, stop_all, take,
};
use super::{disk, resolve, status, termination, volumes};
use crate::assignments::{Shared, SharedLookup};
use crate::runtime::{PodRef, Record, Role, RunState, Runtime, RuntimeError};

/// Looks again even when nothing was heard: an event may have been lost.
const RESYNC: Duration = Duration::from_secs(30);
/// Between two looks at the size of volumes that have a limit.
const MEASURE: Duration = Duration::from_secs(10);
/// Before asking again a runtime that failed.
const RETRY: Duration = Duration::from_secs(1);
/// For containers whose pod nobody knows any more and that carry no grace of their own.
const ORPHAN_GRACE: u32 = 10;
/// A claim's volume usually is there after this many looks.
const MOUNTS_SOON: u32 = 2;
/// A reference of the container leads nowhere.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// Something that comes by itself, such as the volume of a claim: Kubernetes shows no other reason.
pub const WAITING: &str = "ContainerCreating";
/// The node has no pod network (yet).
pub const NO_NETWORK: &str = "NetworkNotReady";

/// Can sandboxes get addresses?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Not yet, or not any more; why.
    Waiting(String),
    /// Yes.
    Ready,
}

/// What all workers of a node share.
pub struct Context {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// Objects that pods refer to.
    pub objects: Shared,
    /// Where statuses go.
    pub outbox: Arc<Outbox>,
    /// Name of the node.
    pub node_name: String,
    /// Its address.
    pub node_address: IpAddr,
    /// Tokens of the pods' service accounts.
    pub tokens: Tokens,
    /// Where volumes are; none: the node has none.
    pub data_dir: Option<PathBuf>,
    /// Is there a pod network?
    pub network: watch::Receiver<Network>,
}

/// What shall become of a pod.
#[derive(Debug, Clone)]
pub enum Desired {
    /// It is assigned. With a deletion timestamp it shall end, and that be told.
    Assigned(Arc<Pod>),
    /// It is not assigned (any more): nothing of it shall be left.
    Removed,
}

/// The worker of one pod.
pub struct Worker {
    context: Arc<Context>,
    pod: PodRef,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    memory: Memory,
    prober: Prober,
    events: Recorder,
    /// The last known object, for its grace and its last status.
    object: Option<Arc<Pod>>,
    status: Option<PodStatus>,
    /// When its volumes were measured last.
    measured: Option<Instant>,
    /// Why volumes could not be refreshed the last time.
    stale: Vec<String>,
    /// When its end began: all that is stopped shares one grace.
    ending: Option<Instant>,
    gone: bool,
}

impl Worker {
    /// A worker that has not looked yet.
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        pod: PodRef,
        desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
    ) -> Self {
        let (memory, prober) = (Memory::default(), Prober::new(wake.clone()));
        let events = Recorder::new(&context, pod.clone());
        Self {
            context,
            pod,
            desired,
            wake,
            memory,
            prober,
            events,
            object: None,
            status: None,
            measured: None,
            stale: Vec::new(),
            ending: None,
            gone: false,
        }
    }

    /// Works until nothing of a removed pod is left. Dropping it stops nothing.
    pub async fn run(mut self) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            if let Desired::Assigned(pod) = &desired {
                self.object = Some(pod.clone());
            }
            let wait = match self.turn(&desired).await {
                Ok(Some(wait)) => wait,
                Ok(None) if self.gone && matches!(desired, Desired::Removed) => return,
                Ok(None) => continue,
                Err(error) => {
                    warn!(pod = %self.pod, %error, "cannot work on a pod; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Perhaps what was missing is there now.
                () = self.wake.notified() => {
                    let missing = [CONFIG_ERROR, WAITING];
                    self.memory.containers.retain(|_, f| !missing.contains(&f.reason));
                }
                changed = self.desired.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One look and one step. Answers how long to wait, or none to look again at once.
    async fn turn(&mut self, desired: &Desired) -> Result<Option<Duration>, RuntimeError> {
        let records = self.context.runtime.list(Some(&self.pod.uid)).await?;
        let waited = self.memory.sandbox.as_ref().is_some_and(|f| f.reason == NO_NETWORK);
        if waited && *self.context.network.borrow() == Network::Ready {
            self.memory.sandbox = None;
        }
        let now = quorate_objects::time::timestamp();
        let ending = match desired {
            Desired::Removed => true,
            Desired::Assigned(pod) => pod.metadata.deletion_timestamp.is_some(),
        };
        if ending {
            return self.end(desired, &records, now).await;
        }
        self.ending = None;
        let Desired::Assigned(pod) = desired else { return Ok(None) };
        self.probe(pod, &records);
        self.hear_last_words(pod, &records).await;
        self.tell(pod, &records, now);
        let Plan { step, wake } = plan(pod, &records, &self.memory, now);
        if step == Step::Idle {
            let due = wake.map_or(RESYNC, |due| {
                let left = due
                    .duration_since(quorate_objects::time::timestamp())
                    .max(SignedDuration::ZERO);
                Duration::try_from(left).unwrap_or(RETRY).min(RESYNC)
            });
            self.refresh_volumes(pod).await;
            return Ok(self.measure_volumes(pod).await.map(|again| again.min(due)));
        }
        debug!(pod = %self.pod, ?step, "step");
        let mut interrupt = self.desired.clone();
        let condemned = self.condemned();
        tokio::select! {
            result = Box::pin(take(&self.context, pod, &records, &step, &condemned)) => {
                self.note(&step, result)
            }
            // A pull may last; a deletion does not wait for it.
            _ = until_ending(&mut interrupt) => Ok(None),
        }
    }

    /// Why probes have condemned containers.
    fn condemned(&self) -> Condemned {
        let probes = self.memory.probes.iter();
        probes.filter_map(|(id, probed)| Some((id.clone(), probed.failed.clone()?))).collect()
    }

    /// Remembers what a step could not do, and forgets it when it could.
    fn note(
        &mut self,
        step: &Step,
        result: Result<(), StepError>,
    ) -> Result<Option<Duration>, RuntimeError> {
        let now = quorate_objects::time::timestamp();
        match (step, result) {
            (Step::StartSandbox { .. }, Ok(())) => self.memory.sandbox = None,
            (Step::Start { name, .. }, Ok(())) => {
                self.memory.containers.remove(name);
            }
            (_, Ok(())) => {}
            (_, Err(StepError::Runtime(error))) => return Err(error),
            (Step::StartSandbox { .. }, Err(StepError::Failed { reason, message })) => {
                warn!(pod = %self.pod, message, "cannot make the pod's sandbox");
                let (name, text) = if reason == NO_NETWORK {
                    (NO_NETWORK, format!("network is not ready: {message}"))
                } else {
                    ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"))
                };
                self.events.warning(None, name, text);
                let before = self.memory.sandbox.take().map_or(0, |f| f.before + 1);
                self.memory.sandbox = Some(Failure { reason, message, at: now, before });
            }
            (Step::Start { role, name, .. }, Err(StepError::Failed { reason, message })) => {
                info!(pod = %self.pod, container = name, reason, message, "cannot start");
                let before = self.memory.containers.get(name).map_or(0, |f| f.before + 1);
                if reason == CONFIG_ERROR {
                    let part = Some((*role, name.as_str()));
                    self.events.warning(part, "Failed", format!("Error: {message}"));
                } else if reason == WAITING && before >= MOUNTS_SOON {
                    self.events.warning(None, "FailedMount", message.clone());
                }
                let failure = Failure { reason, message, at: now, before };
                self.memory.containers.insert(name.clone(), failure);
            }
            (_, Err(StepError::Failed { message, .. })) => {
                warn!(pod = %self.pod, message, "a step failed");
                return Ok(Some(RETRY));
            }
        }
        Ok(None)
    }

    /// Probes what runs, and takes in what probes have found.
    fn probe(&mut self, pod: &Pod, records: &[Record]) {
        let known = self.status.as_ref().or(pod.status.as_ref());
        let (runtime, host) = (&self.context.runtime, self.context.node_address);
        if runtime.runs_processes() {
            self.prober.sync(runtime, pod, records, known, host, &self.events);
        }
        self.memory.probes = self.prober.results();
    }

    /// Leads a pod to its end.
    async fn end(
        &mut self,
        desired: &Desired,
        records: &[Record],
        now: Timestamp,
    ) -> Result<Option<Duration>, RuntimeError> {
        let begun = *self.ending.get_or_insert_with(Instant::now);
        let assigned = match desired {
            Desired::Assigned(pod) => Some(pod.clone()),
            Desired::Removed => None,
        };
        if let Some(pod) = &assigned
            && records.iter().any(|r| r.role != Role::Sandbox)
        {
            // The last status with containers in it; after them there is nothing to see.
            self.probe(pod, records);
            self.hear_last_words(pod, records).await;
            self.tell(pod, records, now);
        }
        match plan_end(records) {
            Step::Stop(ids) => {
                let all = self.grace(records);
                let grace = all.saturating_sub(begun.elapsed()).max(LEAST_GRACE.min(all));
                info!(pod = %self.pod, grace_seconds = grace.as_secs(), "stopping");
                let mut interrupt = self.desired.clone();
                let none = Condemned::new();
                let pod = self.object.as_deref();
                let stops = stop_all(&self.context, pod, records, &ids, grace, &none);
                tokio::select! {
                    result = Box::pin(stops) => result?,
                    () = until_hurried(&mut interrupt, all) => {}
                }
                Ok(None)
            }
            Step::Remove(ids) => {
                for id in ids {
                    self.context.runtime.remove(&id).await?;
                }
                Ok(None)
            }
            _ => self.finish(assigned.as_deref()).await,
        }
    }

    /// Nothing runs any more.
    async fn finish(&mut self, assigned: Option<&Pod>) -> Result<Option<Duration>, RuntimeError> {
        if let Some(folder) = self.context.data_dir.clone() {
            let uid = self.pod.uid.clone();
            let removed = tokio::task::spawn_blocking(move || volumes::remove(&folder, &uid)).await;
            if let Ok(Err(error)) = removed {
                warn!(pod = %self.pod, %error, "cannot remove the pod's volumes");
            }
        }
        if !self.gone {
            info!(pod = %self.pod, "the pod has ended and is removed");
        }
        self.gone = true;
        let Some(pod) = assigned else {
            self.context.outbox.forget(&self.pod.uid);
            self.context.tokens.forget(&self.pod.uid);
            return Ok(None);
        };
        let last = self.status.clone().or_else(|| pod.status.clone()).unwrap_or_default();
        self.context.outbox.put(&self.pod, &last, true);
        Ok(Some(RESYNC))
    }

    fn grace(&self, records: &[Record]) -> Duration {
        let labelled = records.iter().filter(|r| r.role != Role::Sandbox).map(|r| r.grace).max();
        let own = self.object.as_deref().map(resolve::grace);
        Duration::from_secs(u64::from(own.or(labelled).unwrap_or(ORPHAN_GRACE)))
    }

    fn tell(&mut self, pod: &Pod, records: &[Record], now: Timestamp) {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        // What ended stays as it was told, even when its containers are gone by now.
        if over && pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let empty = PodStatus::default();
        self.memory.started_at = self.memory.started_at.or_else(|| {
            let told = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
            told.map(|time| time.0).or(Some(now))
        });
        let previous = self.status.as_ref().or(pod.status.as_ref()).unwrap_or(&empty);
        let computed = status::compute(&status::Input {
            pod,
            records,
            memory: &self.memory,
            previous,
            host_ip: self.context.node_address,
            now,
        });
        self.tell_back_offs(pod, previous, &computed);
        self.context.outbox.put(&self.pod, &computed, false);
        self.status = Some(computed);
    }

    /// Takes in what containers have left that ended since the last look.
    async fn hear_last_words(&mut self, pod: &Pod, records: &[Record]) {
        self.memory.messages.retain(|id, _| records.iter().any(|record| record.id == *id));
        let over = |r: &&Record| r.role != Role::Sandbox && r.state == RunState::Exited;
        for record in records.iter().filter(over) {
            if self.memory.messages.contains_key(&record.id) {
                continue;
            }
            let container = find_container(pod, record.role, &record.container);
            let Some(container) = container else { continue };
            let said = termination::message(&self.context, &container, record).await;
            self.memory.messages.insert(record.id.clone(), said);
        }
    }

    /// Looks whether volumes are larger than they may be, now and then. Answers when to look
    /// again; none: at once, because the pod has to go.
    async fn measure_volumes(&mut self, pod: &Arc<Pod>) -> Option<Duration> {
        let folder = self.context.data_dir.clone().filter(|_| disk::has_limits(pod));
        let Some(folder) = folder.filter(|_| self.memory.evicted.is_none()) else {
            return Some(RESYNC);
        };
        let since = self.measured.map_or(MEASURE, |at| at.elapsed());
        if let Some(left) = MEASURE.checked_sub(since).filter(|left| !left.is_zero()) {
            return Some(left);
        }
        self.measured = Some(Instant::now());
        let measured = pod.clone();
        let excess = tokio::task::spawn_blocking(move || disk::excess(&folder, &measured)).await;
        let Ok(Some(why)) = excess else { return Some(MEASURE) };
        info!(pod = %self.pod, why, "the pod is evicted");
        self.events.warning(None, "Evicted", why.clone());
        self.memory.evicted = Some(why);
        None
    }

    /// Events of containers that wait from now on before they are tried again.
    fn tell_back_offs(&self, pod: &Pod, before: &PodStatus, now: &PodStatus) {
        let reasons = |status: &PodStatus| -> Vec<(Role, String, Option<String>)> {
            let lists = [
                (Role::Init, &status.init_container_statuses),
                (Role::App, &status.container_statuses),
            ];
            let all = lists.into_iter().flat_map(|(role, list)| {
                list.iter().flatten().map(move |container| {
                    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
                    (role, container.name.clone(), waiting.and_then(|w| w.reason.clone()))
                })
            });
            all.collect()
        };
        let known = reasons(before);
        for (role, name, reason) in reasons(now).into_iter().filter(|now| !known.contains(now)) {
            let part = Some((role, name.as_str()));
            match reason.as_deref() {
                Some("CrashLoopBackOff") => {
                    let text = format!(
                        "Back-off restarting failed container {name} in pod {}_{}({})",
                        self.pod.name, self.pod.namespace, self.pod.uid
                    );
                    self.events.warning(part, "BackOff", text);
                }
                Some("ImagePullBackOff") => {
                    let mut all = pod.spec.iter().flat_map(|spec| {
                        spec.containers.iter().chain(spec.init_containers.iter().flatten())
                    });
                    let image = all.find(|c| c.name == name).and_then(|c| c.image.clone());
                    let image = image.unwrap_or_default();
                    self.events.normal(
                        part,
                        "BackOff",
                        format!("Back-off pulling image \"{image}\""),
                    );
                }
                _ => {}
            }
        }
    }

    /// A ConfigMap may have changed, or a token been renewed: its files follow. What one volume
    /// lacks keeps no other from that.
    async fn refresh_volumes(&mut self, pod: &Arc<Pod>) {
        let files = |v: &Volume| {
            v.config_map.is_some()
                || v.secret.is_some()
                || v.projected.is_some()
                || v.downward_api.is_some()
        };
        let Some(folder) = self.context.data_dir.clone() else { return };
        let pod = access::complete(pod);
        if !pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(files) {
            return;
        }
        let tokens = self.context.tokens.of_pod(&folder, &pod).await;
        let context = self.context.clone();
        let values = node_values(&context, self.status.as_ref());
        let refreshed = tokio::task::spawn_blocking(move || {
            let lookup = SharedLookup(context.objects.clone());
            volumes::refresh(&folder, &pod, &lookup, &values, &tokens)
        });
        let Ok(errors) = refreshed.await else { return };
        for error in errors.iter().filter(|error| !self.stale.contains(error)) {
            warn!(pod = %self.pod, error, "a volume is not refreshed; its files stay as they are");
        }
        self.stale = errors;
    }
}

async fn until_ending(desired: &mut watch::Receiver<Desired>) {
    let ending = |desired: &Desired| match desired {
        Desired::Removed => true,
        Desired::Assigned(pod) => pod.metadata.deletion_timestamp.is_some(),
    };
    if desired.wait_for(ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the pod is to end with less grace than it was given. No other change of it, such
/// as its own status that comes back, disturbs its end.
async fn until_hurried(desired: &mut watch::Receiver<Desired>, grace: Duration) {
    let hurried = |desired: &Desired| match desired {
        Desired::Removed => false,
        Desired::Assigned(pod) => Duration::from_secs(u64::from(resolve::grace(pod))) < grace,
    };
    if desired.wait_for(hurried).await.is_err() {
        std::future::pending::<()>().await;
    }
}
