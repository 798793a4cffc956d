//! CronJob.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::schedule::Schedule;
use crate::{Selector, template, time};

/// Jobs are named after it with a suffix of 11 characters, and their names become labels.
const NAME_MAX: usize = 52;

/// CronJob.
pub static KIND: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("SCHEDULE"),
        Column::new("TIMEZONE"),
        Column::new("SUSPEND"),
        Column::new("ACTIVE"),
        Column::new("LAST SCHEDULE"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<CronJob>(),
};

impl Typed for CronJob {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        template::default_text(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        super::job::default_spec(spec.job_template.spec.get_or_insert_default());
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name.len() > NAME_MAX {
            let text = format!("must be no more than {NAME_MAX} characters");
            errors.invalid("metadata.name", name, text);
        }
        if spec.schedule.is_empty() {
            errors.required("spec.schedule", "");
        } else {
            let zone = spec.time_zone.as_deref();
            match Schedule::parse(&spec.schedule, None) {
                Err(error) => errors.invalid("spec.schedule", &spec.schedule, error.to_string()),
                Ok(_) => {
                    if let Err(error) = Schedule::parse(&spec.schedule, zone) {
                        errors.invalid("spec.timeZone", zone, error.to_string());
                    }
                }
            }
        }
        errors.one_of(
            "spec.concurrencyPolicy",
            spec.concurrency_policy.as_deref(),
            &["Allow", "Forbid", "Replace"],
        );
        for (field, value) in [
            ("startingDeadlineSeconds", spec.starting_deadline_seconds),
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit.map(i64::from)),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit.map(i64::from)),
        ] {
            errors.non_negative(format!("spec.{field}"), value);
        }
        match &spec.job_template.spec {
            None => errors.required("spec.jobTemplate.spec", ""),
            Some(job) => {
                if job.manual_selector == Some(true) {
                    let text = "supported values: \"nil\", \"false\"";
                    errors.invalid("spec.jobTemplate.spec.manualSelector", true, text);
                }
                super::job::validate_spec(job, "spec.jobTemplate.spec", errors);
            }
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = &self.spec;
        let status = self.status.clone().unwrap_or_default();
        let none = || "<none>".to_owned();
        let job = spec.job_template.spec.clone().unwrap_or_default();
        let (containers, images) = template::shown_containers(job.template.spec.as_ref());
        let last = status.last_schedule_time.as_ref();
        let selector = job.selector.as_ref();
        let selector = selector.and_then(|one| Selector::from_label_selector(one).ok());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            spec.schedule.clone(),
            spec.time_zone.clone().unwrap_or_else(none),
            if spec.suspend == Some(true) { "True".into() } else { "False".into() },
            status.active.map_or(0, |active| active.len()).to_string(),
            last.map_or_else(none, |last| time::age(last.0, now)),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            selector.map_or_else(none, |selector| selector.to_string()),
        ]
    }
}
