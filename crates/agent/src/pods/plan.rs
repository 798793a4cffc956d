//! What to do next for a pod: a pure function of the pod, of the containers that exist and
//! of failures remembered. It names one step; when the step is done, it is asked again.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff;
use super::prober::Results;
use crate::runtime::{Record, Role, RunState};

/// Why something could not be made, and when to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Kubernetes' word for it: "ErrImagePull", "CreateContainerConfigError", …
    pub reason: &'static str,
    /// In words.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
    /// Failures before this one, in a row.
    pub before: u32,
}

impl Failure {
    /// When to try again.
    #[must_use]
    pub fn retry_at(&self, now: Timestamp) -> Timestamp {
        let wait = match self.reason {
            // What is missing may appear at any moment, and looking costs nothing.
            "CreateContainerConfigError" | "ContainerCreating" => SignedDuration::from_secs(2),
            _ => backoff::delay(self.before.saturating_add(1)),
        };
        after(self.at, wait, now)
    }
}

/// The end of a wait that began at `start`. When that lies further ahead than the wait is long,
/// the clock has been turned back since, by nobody knows how much: the wait is over then.
fn after(start: Timestamp, wait: SignedDuration, now: Timestamp) -> Timestamp {
    if start.duration_since(now) > wait {
        return now;
    }
    start.saturating_add(wait).unwrap_or(start)
}

/// What a worker remembers that containers do not show.
#[derive(Debug, Default)]
pub struct Memory {
    /// The sandbox could not be made.
    pub sandbox: Option<Failure>,
    /// Containers that could not be made, by name.
    pub containers: HashMap<String, Failure>,
    /// What probes say, by the id of the container.
    pub probes: Results,
    /// Last words of containers that have ended, by their ids.
    pub messages: HashMap<String, String>,
    /// Why the pod may not go on.
    pub evicted: Option<String>,
    /// When the pod began on this node.
    pub started_at: Option<Timestamp>,
}

/// The next step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing to do until something happens.
    Idle,
    /// Make the pod's network.
    StartSandbox {
        /// Number of the new sandbox.
        attempt: u32,
    },
    /// Make and start a container.
    Start {
        /// Init or app.
        role: Role,
        /// Name in the spec.
        name: String,
        /// Number of the new container.
        attempt: u32,
        /// Quick failures in a row before it.
        failures: u32,
        /// Id of the sandbox to join.
        sandbox: String,
    },
    /// End these.
    Stop(Vec<String>),
    /// Remove these, which have ended.
    Remove(Vec<String>),
    /// Nothing is left.
    Gone,
}

/// A step, and when to look again at the latest.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to do now.
    pub step: Step,
    /// Time alone will make something due then.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn now(step: Step) -> Self {
        Self { step, wake: None }
    }
}

/// An init container with this policy goes on running beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The newest container of a name.
#[must_use]
pub fn newest<'a>(records: &'a [Record], role: Role, name: &str) -> Option<&'a Record> {
    records.iter().filter(|r| r.role == role && r.container == name).max_by_key(|r| r.attempt)
}

/// The one before the newest.
#[must_use]
pub fn previous<'a>(records: &'a [Record], role: Role, name: &str) -> Option<&'a Record> {
    let newest = newest(records, role, name)?;
    records
        .iter()
        .filter(|r| r.role == role && r.container == name && r.attempt < newest.attempt)
        .max_by_key(|r| r.attempt)
}

/// Address of the running sandbox.
#[must_use]
pub fn sandbox_ip(records: &[Record]) -> Option<IpAddr> {
    records
        .iter()
        .filter(|r| r.role == Role::Sandbox && r.state == RunState::Running)
        .max_by_key(|r| r.attempt)
        .and_then(|r| r.ip)
}

/// Is the container of this record one that runs beside the others?
#[must_use]
pub fn is_sidecar_record(pod: &Pod, record: &Record) -> bool {
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let mut named = inits.filter(|container| container.name == record.container);
    record.role == Role::Init && named.next().is_some_and(is_sidecar)
}

/// When the pod has been active for as long as it may.
#[must_use]
pub fn deadline(pod: &Pod, started_at: Option<Timestamp>) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    started_at?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Does a container that ended start again?
#[must_use]
pub fn restarts(pod: &Pod, role: Role, record: &Record) -> bool {
    if pod.metadata.deletion_timestamp.is_some() || role == Role::Ephemeral {
        return false;
    }
    if is_sidecar_record(pod, record) {
        return true;
    }
    let failed = record.start_failed() || record.exit_code != 0;
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    match (policy, role) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Role::Init) => failed,
        _ => true,
    }
}

/// How long a container that ended waits before it starts again, and how many failures that
/// makes.
#[must_use]
pub fn restart_delay(record: &Record) -> (SignedDuration, u32) {
    let ended = record.end_time();
    let failures = if backoff::was_good(record.started_at, ended) { 0 } else { record.failures };
    (backoff::delay(failures), failures + 1)
}

