//! A pod's status, computed from its containers. Pure.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_objects::pod::{AGENT_CONDITIONS, qos_class};

use super::plan::{
    Failure, Memory, deadline, ephemeral, has_started, is_sidecar, newest, outcome, previous,
    restart_delay, restarts, sandbox_ip,
};
use crate::runtime::{Record, Role, RunState};

/// What the status is computed from.
pub struct Input<'a> {
    /// The pod as assigned.
    pub pod: &'a Pod,
    /// Its containers.
    pub records: &'a [Record],
    /// Failures.
    pub memory: &'a Memory,
    /// The status that we told last, or the assigned one: what did not change keeps its times.
    /// The conditions of others in it are left out.
    pub previous: &'a PodStatus,
    /// Address of the node.
    pub host_ip: IpAddr,
    /// The present.
    pub now: Timestamp,
}

/// The status of a pod.
#[must_use]
pub fn compute(input: &Input<'_>) -> PodStatus {
    let Some(spec) = input.pod.spec.as_ref() else { return input.previous.clone() };
    let mut status = input.previous.clone();
    let inits: Vec<ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| container_status(input, c, Role::Init, true))
        .collect();
    let specs = spec.init_containers.iter().flatten();
    let initialized = inits.iter().zip(specs).all(|(status, init)| {
        if is_sidecar(init) { status.started == Some(true) } else { status.ready }
    });
    let apps: Vec<ContainerStatus> = spec
        .containers
        .iter()
        .map(|c| container_status(input, c, Role::App, initialized))
        .collect();
    let ephemeral: Vec<ContainerStatus> = ephemeral(input.pod)
        .iter()
        .map(|c| container_status(input, c, Role::Ephemeral, true))
        .collect();
    status.phase = Some(phase(input, initialized, &apps).to_owned());
    let ended = outcome(input.pod, input.records).is_some();
    if let Some(why) = input.memory.evicted.as_ref().filter(|_| !ended) {
        status.phase = Some("Failed".to_owned());
        status.reason = Some("Evicted".to_owned());
        status.message = Some(why.clone());
    } else if late(input) {
        status.phase = Some("Failed".to_owned());
        status.reason = Some("DeadlineExceeded".to_owned());
        status.message =
            Some("Pod was active on the node longer than the specified deadline".to_owned());
    }
    let besides = spec.init_containers.iter().flatten().zip(&inits);
    let besides = besides.filter(|(init, _)| is_sidecar(init)).map(|(_, status)| status);
    conditions(input, &mut status, initialized, &besides.chain(&apps).collect::<Vec<_>>());
    status.init_container_statuses = (!inits.is_empty()).then_some(inits);
    status.container_statuses = Some(apps);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    status.qos_class.get_or_insert_with(|| qos_class(spec).to_owned());
    status.host_ip = Some(input.host_ip.to_string());
    status.host_ips = Some(vec![HostIP { ip: input.host_ip.to_string() }]);
    let own = || sandbox_ip(input.records);
    let ip = if spec.host_network == Some(true) { Some(input.host_ip) } else { own() };
    if let Some(ip) = ip {
        status.pod_ip = Some(ip.to_string());
        status.pod_ips = Some(vec![PodIP { ip: ip.to_string() }]);
    }
    status.start_time.get_or_insert_with(|| Time(seconds(input.now)));
    status
}

/// Has the pod been active for longer than it may?
fn late(input: &Input<'_>) -> bool {
    let ended = outcome(input.pod, input.records).is_some();
    !ended && deadline(input.pod, input.memory.started_at).is_some_and(|at| at <= input.now)
}

fn phase(input: &Input<'_>, initialized: bool, apps: &[ContainerStatus]) -> &'static str {
    match outcome(input.pod, input.records) {
        Some(true) => return "Succeeded",
        Some(false) => return "Failed",
        None => {}
    }
    let begun = |s: &ContainerStatus| {
        let waiting = s.state.as_ref().is_none_or(|state| state.waiting.is_some());
        !waiting || s.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
    };
    if initialized && apps.iter().all(begun) { "Running" } else { "Pending" }
}

fn container_status(
    input: &Input<'_>,
    container: &Container,
    role: Role,
    initialized: bool,
) -> ContainerStatus {
    let name = &container.name;
    let record = newest(input.records, role, name);
    let mut status = ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ..Default::default()
    };
    let failure = input.memory.containers.get(name);
    let waiting = failure.map(|f| waiting_for(f, container, input.now));
    let Some(record) = record else {
        status.state = Some(waiting.unwrap_or_else(|| not_begun(input, initialized)));
        status.started = Some(false);
        return status;
    };
    status.restart_count = i32::try_from(record.attempt).unwrap_or(i32::MAX);
    status.container_id = Some(format!("docker://{}", record.id));
    status.image_id.clone_from(&record.image_id);
    let before = previous(input.records, role, name).filter(|p| p.ended());
    status.last_state = before.map(|record| terminated(input, record));
    if record.state == RunState::Running {
        status.state = Some(ContainerState {
            running: Some(ContainerStateRunning {
                started_at: record.started_at.map(|t| Time(seconds(t))),
            }),
            ..Default::default()
        });
        let started = has_started(container, record, input.memory);
        let probed = || input.memory.probes.get(&record.id).is_some_and(|probed| probed.ready);
        let counts = role == Role::App || (role == Role::Init && is_sidecar(container));
        status.started = Some(started);
        status.ready = counts
            && started
            && !record.unready
            && (container.readiness_probe.is_none() || probed());
        return status;
    }
    status.started = Some(false);
    if !record.ended() {
        status.state = Some(not_begun(input, initialized));
    } else if waiting.is_some() || restarts(input.pod, role, record) {
        status.last_state = Some(terminated(input, record));
        status.state = Some(waiting.unwrap_or_else(|| back_off(input, container, record)));
    } else {
        status.state = Some(terminated(input, record));
        status.ready = role == Role::Init && record.exit_code == 0;
    }
    status
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..Default::default()
    }
}

