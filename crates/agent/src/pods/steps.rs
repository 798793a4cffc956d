//! The steps of a pod's worker: sandbox and containers, their beginnings and their ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use tracing::warn;

use super::env::{Lookup as _, NodeValues};
use super::events::Recorder;
use super::plan::{Step, ephemeral, newest, sandbox_ip};
use super::resolve::{self, Making, Volumes};
use super::worker::{CONFIG_ERROR, Context, NO_NETWORK, Network, WAITING};
use super::{access, claims, probe};
use crate::assignments::SharedLookup;
use crate::dns;
use crate::runtime::{
    ContainerSpec, ImageError, PidNamespace, PullPolicy, Record, Role, RunState, RuntimeError,
};

/// Why a step failed.
pub enum StepError {
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

/// What is left of the grace, after a preStop hook or the stop of others, is at least this long.
pub const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Why containers that a probe has condemned are stopped, by their ids.
pub type Condemned = HashMap<String, String>;

/// Stops containers at once, each after its preStop hook, which has the same grace.
///
/// # Errors
/// When the engine fails.
pub async fn stop_all(
    context: &Context,
    pod: Option<&Pod>,
    records: &[Record],
    ids: &[String],
    grace: Duration,
    why: &Condemned,
) -> Result<(), RuntimeError> {
    let stops = ids.iter().map(|id| Box::pin(stop_one(context, pod, records, id, grace, why)));
    join_all(stops).await.into_iter().collect()
}

async fn stop_one(
    context: &Context,
    pod: Option<&Pod>,
    records: &[Record],
    id: &str,
    mut grace: Duration,
    why: &Condemned,
) -> Result<(), RuntimeError> {
    let begun = tokio::time::Instant::now();
    let record = records.iter().find(|record| record.id == *id);
    let of = record.filter(|record| record.role != Role::Sandbox);
    let of = of.map(|record| (Recorder::new(context, record.pod.clone()), record));
    if let Some((events, record)) = &of {
        let text = why.get(id).map_or_else(
            || format!("Stopping container {}", record.container),
            |why| format!("{why}, will be restarted"),
        );
        events.normal(Some((record.role, &record.container)), "Killing", text);
    }
    if let (Some(pod), Some((events, record))) = (pod, &of)
        && let Some(container) = find_container(pod, record.role, &record.container)
        && let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.clone())
        && context.runtime.runs_processes()
        && !grace.is_zero()
    {
        let target = target(context, container, record, records);
        let failed = |text: String| {
            let part = Some((record.role, record.container.as_str()));
            events.warning(part, "FailedPreStopHook", text.clone());
            warn!(pod = %record.pod, text, "a preStop hook failed");
        };
        match tokio::time::timeout(grace, probe::hook(&target, &hook)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed(error),
            Err(_) => failed("it took all of the grace period".to_owned()),
        }
        grace = grace.saturating_sub(begun.elapsed()).max(LEAST_GRACE);
    }
    context.runtime.stop(id, grace).await
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
///
/// # Errors
/// Why it cannot be taken now.
pub async fn take(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    records: &[Record],
    step: &Step,
    condemned: &Condemned,
) -> Result<(), StepError> {
    match step {
        Step::Idle | Step::Gone => Ok(()),
        Step::Stop(ids) => {
            let grace = Duration::from_secs(u64::from(resolve::grace(pod)));
            Ok(stop_all(context, Some(pod), records, ids, grace, condemned).await?)
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

/// The tokens of the pod's service account that its volumes want.
///
/// # Errors
/// When there are none yet: they, and what goes with them, come by themselves.
async fn tokens(context: &Context, pod: &Pod) -> Result<access::Files, StepError> {
    let Some(folder) = &context.data_dir else { return Ok(access::Files::default()) };
    let waiting = |message| StepError::Failed { reason: WAITING, message };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let lookup = SharedLookup(context.objects.clone());
    if access::is_completed(pod) && lookup.config_map(namespace, access::ROOT_CA).is_none() {
        return Err(waiting(format!("configmap \"{}\" not found", access::ROOT_CA)));
    }
    let tokens = context.tokens.of_pod(folder, pod).await;
    match tokens.values().find_map(|token| token.as_ref().err()) {
        Some(missing) => Err(waiting(missing.clone())),
        None => Ok(tokens),
    }
}

/// Makes a container's image present, as its policy has it.
async fn ensure_image(
    context: &Context,
    container: &Container,
    role: Role,
    events: &Recorder,
) -> Result<(), StepError> {
    let image = container.image.clone().unwrap_or_default();
    let part = Some((role, container.name.as_str()));
    let policy = resolve::pull_policy(container);
    if policy != PullPolicy::Always && context.runtime.image(&image).await?.is_some() {
        let text = format!("Container image \"{image}\" already present on machine");
        events.normal(part, "Pulled", text);
        return Ok(());
    }
    let failed = |error: ImageError| {
        let reason = match &error {
            ImageError::NeverPull(_) => "ErrImageNeverPull",
            ImageError::Pull { .. } => "ErrImagePull",
            ImageError::Runtime(error) => return StepError::Runtime(error.clone()),
        };
        let name = if reason == "ErrImagePull" { "Failed" } else { reason };
        events.warning(part, name, error.to_string());
        StepError::Failed { reason, message: error.to_string() }
    };
    if policy == PullPolicy::Never {
        return Err(failed(ImageError::NeverPull(image)));
    }
    events.normal(part, "Pulling", format!("Pulling image \"{image}\""));
    let begun = tokio::time::Instant::now();
    context.runtime.pull_image(&image).await.map_err(failed)?;
    let took = begun.elapsed().as_secs_f64();
    events.normal(part, "Pulled", format!("Successfully pulled image \"{image}\" in {took:.3}s"));
    Ok(())
}

/// What is known on the node only.
pub fn node_values(context: &Context, status: Option<&PodStatus>) -> NodeValues {
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
    // A node that keeps nothing has no volumes.
    let pod = &if context.data_dir.is_some() { access::complete(pod) } else { Arc::clone(pod) };
    let Some(container) = find_container(pod, making.role, name) else { return Ok(()) };
    let events = Recorder::new(context, resolve::pod_ref(pod));
    ensure_image(context, &container, making.role, &events).await?;
    let mut image_user = String::new();
    if resolve::leaves_user_to_image(pod, &container) {
        let image = container.image.as_deref().unwrap_or_default();
        image_user = context.runtime.image(image).await?.unwrap_or_default().user;
    }
    let first = records.iter().all(|record| record.role == Role::Sandbox);
    let claimed = claims::places(context, pod, first).await?;
    let tokens = tokens(context, pod).await?;
    let mut values = node_values(context, None);
    let sandbox = records.iter().find(|r| r.id == making.sandbox && r.state == RunState::Running);
    values.pod_ip = sandbox
        .and_then(|r| r.ip)
        .map_or_else(|| values.host_ip.clone(), |address| address.to_string());
    let begun = container.clone();
    let target_container = ephemeral_target(pod, &container.name);
    let (shared, pod) = (context.clone(), pod.clone());
    let (role, attempt, failures) = (making.role, making.attempt, making.failures);
    let sandbox = making.sandbox.to_owned();
    // Volumes are written here: the disk may be slow.
    let resolved = tokio::task::spawn_blocking(move || {
        let lookup = SharedLookup(shared.objects.clone());
        let making = Making { role, attempt, failures, sandbox: &sandbox };
        let volumes = shared.data_dir.as_deref().map(|folder| Volumes { folder, claimed, tokens });
        resolve::container(volumes, &pod, &container, &making, &lookup, &values, &image_user)
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
    let part = Some((role, spec.name.as_str()));
    match context.runtime.start_container(&spec).await {
        // The engine keeps what it could not start, with the reason; back-off follows from
        // that. What it could not even make leaves no trace but this.
        Err(RuntimeError::Failed(message) | RuntimeError::NotFound(message)) => {
            let all = context.runtime.list(Some(&spec.pod.uid)).await?;
            let traced = all
                .iter()
                .any(|r| r.container == spec.name && r.attempt == spec.attempt && r.start_failed());
            if traced {
                events.normal(part, "Created", format!("Created container: {}", spec.name));
            }
            events.warning(part, "Failed", format!("Error: {message}"));
            if traced {
                return Ok(());
            }
            return Err(StepError::Failed { reason: "CreateContainerError", message });
        }
        other => other?,
    }
    events.normal(part, "Created", format!("Created container: {}", spec.name));
    events.normal(part, "Started", format!("Started container {}", spec.name));
    post_start(context, begun, &spec, &events).await
}

/// Runs the hook of a container that was started just now, if it has one.
async fn post_start(
    context: &Context,
    container: Container,
    spec: &ContainerSpec,
    events: &Recorder,
) -> Result<(), StepError> {
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.clone());
    let Some(hook) = hook.filter(|_| context.runtime.runs_processes()) else { return Ok(()) };
    let all = context.runtime.list(Some(&spec.pod.uid)).await?;
    let record = all.iter().find(|r| {
        r.container == spec.name && r.attempt == spec.attempt && r.state == RunState::Running
    });
    let Some(record) = record else { return Ok(()) };
    let target = target(context, container, record, &all);
    if let Err(message) = probe::hook(&target, &hook).await {
        let part = Some((spec.role, spec.name.as_str()));
        events.warning(part, "FailedPostStartHook", message.clone());
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

/// A container as the pod has it.
pub fn find_container(pod: &Pod, role: Role, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let list = match role {
        Role::Init => spec.init_containers.as_ref()?,
        Role::Ephemeral => return ephemeral(pod).into_iter().find(|c| c.name == name),
        _ => &spec.containers,
    };
    list.iter().find(|c| c.name == name).cloned()
}
