//! CronJobs: a Job at each time of a schedule.
//!
//! Invariant: a Job is named after the time it stands for, so that no time is served twice,
//! whatever leaders do. Of times that were missed only the last is made up for: when the clock
//! jumps, or no leader was there for a while, there is no burst of Jobs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use quorate_objects::schedule::Schedule;
use quorate_objects::{Typed, job, kinds, pod, time};
use quorate_registry::{EventType, ObjectEvent, Propagation};

use crate::context::{Context, controller_key, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// The annotation of a Job with the time it stands for.
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// When the last run lies this far in the future, the clock was wrong then, not now.
const FUTURE_MAX: SignedDuration = SignedDuration::from_secs(60);
/// Timers may fire a little early; a schedule is exact to the second.
const LATE: Duration = Duration::from_millis(20);

/// The controller of CronJobs.
pub struct CronJobs {
    context: Arc<Context>,
}

impl CronJobs {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The time for which a Job is to be made now.
    pub run: Option<Timestamp>,
    /// A time that is too long ago to be made up for.
    pub missed: Option<Timestamp>,
    /// When to look again.
    pub next: Option<Timestamp>,
    /// The last run lies in the future: begin anew from the present.
    pub reset: bool,
}

/// Works out what is due. `last`: the last time for which a Job was made.
pub(crate) fn due(
    schedule: &Schedule,
    created: Timestamp,
    last: Option<Timestamp>,
    deadline_seconds: Option<i64>,
    now: Timestamp,
) -> Due {
    let next = schedule.next_after(now);
    let since = last.unwrap_or(created);
    if since.duration_since(now) > FUTURE_MAX {
        return Due { reset: true, next, ..Due::default() };
    }
    let Some(latest) = schedule.last_before(now).filter(|latest| *latest > since) else {
        return Due { next, ..Due::default() };
    };
    let late =
        deadline_seconds.is_some_and(|seconds| now.as_second() - latest.as_second() > seconds);
    if late {
        return Due { missed: Some(latest), next, ..Due::default() };
    }
    Due { run: Some(latest), next, ..Due::default() }
}

fn job_name(owner: &CronJob, at: Timestamp) -> String {
    let name = owner.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", at.as_second() / 60)
}

/// The Job of a time.
fn new_job(owner: &CronJob, at: Timestamp) -> Job {
    let template = &owner.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), time::format(at));
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(owner, at)),
            namespace: owner.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![pod::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

fn reference(one: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::kind().api_version()),
        kind: Some(Job::kind().kind.to_owned()),
        namespace: one.metadata.namespace.clone(),
        name: one.metadata.name.clone(),
        uid: one.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

impl CronJobs {
    fn jobs(&self, owner: &CronJob) -> Vec<Arc<Job>> {
        let uid = owner.metadata.uid.as_deref().unwrap_or_default();
        let mut jobs = self.context.owned::<Job>(uid);
        jobs.retain(|one| pod::controller_of(&one.metadata).is_some_and(|o| o.uid == uid));
        jobs.sort_by_key(|one| {
            let created = one.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (created, one.metadata.name.clone())
        });
        jobs
    }

    async fn delete(&self, owner: &CronJob, one: &Job) -> Result<(), ControllerError> {
        self.context.delete(&kinds::JOB, &one.metadata, None, Propagation::Background).await?;
        let name = one.metadata.name.as_deref().unwrap_or_default();
        let text = format!("Deleted job {name}");
        self.context.event(owner, EventType::Normal, "SuccessfulDelete", &text);
        Ok(())
    }

    /// Removes Jobs that have ended beyond the history limits.
    async fn clean_up(&self, owner: &CronJob, jobs: &[Arc<Job>]) -> Result<(), ControllerError> {
        let spec = &owner.spec;
        for (condition, limit) in [
            (job::COMPLETE, spec.successful_jobs_history_limit.unwrap_or(3)),
            (job::FAILED, spec.failed_jobs_history_limit.unwrap_or(1)),
        ] {
            let ended: Vec<_> = jobs
                .iter()
                .filter(|one| one.metadata.deletion_timestamp.is_none())
                .filter(|one| job::has_condition(one, condition))
                .collect();
            let limit = usize::try_from(limit).unwrap_or_default();
            let excess = ended.len().saturating_sub(limit);
            for one in &ended[..excess] {
                self.delete(owner, one).await?;
            }
        }
        Ok(())
    }

    /// Makes the Job of a time, as the concurrency policy says. Says whether it is settled.
    async fn run(
        &self,
        owner: &CronJob,
        active: &[Arc<Job>],
        at: Timestamp,
    ) -> Result<bool, ControllerError> {
        let policy = owner.spec.concurrency_policy.as_deref();
        let name = job_name(owner, at);
        let others: Vec<_> =
            active.iter().filter(|one| one.metadata.name.as_ref() != Some(&name)).collect();
        if policy == Some("Forbid") && !others.is_empty() {
            let text = "Not starting job because prior execution is running and concurrency \
                        policy is Forbid";
            self.context.event(owner, EventType::Normal, "JobAlreadyActive", text);
            return Ok(false);
        }
        if policy == Some("Replace") {
            for one in others {
                self.delete(owner, one).await?;
            }
        }
        match self.context.create(&new_job(owner, at)).await {
            Ok(_) => {
                let text = format!("Created job {name}");
                self.context.event(owner, EventType::Normal, "SuccessfulCreate", &text);
                Ok(true)
            }
            // Made before its time was noted down, by us or by the leader before.
            Err(ControllerError::AlreadyExists(_)) => Ok(true),
            Err(error) => {
                let text = format!("Error creating job: {error}");
                self.context.event(owner, EventType::Warning, "FailedCreate", &text);
                Err(error)
            }
        }
    }

    fn schedule(&self, owner: &CronJob, spec: &CronJobSpec) -> Option<Schedule> {
        match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let text = format!("unparseable schedule {:?}: {error}", spec.schedule);
                self.context.event(owner, EventType::Warning, "UnparseableSchedule", &text);
                None
            }
        }
    }

    /// Does what is due; notes it down in the status. Returns how long to wait.
    async fn advance(
        &self,
        owner: &CronJob,
        active: &[Arc<Job>],
        status: &mut CronJobStatus,
        now: Timestamp,
    ) -> Result<Option<Duration>, ControllerError> {
        let spec = &owner.spec;
        let Some(schedule) = self.schedule(owner, spec).filter(|_| spec.suspend != Some(true))
        else {
            return Ok(None);
        };
        let created = owner.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let last = status.last_schedule_time.as_ref().map(|time| time.0);
        let due = due(&schedule, created, last, spec.starting_deadline_seconds, now);
        if due.reset && last.is_some() {
            let text = "the last schedule time lies in the future: the clock has gone back; \
                        going on from the present";
            self.context.event(owner, EventType::Warning, "ClockSkew", text);
            status.last_schedule_time = Some(Time(now));
        }
        if let Some(at) = due.missed {
            let text = format!("Missed scheduled time to start a job: {}", time::format(at));
            self.context.event(owner, EventType::Warning, "MissSchedule", &text);
            status.last_schedule_time = Some(Time(at));
        }
        if let Some(at) = due.run
            && self.run(owner, active, at).await?
        {
            status.last_schedule_time = Some(Time(at));
        }
        let wait = due.next.map(|next| next.duration_since(now).unsigned_abs() + LATE);
        Ok(wait)
    }
}