fn not_begun(input: &Input<'_>, initialized: bool) -> ContainerState {
    match &input.memory.sandbox {
        Some(failure) => waiting(failure.reason, Some(failure.message.clone())),
        None if initialized => waiting("ContainerCreating", None),
        None => waiting("PodInitializing", None),
    }
}

/// A failed pull shows its error for a second, then that it waits to try again.
fn waiting_for(failure: &Failure, container: &Container, now: Timestamp) -> ContainerState {
    let shown = failure.at.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now);
    if failure.reason == "ErrImagePull" && now >= shown {
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": {}", failure.message);
        return waiting("ImagePullBackOff", Some(message));
    }
    waiting(failure.reason, Some(failure.message.clone()))
}

fn back_off(input: &Input<'_>, container: &Container, record: &Record) -> ContainerState {
    if record.start_failed() && record.failures == 0 {
        return waiting("RunContainerError", Some(record.error.clone()));
    }
    let delay = restart_delay(record).0.as_secs();
    let mut message = format!(
        "back-off {delay}s restarting failed container={} pod={}_{}",
        container.name,
        input.pod.metadata.name.as_deref().unwrap_or_default(),
        input.pod.metadata.namespace.as_deref().unwrap_or_default(),
    );
    if record.start_failed() {
        message = format!("{message}: {}", record.error);
    }
    waiting("CrashLoopBackOff", Some(message))
}

fn terminated(input: &Input<'_>, record: &Record) -> ContainerState {
    let said = || input.memory.messages.get(&record.id).filter(|said| !said.is_empty()).cloned();
    let error = Some(&record.error).filter(|error| !error.is_empty()).cloned();
    let reason = if record.start_failed() {
        "StartError"
    } else if record.oom_killed {
        "OOMKilled"
    } else if record.exit_code == 0 {
        "Completed"
    } else {
        "Error"
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("docker://{}", record.id)),
            exit_code: if record.start_failed() { 128 } else { record.exit_code },
            reason: Some(reason.to_owned()),
            message: error.or_else(said),
            signal: (record.exit_code > 128 && !record.start_failed())
                .then_some(record.exit_code - 128),
            started_at: record.started_at.map(|t| Time(seconds(t))),
            finished_at: Some(Time(seconds(record.end_time()))),
        }),
        ..Default::default()
    }
}

fn conditions(
    input: &Input<'_>,
    status: &mut PodStatus,
    initialized: bool,
    containers: &[&ContainerStatus],
) {
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let unready: Vec<&str> =
        containers.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    let reason = if finished { "PodCompleted" } else { "ContainersNotReady" };
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    let not_ready = (!unready.is_empty()).then_some((reason, message));
    let uninitialized = (!initialized)
        .then(|| ("ContainersNotInitialized", "init containers have not all succeeded".to_owned()));
    let mut list = status.conditions.take().unwrap_or_default();
    // Those of others are theirs to tell.
    list.retain(|condition| AGENT_CONDITIONS.contains(&condition.type_.as_str()));
    set(&mut list, "PodScheduled", None, input.now);
    set(&mut list, "Initialized", uninitialized, input.now);
    set(&mut list, "ContainersReady", not_ready.clone(), input.now);
    let not_ready = not_ready.or_else(|| gate(input.pod));
    set(&mut list, "Ready", not_ready, input.now);
    status.conditions = Some(list);
}

/// The first readiness gate that somebody keeps closed, as the pod was assigned.
fn gate(pod: &Pod) -> Option<(&'static str, String)> {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let open = |kind: &str| {
        let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.any(|c| c.type_ == kind && c.status == "True")
    };
    let closed = gates.map(|gate| gate.condition_type.as_str()).find(|kind| !open(kind))?;
    let text = format!("the status of pod readiness gate \"{closed}\" is not \"True\"");
    Some(("ReadinessGatesNotReady", text))
}

/// True, or false with reason and message. A condition that stays keeps its time.
fn set(list: &mut Vec<PodCondition>, kind: &str, problem: Option<(&str, String)>, now: Timestamp) {
    let value = if problem.is_none() { "True" } else { "False" };
    let since = list
        .iter()
        .find(|c| c.type_ == kind && c.status == value)
        .and_then(|c| c.last_transition_time.clone())
        .unwrap_or_else(|| Time(seconds(now)));
    let condition = PodCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: problem.as_ref().map(|(reason, _)| (*reason).to_owned()),
        message: problem.map(|(_, message)| message),
        last_transition_time: Some(since),
        ..Default::default()
    };
    match list.iter_mut().find(|c| c.type_ == kind) {
        Some(present) => *present = condition,
        None => list.push(condition),
    }
}

/// Kubernetes' times have no fractions; ours must compare equal with what comes back.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
