//! What has to be done for a Job: pure.
//!
//! Invariant: every pod that ends counts exactly once. Its uid is written into
//! `status.uncountedTerminatedPods` while its finalizer keeps it; only then the finalizer goes;
//! and only when that is seen, the uid becomes a number. A leader may die between any two.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use quorate_objects::job::{self, COMPLETE, COMPLETION_INDEX, FAILED, SUSPENDED};
use quorate_objects::pod;
use quorate_registry::EventType;

use super::end::{End, end, finish};
use super::indexes::Indexes;
use super::policy::{self, Action};
use crate::workload::count;

/// Keeps a pod until it is counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// How often pods of an index had failed when a pod was made.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Uids in one status; the others wait for their turn.
const UNCOUNTED_MAX: usize = 500;
/// The longest pause after failures.
const BACK_OFF_MAX: Duration = Duration::from_secs(360);

/// A Job with its pods.
pub(super) struct State<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
    /// The pause after the first failure; it doubles with each further one.
    pub back_off: Duration,
}

/// A pod to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct New {
    pub index: Option<i32>,
    /// Failures of the index before.
    pub failures: i32,
}

/// What has to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub status: JobStatus,
    /// Pods that are counted: their finalizer can go.
    pub untrack: Vec<Arc<Pod>>,
    /// Pods that have to go and count as nothing.
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<New>,
    pub wait: Option<Duration>,
    pub events: Vec<(EventType, String, String)>,
}

pub(super) fn is_tracked(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

pub(super) fn index_of(object: &Pod) -> Option<i32> {
    object.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok()
}

fn failures_of(object: &Pod) -> i32 {
    let annotations = object.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(FAILURES)).and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn uid(object: &Pod) -> &str {
    object.metadata.uid.as_deref().unwrap_or_default()
}

/// When a pod that has ended did so.
fn ended_at(object: &Pod) -> Option<Timestamp> {
    let ended = pod::container_statuses(object)
        .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0);
    ended.max().or(object.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

impl State<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or_default().max(0)
    }

    fn waits_for_the_end(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// Has it failed? A pod that is being deleted counts as failed at once, because its node may
    /// never say so, unless the Job wants to wait for that.
    fn has_failed(&self, object: &Pod) -> bool {
        match pod::phase(object) {
            "Failed" => true,
            "Succeeded" => false,
            _ => {
                let gone = object.metadata.deletion_grace_period_seconds == Some(0);
                pod::is_deleting(object) && (gone || !self.waits_for_the_end())
            }
        }
    }

    pub fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect()
    }

    fn back_off_after(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.back_off.saturating_mul(factor).min(BACK_OFF_MAX)
    }

    /// How long no pod is made because of those of `pods` that have failed since one succeeded.
    fn pause<'p>(&self, pods: impl Iterator<Item = &'p Arc<Pod>>) -> Duration {
        let mut ends: Vec<(Timestamp, bool)> = pods
            .filter(|pod| pod::is_terminal(pod))
            .filter_map(|pod| Some((ended_at(pod)?, pod::phase(pod) == "Failed")))
            .collect();
        ends.sort_unstable();
        let failures = ends.iter().rev().take_while(|(_, failed)| *failed).count();
        let Some((last, true)) = ends.last() else { return Duration::ZERO };
        let pause = self.back_off_after(u32::try_from(failures).unwrap_or(u32::MAX));
        let passed = self.now.as_millisecond() - last.as_millisecond();
        pause.saturating_sub(Duration::from_millis(u64::try_from(passed).unwrap_or_default()))
    }
}

/// The figures of a Job while they are worked out.
pub(super) struct Tally {
    succeeded: i32,
    failed: i32,
    uncounted: UncountedTerminatedPods,
    pub completed: Indexes,
    pub failed_indexes: Indexes,
    /// What a rule of the failure policy says about the Job.
    pub verdict: Option<String>,
    untrack: Vec<Arc<Pod>>,
}

impl Tally {
    /// Reads the status and turns uids of pods that are let go into numbers.
    fn settled(state: &State<'_>) -> Self {
        let old = state.job.status.clone().unwrap_or_default();
        let held: HashSet<&str> =
            state.pods.iter().filter(|pod| is_tracked(&pod.metadata)).map(|pod| uid(pod)).collect();
        let mut tally = Self {
            succeeded: old.succeeded.unwrap_or_default(),
            failed: old.failed.unwrap_or_default(),
            uncounted: UncountedTerminatedPods::default(),
            completed: Indexes::parse(old.completed_indexes.as_deref(), state.completions()),
            failed_indexes: Indexes::parse(old.failed_indexes.as_deref(), state.completions()),
            verdict: None,
            untrack: Vec::new(),
        };
        let before = old.uncounted_terminated_pods.unwrap_or_default();
        for one in before.succeeded.into_iter().flatten() {
            if held.contains(one.as_str()) {
                tally.uncounted.succeeded.get_or_insert_default().push(one);
            } else {
                tally.succeeded += 1;
            }
        }
        for one in before.failed.into_iter().flatten() {
            if held.contains(one.as_str()) {
                tally.uncounted.failed.get_or_insert_default().push(one);
            } else {
                tally.failed += 1;
            }
        }
        tally
    }