/// Did the pod come to its end, by what its containers show? Some(true): all succeeded.
#[must_use]
pub fn outcome(pod: &Pod, records: &[Record]) -> Option<bool> {
    let spec = pod.spec.as_ref()?;
    for init in spec.init_containers.iter().flatten().filter(|init| !is_sidecar(init)) {
        if let Some(record) = newest(records, Role::Init, &init.name)
            && record.ended()
            && (record.start_failed() || record.exit_code != 0)
            && !restarts(pod, Role::Init, record)
        {
            return Some(false);
        }
    }
    let mut success = true;
    for container in &spec.containers {
        let record = newest(records, Role::App, &container.name)?;
        if !record.ended() || restarts(pod, Role::App, record) {
            return None;
        }
        success &= record.exit_code == 0 && !record.start_failed();
    }
    Some(success)
}

/// The next step for a pod that shall run.
#[must_use]
pub fn plan(pod: &Pod, records: &[Record], memory: &Memory, now: Timestamp) -> Plan {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let deadline = deadline(pod, memory.started_at);
    let late = deadline.is_some_and(|deadline| deadline <= now) || memory.evicted.is_some();
    if late || matches!(phase, Some("Succeeded" | "Failed")) || outcome(pod, records).is_some() {
        // Its containers stay for their logs; its network has no more use.
        return Plan::now(next_to_stop(records).map_or(Step::Idle, Step::Stop));
    }
    let mut plan = plan_running(pod, records, memory, now);
    plan.wake = plan.wake.into_iter().chain(deadline).min();
    plan
}

/// What of a pod that has come to its end is stopped next: first the containers, then those
/// that ran beside them, the last one first, then the network.
fn next_to_stop(records: &[Record]) -> Option<Vec<String>> {
    let running = |role| move |r: &&Record| r.state == RunState::Running && r.role == role;
    let work = ids(records, |r| running(Role::App)(&r) || running(Role::Ephemeral)(&r));
    if !work.is_empty() {
        return Some(work);
    }
    let inits = records.iter().filter(running(Role::Init));
    if let Some(last) = inits.max_by_key(|r| (r.created_at, r.attempt)) {
        return Some(vec![last.id.clone()]);
    }
    let sandboxes = ids(records, |r| running(Role::Sandbox)(&r));
    (!sandboxes.is_empty()).then_some(sandboxes)
}

/// The next step for a pod that has not come to its end.
fn plan_running(pod: &Pod, records: &[Record], memory: &Memory, now: Timestamp) -> Plan {
    let failed = |r: &Record| memory.probes.get(&r.id).is_some_and(|p| p.failed.is_some());
    let condemned = ids(records, |r| r.state == RunState::Running && failed(r));
    if !condemned.is_empty() {
        return Plan::now(Step::Stop(condemned));
    }
    let sandbox = match sandbox(records, memory, now) {
        Ok(sandbox) => sandbox,
        Err(plan) => return plan,
    };
    let strays = ids(records, |r| {
        r.role != Role::Sandbox && r.state == RunState::Running && r.sandbox != sandbox.id
    });
    if !strays.is_empty() {
        return Plan::now(Step::Stop(strays));
    }
    if let Some(old) = litter(records) {
        return Plan::now(Step::Remove(old));
    }
    containers(pod, records, memory, now, sandbox)
}

/// The running sandbox, or the step that leads to one.
fn sandbox<'a>(records: &'a [Record], memory: &Memory, now: Timestamp) -> Result<&'a Record, Plan> {
    let sandboxes = || records.iter().filter(|r| r.role == Role::Sandbox);
    let newest = sandboxes().max_by_key(|r| r.attempt);
    if let Some(sandbox) = newest.filter(|r| r.state == RunState::Running) {
        return Ok(sandbox);
    }
    // What runs without its network cannot be reached: it ends with it.
    let running = ids(records, |r| r.state == RunState::Running);
    if !running.is_empty() {
        return Err(Plan::now(Step::Stop(running)));
    }
    if newest.is_some() {
        let attempt_base = ids(records, |r| r.role == Role::Sandbox);
        return Err(Plan::now(Step::Remove(attempt_base)));
    }
    if let Some(failure) = &memory.sandbox
        && failure.retry_at(now) > now
    {
        return Err(Plan { step: Step::Idle, wake: Some(failure.retry_at(now)) });
    }
    let attempt = records.iter().map(|r| r.attempt + 1).max().unwrap_or(0);
    Err(Plan::now(Step::StartSandbox { attempt }))
}

/// Containers that were made but never begun, and those older than the one before the
/// newest (which is kept for its log).
fn litter(records: &[Record]) -> Option<Vec<String>> {
    let old = ids(records, |r| {
        if r.role == Role::Sandbox {
            return false;
        }
        let unbegun = r.state == RunState::Created && r.error.is_empty();
        let newer = records
            .iter()
            .filter(|o| o.role == r.role && o.container == r.container && o.attempt > r.attempt)
            .count();
        unbegun || (newer >= 2 && r.state != RunState::Running)
    });
    (!old.is_empty()).then_some(old)
}

