//! Whether a Job has ended, and how: pure.
//!
//! What is decided comes first (SuccessCriteriaMet or FailureTarget), while pods are being
//! stopped; Complete or Failed follow when nothing runs any more and all completions are counted.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_objects::job::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET};
use quorate_objects::pod;
use quorate_registry::EventType;

use super::plan::{Plan, State, Tally, set, sooner};
use super::policy;
use crate::workload::count;

/// How a Job ends.
pub(super) struct End {
    condition: &'static str,
    reason: String,
    message: String,
}

impl End {
    fn failed(reason: &str, message: String) -> Self {
        Self { condition: FAILED, reason: reason.to_owned(), message }
    }

    fn complete(reason: &str, message: String) -> Self {
        Self { condition: COMPLETE, reason: reason.to_owned(), message }
    }

    /// The end that was decided on, whatever has happened to its last pods since.
    pub fn decided(job: &Job) -> Option<Self> {
        let conditions = job.status.as_ref()?.conditions.as_ref()?;
        [(SUCCESS_CRITERIA_MET, COMPLETE), (FAILURE_TARGET, FAILED)].into_iter().find_map(
            |(early, condition)| {
                let found = conditions.iter().find(|c| c.type_ == early && c.status == "True")?;
                let reason = found.reason.clone().unwrap_or_default();
                let message = found.message.clone().unwrap_or_default();
                Some(Self { condition, reason, message })
            },
        )
    }

    /// The condition that comes first, while pods are being stopped.
    fn early(&self) -> &'static str {
        if self.condition == COMPLETE { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }
    }
}

/// Has it ended, and how?
pub(super) fn end(state: &State<'_>, tally: &Tally, plan: &mut Plan) -> Option<End> {
    let failed = |reason, message: String| Some(End::failed(reason, message));
    let (succeeded, failures) = tally.all();
    if let Some(message) = &tally.verdict {
        return failed("PodFailurePolicy", message.clone());
    }
    let limit = state.spec.backoff_limit.unwrap_or(6);
    if failures > limit || restarts_exceed(state, limit) {
        let text = "Job has reached the specified backoff limit";
        return failed("BackoffLimitExceeded", text.into());
    }
    if let Some(deadline) = state.spec.active_deadline_seconds
        && let Some(started) = plan.status.start_time.as_ref()
        && state.spec.suspend != Some(true)
    {
        let left = deadline - (state.now.as_second() - started.0.as_second());
        if left <= 0 {
            let text = "Job was active longer than specified deadline";
            return failed("DeadlineExceeded", text.into());
        }
        sooner(plan, Duration::from_secs(u64::try_from(left).unwrap_or_default()));
    }
    let failed_indexes = count(tally.failed_indexes.0.len());
    if state.spec.max_failed_indexes.is_some_and(|max| failed_indexes > max) {
        let text = "Job has exceeded the specified maximal number of failed indexes";
        return failed("MaxFailedIndexesExceeded", text.into());
    }
    if let Some(message) = policy::succeeded(state.spec, &tally.completed) {
        return Some(End::complete("SuccessPolicy", message));
    }
    let complete = match state.spec.completions {
        // A queue of work: one success and nobody at work any more.
        None => succeeded > 0 && state.active().is_empty(),
        Some(completions) => succeeded.saturating_add(failed_indexes) >= completions,
    };
    if !complete {
        return None;
    }
    if failed_indexes > 0 {
        return failed("FailedIndexes", "Job has failed indexes".into());
    }
    let message = "Reached expected number of succeeded pods".to_owned();
    Some(End::complete("CompletionsReached", message))
}

/// With restartPolicy OnFailure it is the containers that fail again and again, not the pods.
fn restarts_exceed(state: &State<'_>, limit: i32) -> bool {
    let policy = state.spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let active = state.pods.iter().filter(|pod| pod::is_active(pod));
    let restarts: i32 =
        active.flat_map(|pod| pod::container_statuses(pod)).map(|one| one.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Says how it ends; that it has ended only when nothing of it runs any more.
pub(super) fn finish(state: &State<'_>, tally: &Tally, plan: &mut Plan, end: &End) {
    if !job::has_condition(state.job, end.early()) {
        set(&mut plan.status, end.early(), "True", &end.reason, &end.message, state.now);
    }
    // Whoever sees it complete must find all its completions in the figures.
    let uncounted = end.condition == COMPLETE && tally.has_uncounted_successes();
    if uncounted || !state.pods.iter().all(|pod| pod::is_terminal(pod)) {
        return;
    }
    set(&mut plan.status, end.condition, "True", &end.reason, &end.message, state.now);
    if end.condition == COMPLETE {
        plan.status.completion_time = Some(Time(state.now));
        plan.events.push((EventType::Normal, "Completed".into(), "Job completed".into()));
    } else {
        plan.events.push((EventType::Warning, end.reason.clone(), end.message.clone()));
    }
}