    /// Have pods succeeded that are no number yet?
    pub(super) fn has_uncounted_successes(&self) -> bool {
        self.uncounted().0 > 0
    }

    fn uncounted(&self) -> (usize, usize) {
        let len = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        (len(&self.uncounted.succeeded), len(&self.uncounted.failed))
    }

    /// Takes up the pods that have ended and are still held.
    fn take_up(&mut self, state: &State<'_>) {
        let lists = [self.uncounted.succeeded.clone(), self.uncounted.failed.clone()];
        let known: HashSet<String> = lists.into_iter().flatten().flatten().collect();
        for object in state.pods.iter().filter(|pod| is_tracked(&pod.metadata)) {
            let failed = state.has_failed(object);
            if !failed && pod::phase(object) != "Succeeded" {
                continue;
            }
            let (a, b) = self.uncounted();
            if !known.contains(uid(object)) {
                if a + b >= UNCOUNTED_MAX {
                    continue;
                }
                if failed {
                    self.take_up_failure(state, object);
                } else {
                    self.take_up_success(state, object);
                }
            }
            self.untrack.push(Arc::clone(object));
        }
        if state.is_indexed() {
            self.succeeded = count(self.completed.0.len());
        }
    }

    fn take_up_success(&mut self, state: &State<'_>, object: &Pod) {
        if !state.is_indexed() {
            self.uncounted.succeeded.get_or_insert_default().push(uid(object).to_owned());
        } else if let Some(index) =
            index_of(object).filter(|n| (0..state.completions()).contains(n))
        {
            self.completed.0.insert(index);
        }
    }

    fn take_up_failure(&mut self, state: &State<'_>, object: &Pod) {
        let action = policy::action(state.spec, object);
        if action == Action::Ignore {
            return;
        }
        self.uncounted.failed.get_or_insert_default().push(uid(object).to_owned());
        let Some(limit) = state.spec.backoff_limit_per_index else {
            if let Action::FailJob(message) = action {
                self.verdict.get_or_insert(message);
            }
            return;
        };
        let index = index_of(object).filter(|index| !self.completed.contains(*index));
        if action == Action::FailIndex || failures_of(object) >= limit {
            self.failed_indexes.0.extend(index);
        }
        if let Action::FailJob(message) = action {
            self.verdict.get_or_insert(message);
        }
    }

    pub fn all(&self) -> (i32, i32) {
        let (succeeded, failed) = self.uncounted();
        (self.succeeded.saturating_add(count(succeeded)), self.failed.saturating_add(count(failed)))
    }
}

/// Works out what has to be done for a Job that has not ended.
pub(super) fn plan(state: &State<'_>) -> Plan {
    let mut tally = Tally::settled(state);
    tally.take_up(state);
    let mut plan = Plan { status: state.job.status.clone().unwrap_or_default(), ..Plan::default() };
    start(state, &mut plan);
    let suspended = state.spec.suspend == Some(true);
    let end = End::decided(state.job).or_else(|| end(state, &tally, &mut plan));
    if let Some(end) = &end {
        plan.delete = state.active();
        finish(state, &tally, &mut plan, end);
    } else if suspended {
        plan.delete = state.active();
    } else {
        run(state, &tally, &mut plan);
    }
    plan.untrack = std::mem::take(&mut tally.untrack);
    fill(state, tally, &mut plan);
    plan
}

/// Start time and the condition Suspended.
fn start(state: &State<'_>, plan: &mut Plan) {
    let was = job::has_condition(state.job, SUSPENDED);
    match (state.spec.suspend == Some(true), was) {
        (true, false) => {
            let text = "Job suspended";
            set(&mut plan.status, SUSPENDED, "True", "JobSuspended", text, state.now);
            plan.status.start_time = None;
            plan.events.push((EventType::Normal, "Suspended".into(), text.into()));
        }
        (false, true) => {
            let text = "Job resumed";
            set(&mut plan.status, SUSPENDED, "False", "JobResumed", text, state.now);
            plan.status.start_time = Some(Time(state.now));
            plan.events.push((EventType::Normal, "Resumed".into(), text.into()));
        }
        (false, false) => {
            plan.status.start_time.get_or_insert(Time(state.now));
        }
        (true, true) => {}
    }
}

/// Decides which pods are made and which are too many.
fn run(state: &State<'_>, tally: &Tally, plan: &mut Plan) {
    let (succeeded, _) = tally.all();
    let parallelism = state.spec.parallelism.unwrap_or(1).max(0);
    let mut active = state.active();
    if state.is_indexed() {
        return run_indexed(state, tally, active, plan);
    }
    let working = count(active.len());
    let wanted = match state.spec.completions {
        Some(completions) => parallelism.min((completions - succeeded).max(0)),
        // Once one has succeeded, nobody new begins.
        None if succeeded > 0 => working.min(parallelism),
        None => parallelism,
    };
    if working > wanted {
        active.sort_by_key(|pod| (pod::node_name(pod).is_some(), pod::is_ready(pod)));
        active.truncate(usize::try_from(working - wanted).unwrap_or_default());
        plan.delete = active;
        return;
    }
    let missing = wanted - working - going(state);
    if missing <= 0 {
        return;
    }
    let pause = state.pause(state.pods.iter());
    if pause.is_zero() {
        let new = New { index: None, failures: 0 };
        plan.create = vec![new; usize::try_from(missing).unwrap_or_default()];
    } else {
        sooner(plan, pause);
    }
}