#[async_trait]
impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::CRON_JOB {
            return vec![key_of(object)];
        }
        let owned = *object.kind == kinds::JOB;
        let owner = controller_key(&kinds::CRON_JOB, &object.meta).filter(|_| owned);
        owner.into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::CRON_JOB)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(owner) = self.context.get::<CronJob>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        if owner.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Done);
        }
        let jobs = self.jobs(&owner);
        self.clean_up(&owner, &jobs).await?;
        let active: Vec<Arc<Job>> =
            jobs.iter().filter(|one| !job::is_finished(one)).cloned().collect();
        let mut status = owner.status.clone().unwrap_or_default();
        let references: Vec<_> = active.iter().map(|one| reference(one)).collect();
        status.active = Some(references).filter(|list| !list.is_empty());
        let done = jobs.iter().filter(|one| job::has_condition(one, job::COMPLETE));
        let done = done.filter_map(|one| one.status.as_ref()?.completion_time.clone()).max();
        status.last_successful_time = done.max(status.last_successful_time);
        let outcome = self.advance(&owner, &active, &mut status, time::timestamp()).await;
        if owner.status.as_ref() != Some(&status) {
            let mut updated = CronJob::clone(&owner);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        Ok(outcome?.map_or(Requeue::Done, Requeue::After))
    }
}

#[cfg(test)]
#[path = "cron_job_test.rs"]
mod tests;