fn containers(
    pod: &Pod,
    records: &[Record],
    memory: &Memory,
    now: Timestamp,
    sandbox: &Record,
) -> Plan {
    let Some(spec) = pod.spec.as_ref() else { return Plan::now(Step::Idle) };
    let mut wake: Option<Timestamp> = None;
    for container in ephemeral(pod) {
        // Each runs once, whatever the others do.
        if newest(records, Role::Ephemeral, &container.name).is_none() {
            match step_for(pod, &container, Role::Ephemeral, None, memory, now, sandbox) {
                Ok(step) => return Plan::now(step),
                Err(due) => wake = wake.into_iter().chain(due).min(),
            }
        }
    }
    // Once the work has begun, what runs beside it no longer holds it up.
    let begun = records.iter().any(|r| r.role == Role::App && r.sandbox == sandbox.id);
    for init in spec.init_containers.iter().flatten() {
        let record = newest(records, Role::Init, &init.name);
        let passed = if is_sidecar(init) {
            record.is_some_and(|r| has_started(init, r, memory))
        } else {
            // What they prepare may be in memory or in the network, which go with a sandbox.
            record.is_some_and(|r| {
                r.state == RunState::Exited && r.exit_code == 0 && r.sandbox == sandbox.id
            })
        };
        if passed && !is_sidecar(init) {
            continue;
        }
        match step_for(pod, init, Role::Init, record, memory, now, sandbox) {
            Ok(step) => return Plan::now(step),
            Err(due) => wake = wake.into_iter().chain(due).min(),
        }
        let holds_up = !passed && (!begun || !is_sidecar(init));
        if holds_up {
            return Plan { step: Step::Idle, wake };
        }
    }
    for container in &spec.containers {
        let record = newest(records, Role::App, &container.name);
        match step_for(pod, container, Role::App, record, memory, now, sandbox) {
            Ok(step) => return Plan::now(step),
            Err(due) => wake = wake.into_iter().chain(due).min(),
        }
    }
    Plan { step: Step::Idle, wake }
}

/// Does it run, and has its startup probe succeeded, if it has one?
#[must_use]
pub fn has_started(container: &Container, record: &Record, memory: &Memory) -> bool {
    let probed = || memory.probes.get(&record.id).is_some_and(|probed| probed.started);
    record.state == RunState::Running && (container.startup_probe.is_none() || probed())
}

/// The pod's ephemeral containers, in the form of the others: the fields have the same names.
#[must_use]
pub fn ephemeral(pod: &Pod) -> Vec<Container> {
    let all = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    all.filter_map(|one| {
        let value = serde_json::to_value(one).ok()?;
        serde_json::from_value(value).ok()
    })
    .collect()
}

/// The step for one container, or when it will need one.
fn step_for(
    pod: &Pod,
    container: &Container,
    role: Role,
    record: Option<&Record>,
    memory: &Memory,
    now: Timestamp,
    sandbox: &Record,
) -> Result<Step, Option<Timestamp>> {
    if let Some(failure) = memory.containers.get(&container.name)
        && failure.retry_at(now) > now
    {
        // One second after the failure its reason becomes "…BackOff".
        let shown = failure.at.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now);
        return Err(Some(if shown > now { shown } else { failure.retry_at(now) }));
    }
    let start = |attempt, failures| Step::Start {
        role,
        name: container.name.clone(),
        attempt,
        failures,
        sandbox: sandbox.id.clone(),
    };
    let Some(record) = record else { return Ok(start(0, 0)) };
    if record.state == RunState::Running {
        // Only the image of a running pod's container may be changed.
        let changed = container.image.as_deref().is_some_and(|image| image != record.image);
        return if changed { Ok(Step::Stop(vec![record.id.clone()])) } else { Err(None) };
    }
    let again = restarts(pod, role, record);
    // A new network is no reason to do work again that is done.
    let lost_sandbox = record.sandbox != sandbox.id && (again || role != Role::App);
    let changed = container.image.as_deref().is_some_and(|image| image != record.image);
    if lost_sandbox || changed {
        return Ok(start(record.attempt + 1, record.failures));
    }
    if !again {
        return Err(None);
    }
    let (delay, failures) = restart_delay(record);
    let due = after(record.end_time(), delay, now);
    if due > now { Err(Some(due)) } else { Ok(start(record.attempt + 1, failures)) }
}

/// The next step for a pod that shall end: containers first, then their network.
#[must_use]
pub fn plan_end(records: &[Record]) -> Step {
    let working = |r: &Record| r.role != Role::Sandbox && r.state == RunState::Running;
    if records.iter().any(working)
        && let Some(running) = next_to_stop(records)
    {
        return Step::Stop(running);
    }
    let ended = ids(records, |r| r.role != Role::Sandbox);
    if !ended.is_empty() {
        return Step::Remove(ended);
    }
    if records.is_empty() {
        return Step::Gone;
    }
    Step::Remove(ids(records, |_| true))
}

fn ids(records: &[Record], mut wanted: impl FnMut(&Record) -> bool) -> Vec<String> {
    records.iter().filter(|r| wanted(r)).map(|r| r.id.clone()).collect()
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