/// Pods that are being deleted and still hold their place.
fn going(state: &State<'_>) -> i32 {
    if !state.waits_for_the_end() {
        return 0;
    }
    let going = |pod: &&Arc<Pod>| pod::is_deleting(pod) && !state.has_failed(pod);
    count(state.pods.iter().filter(going).count())
}

fn run_indexed(state: &State<'_>, tally: &Tally, active: Vec<Arc<Pod>>, plan: &mut Plan) {
    let done = |index: i32| tally.completed.contains(index) || tally.failed_indexes.contains(index);
    let mut at_work: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    for object in active {
        let index = index_of(&object).filter(|n| (0..state.completions()).contains(n) && !done(*n));
        match index {
            Some(index) if !at_work.contains_key(&index) => {
                at_work.insert(index, object);
            }
            // A second one, or one of no use (any more).
            _ => plan.delete.push(object),
        }
    }
    let parallelism = usize::try_from(state.spec.parallelism.unwrap_or(1)).unwrap_or_default();
    while at_work.len() > parallelism {
        plan.delete.extend(at_work.pop_last().map(|(_, object)| object));
    }
    let mut room = parallelism.saturating_sub(at_work.len());
    room = room.saturating_sub(usize::try_from(going(state)).unwrap_or_default());
    let per_index = state.spec.backoff_limit_per_index.is_some();
    let common = state.pause(state.pods.iter());
    for index in (0..state.completions()).filter(|index| !done(*index)) {
        if room == 0 {
            break;
        }
        if at_work.contains_key(&index) {
            continue;
        }
        let own = || state.pods.iter().filter(|pod| index_of(pod) == Some(index));
        if state.waits_for_the_end() && own().any(|p| pod::is_deleting(p) && !state.has_failed(p)) {
            continue;
        }
        let pause = if per_index { state.pause(own()) } else { common };
        if !pause.is_zero() {
            sooner(plan, pause);
            continue;
        }
        let failed = own().filter(|pod| state.has_failed(pod));
        let counted = failed.filter(|pod| policy::action(state.spec, pod) != Action::Ignore);
        let failures = counted.map(|pod| failures_of(pod) + 1).max().unwrap_or_default();
        plan.create.push(New { index: Some(index), failures });
        room -= 1;
    }
}

/// Puts the figures into the status.
fn fill(state: &State<'_>, tally: Tally, plan: &mut Plan) {
    let active: Vec<_> = state.pods.iter().filter(|pod| pod::is_active(pod)).collect();
    let leaving = plan.delete.len();
    let going = |pod: &&Arc<Pod>| pod::is_deleting(pod) && !pod::is_terminal(pod);
    let status = &mut plan.status;
    let ended = status
        .conditions
        .iter()
        .flatten()
        .any(|c| matches!(c.type_.as_str(), COMPLETE | FAILED) && c.status == "True");
    status.active = Some(count(active.len().saturating_sub(leaving)));
    let ready = active.iter().filter(|pod| pod::is_ready(pod)).count();
    status.ready = Some(if ended { 0 } else { count(ready) });
    status.terminating = Some(count(state.pods.iter().filter(going).count()));
    status.succeeded = Some(tally.succeeded);
    status.failed = Some(tally.failed);
    let (a, b) = tally.uncounted();
    status.uncounted_terminated_pods = (a + b > 0).then_some(tally.uncounted);
    if state.is_indexed() {
        status.completed_indexes = Some(tally.completed.to_string()).filter(|t| !t.is_empty());
        if state.spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(tally.failed_indexes.to_string());
        }
    }
}

/// What is still to be done for a Job that has ended: counting, and taking away what runs.
pub(super) fn after_end(state: &State<'_>) -> Plan {
    let mut tally = Tally::settled(state);
    tally.take_up(state);
    let mut plan = Plan { status: state.job.status.clone().unwrap_or_default(), ..Plan::default() };
    plan.delete = state.active();
    plan.untrack = std::mem::take(&mut tally.untrack);
    fill(state, tally, &mut plan);
    plan
}

/// How long until the Job is to be removed; `None`: never.
pub(super) fn until_removal(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), COMPLETE | FAILED) && c.status == "True")?;
    let since = ended.last_transition_time.as_ref()?.0;
    let left = i64::from(ttl) - (now.as_second() - since.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

pub(super) fn sooner(plan: &mut Plan, wait: Duration) {
    plan.wait = Some(plan.wait.map_or(wait, |other| other.min(wait)));
}

pub(super) fn set(
    status: &mut JobStatus,
    condition: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|one| one.type_ != condition);
    conditions.push(JobCondition {
        type_: condition.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
