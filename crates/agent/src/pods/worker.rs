//! The task of one pod. It looks, decides, takes one step, tells the status, and waits for
//! something to happen. Only it touches the pod's containers, so no two steps collide.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, Volume};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::env::NodeValues;
use super::outbox::Outbox;
use super::plan::{Failure, Memory, Plan, Step, ephemeral, newest, plan, plan_end, sandbox_ip};
use super::prober::Prober;
use super::resolve::{self, Making};
use super::{probe, status, volumes};
use crate::assignments::{Shared, SharedLookup};
use crate::dns;
use crate::runtime::{
    ImageError, PidNamespace, PodRef, Record, Role, RunState, Runtime, RuntimeError,
};

/// Looks again even when nothing was heard: an event may have been lost.
const RESYNC: Duration = Duration::from_secs(30);
/// Before asking again a runtime that failed.
const RETRY: Duration = Duration::from_secs(1);
/// For containers whose pod nobody knows any more and that carry no grace of their own.
const ORPHAN_GRACE: u32 = 10;
/// A reference of the container leads nowhere.
const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// The node has no pod network (yet).
const NO_NETWORK: &str = "NetworkNotReady";

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
    /// The last known object, for its grace and its last status.
    object: Option<Arc<Pod>>,
    status: Option<PodStatus>,
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
        Self {
            context,
            pod,
            desired,
            wake,
            memory,
            prober,
            object: None,
            status: None,
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
                    self.memory.containers.retain(|_, f| f.reason != CONFIG_ERROR);
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
        let now = Timestamp::now();
        let ending = match desired {
            Desired::Removed => true,
            Desired::Assigned(pod) => pod.metadata.deletion_timestamp.is_some(),
        };
        if ending {
            return self.end(desired, &records, now).await;
        }
        let Desired::Assigned(pod) = desired else { return Ok(None) };
        self.probe(pod, &records);
        self.tell(pod, &records, now);
        let Plan { step, wake } = plan(pod, &records, &self.memory, now);
        if step == Step::Idle {
            let due = wake.map_or(RESYNC, |due| {
                let left = due.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
                Duration::try_from(left).unwrap_or(RETRY).min(RESYNC)
            });
            self.refresh_volumes(pod).await;
            return Ok(Some(due));
        }
        debug!(pod = %self.pod, ?step, "step");
        let mut interrupt = self.desired.clone();
        tokio::select! {
            result = Box::pin(take(&self.context, pod, &records, &step)) => {
                self.note(&step, result)
            }
            // A pull may last; a deletion does not wait for it.
            _ = until_ending(&mut interrupt) => Ok(None),
        }
    }

    /// Remembers what a step could not do, and forgets it when it could.
    fn note(
        &mut self,
        step: &Step,
        result: Result<(), StepError>,
    ) -> Result<Option<Duration>, RuntimeError> {
        let now = Timestamp::now();
        match (step, result) {
            (Step::StartSandbox { .. }, Ok(())) => self.memory.sandbox = None,
            (Step::Start { name, .. }, Ok(())) => {
                self.memory.containers.remove(name);
            }
            (_, Ok(())) => {}
            (_, Err(StepError::Runtime(error))) => return Err(error),
            (Step::StartSandbox { .. }, Err(StepError::Failed { reason, message })) => {
                warn!(pod = %self.pod, message, "cannot make the pod's sandbox");
                let before = self.memory.sandbox.take().map_or(0, |f| f.before + 1);
                self.memory.sandbox = Some(Failure { reason, message, at: now, before });
            }
            (Step::Start { name, .. }, Err(StepError::Failed { reason, message })) => {
                info!(pod = %self.pod, container = name, reason, message, "cannot start");
                let before = self.memory.containers.get(name).map_or(0, |f| f.before + 1);
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
            self.prober.sync(runtime, pod, records, known, host);
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
        let assigned = match desired {
            Desired::Assigned(pod) => Some(pod.clone()),
            Desired::Removed => None,
        };
        if let Some(pod) = &assigned
            && records.iter().any(|r| r.role != Role::Sandbox)
        {
            // The last status with containers in it; after them there is nothing to see.
            self.probe(pod, records);
            self.tell(pod, records, now);
        }
        match plan_end(records) {
            Step::Stop(ids) => {
                let grace = self.grace(assigned.as_deref(), records);
                info!(pod = %self.pod, grace_seconds = grace.as_secs(), "stopping");
                let mut interrupt = self.desired.clone();
                let pod = assigned.as_deref().or(self.object.as_deref());
                let stops = stop_all(&self.context, pod, records, &ids, grace);
                tokio::select! {
                    result = Box::pin(stops) => result?,
                    // Perhaps with less grace now.
                    changed = interrupt.changed() => drop(changed),
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
            return Ok(None);
        };
        let last = self.status.clone().or_else(|| pod.status.clone()).unwrap_or_default();
        self.context.outbox.put(&self.pod, &last, true);
        Ok(Some(RESYNC))
    }

    fn grace(&self, assigned: Option<&Pod>, records: &[Record]) -> Duration {
        let labelled = records.iter().filter(|r| r.role != Role::Sandbox).map(|r| r.grace).max();
        let seconds = assigned
            .or(self.object.as_deref())
            .map(resolve::grace)
            .or(labelled)
            .unwrap_or(ORPHAN_GRACE);
        Duration::from_secs(u64::from(seconds))
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
        self.context.outbox.put(&self.pod, &computed, false);
        self.status = Some(computed);
    }

    /// A ConfigMap may have changed: its files follow.
    async fn refresh_volumes(&self, pod: &Arc<Pod>) {
        let files = |v: &Volume| {
            v.config_map.is_some()
                || v.secret.is_some()
                || v.projected.is_some()
                || v.downward_api.is_some()
        };
        if !pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(files) {
            return;
        }
        let Some(folder) = self.context.data_dir.clone() else { return };
        let (context, pod) = (self.context.clone(), pod.clone());
        let values = node_values(&context, self.status.as_ref());
        // A missing source is reported when a container starts; running ones keep theirs.
        let refreshed = tokio::task::spawn_blocking(move || {
            let lookup = SharedLookup(context.objects.clone());
            volumes::prepare(&folder, &pod, &lookup, &values)
        });
        if let Ok(Err(error)) = refreshed.await {
            debug!(pod = %self.pod, error, "volumes are not refreshed");
        }
    }
}

/// Why a step failed.
enum StepError {
    /// A fault of the runtime, not of the pod.
    Runtime(RuntimeError),
    /// The pod's status tells it.
    Failed { reason: &'static str, message: String },
}

impl From<RuntimeError> for StepError {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
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

/// What is left of the grace after a preStop hook is at least this long.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Stops containers at once, each after its preStop hook, which has the same grace.
async fn stop_all(
    context: &Context,
    pod: Option<&Pod>,
    records: &[Record],
    ids: &[String],
    grace: Duration,
) -> Result<(), RuntimeError> {
    let stops = ids.iter().map(async |id| {
        let begun = tokio::time::Instant::now();
        let record = records.iter().find(|record| record.id == *id);
        let mut grace = grace;
        if let (Some(pod), Some(record)) = (pod, record)
            && let Some(container) = find_container(pod, record.role, &record.container)
            && let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.clone())
            && context.runtime.runs_processes()
            && !grace.is_zero()
        {
            let target = target(context, container, record, records);
            let ran = tokio::time::timeout(grace, probe::hook(&target, &hook)).await;
            match ran {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(pod = %record.pod, error, "a preStop hook failed"),
                Err(_) => warn!(pod = %record.pod, "a preStop hook took all of the grace"),
            }
            grace = grace.saturating_sub(begun.elapsed()).max(LEAST_GRACE);
        }
        context.runtime.stop(id, grace).await
    });
    join_all(stops).await.into_iter().collect()
}

fn target(
    context: &Context,
    container: Container,
    record: &Record,
    records: &[Record],
) -> probe::Target {
    probe::Target {
        runtime: context.runtime.clone(),
        id: record.id.clone(),
        ip: sandbox_ip(records).unwrap_or(context.node_address),
        container: Arc::new(container),
    }
}

/// Takes a step of a pod that shall run.
async fn take(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    records: &[Record],
    step: &Step,
) -> Result<(), StepError> {
    match step {
        Step::Idle | Step::Gone => Ok(()),
        Step::Stop(ids) => {
            let grace = Duration::from_secs(u64::from(resolve::grace(pod)));
            Ok(stop_all(context, Some(pod), records, ids, grace).await?)
        }
        Step::Remove(ids) => {
            for id in ids {
                context.runtime.remove(id).await?;
            }
            Ok(())
        }
        Step::StartSandbox { attempt } => start_sandbox(context, pod, *attempt).await,
        Step::Start { role, name, attempt, failures, sandbox } => {
            let making = Making { role: *role, attempt: *attempt, failures: *failures, sandbox };
            start_container(context, pod, records, name, making).await
        }
    }
}

async fn start_sandbox(context: &Context, pod: &Pod, attempt: u32) -> Result<(), StepError> {
    let failed = |message| StepError::Failed { reason: "CreatePodSandboxError", message };
    let server = context.objects.read().pod_cidr().and_then(|range| dns::address(&range));
    let spec = resolve::sandbox(pod, attempt, context.node_address, server);
    if let Network::Waiting(why) = context.network.borrow().clone()
        && !spec.host_network
    {
        return Err(StepError::Failed { reason: NO_NETWORK, message: why });
    }
    match context.runtime.start_sandbox(&spec).await {
        Err(RuntimeError::Failed(message) | RuntimeError::NotFound(message)) => {
            Err(failed(message))
        }
        other => Ok(other?),
    }
}

fn node_values(context: &Context, status: Option<&PodStatus>) -> NodeValues {
    NodeValues {
        node_name: context.node_name.clone(),
        host_ip: context.node_address.to_string(),
        pod_ip: status.and_then(|s| s.pod_ip.clone()).unwrap_or_default(),
    }
}

async fn start_container(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    records: &[Record],
    name: &str,
    making: Making<'_>,
) -> Result<(), StepError> {
    let Some(container) = find_container(pod, making.role, name) else { return Ok(()) };
    let image = container.image.clone().unwrap_or_default();
    let pulled = context.runtime.ensure_image(&image, resolve::pull_policy(&container)).await;
    pulled.map_err(|error| match error {
        ImageError::NeverPull(_) => {
            StepError::Failed { reason: "ErrImageNeverPull", message: error.to_string() }
        }
        ImageError::Pull { .. } => {
            StepError::Failed { reason: "ErrImagePull", message: error.to_string() }
        }
        ImageError::Runtime(error) => StepError::Runtime(error),
    })?;
    let mut values = node_values(context, None);
    let sandbox = records.iter().find(|r| r.id == making.sandbox && r.state == RunState::Running);
    values.pod_ip = sandbox
        .and_then(|r| r.ip)
        .map_or_else(|| values.host_ip.clone(), |address| address.to_string());
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.clone());
    let begun = container.clone();
    let target_container = ephemeral_target(pod, &container.name);
    let (shared, pod) = (context.clone(), pod.clone());
    let (role, attempt, failures) = (making.role, making.attempt, making.failures);
    let sandbox = making.sandbox.to_owned();
    // Volumes are written here: the disk may be slow.
    let resolved = tokio::task::spawn_blocking(move || {
        let lookup = SharedLookup(shared.objects.clone());
        let making = Making { role, attempt, failures, sandbox: &sandbox };
        let folder = shared.data_dir.as_deref();
        resolve::container(folder, &pod, &container, &making, &lookup, &values)
    });
    let config_error = |message| StepError::Failed { reason: CONFIG_ERROR, message };
    let mut spec = resolved
        .await
        .map_err(|e| config_error(format!("cannot prepare the container: {e}")))?
        .map_err(config_error)?;
    if let Some(name) = target_container.filter(|_| role == Role::Ephemeral) {
        let running = newest(records, Role::App, &name).filter(|r| r.state == RunState::Running);
        let missing = || config_error(format!("container \"{name}\" does not run"));
        spec.pid = PidNamespace::Of(running.ok_or_else(missing)?.id.clone());
    }
    match context.runtime.start_container(&spec).await {
        // The engine keeps what it could not start, with the reason; back-off follows from
        // that. What it could not even make leaves no trace but this.
        Err(RuntimeError::Failed(message) | RuntimeError::NotFound(message)) => {
            let all = context.runtime.list(Some(&spec.pod.uid)).await?;
            let traced = all
                .iter()
                .any(|r| r.container == spec.name && r.attempt == spec.attempt && r.start_failed());
            if traced {
                return Ok(());
            }
            return Err(StepError::Failed { reason: "CreateContainerError", message });
        }
        other => other?,
    }
    let Some(hook) = hook.filter(|_| context.runtime.runs_processes()) else { return Ok(()) };
    let all = context.runtime.list(Some(&spec.pod.uid)).await?;
    let record = all.iter().find(|r| {
        r.container == spec.name && r.attempt == spec.attempt && r.state == RunState::Running
    });
    let Some(record) = record else { return Ok(()) };
    let target = target(context, begun, record, &all);
    if let Err(message) = probe::hook(&target, &hook).await {
        // As Kubernetes does: a container whose beginning failed does not go on.
        let grace = Duration::from_secs(u64::from(spec.grace));
        context.runtime.stop(&record.id, grace).await?;
        return Err(StepError::Failed { reason: "PostStartHookError", message });
    }
    Ok(())
}

/// The container whose processes an ephemeral one sees.
fn ephemeral_target(pod: &Pod, name: &str) -> Option<String> {
    let mut all = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    all.find(|one| one.name == name)?.target_container_name.clone().filter(|n| !n.is_empty())
}

fn find_container(pod: &Pod, role: Role, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let list = match role {
        Role::Init => spec.init_containers.as_ref()?,
        Role::Ephemeral => return ephemeral(pod).into_iter().find(|c| c.name == name),
        _ => &spec.containers,
    };
    list.iter().find(|c| c.name == name).cloned()
}
