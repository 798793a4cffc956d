//! Job.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicy, SuccessPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{Selector, job, template, time};

/// Indexes are written down one by one in the status, so there is a limit (Kubernetes').
const INDEXED_MAX: i32 = 100_000;

/// Job.
pub static KIND: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short_names: &[],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["status.successful"],
    columns: &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("COMPLETIONS"),
        Column::new("DURATION"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<Job>(),
};

impl Typed for Job {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_spec(spec);
        let name = self.metadata.name.clone().unwrap_or_default();
        let uid = self.metadata.uid.clone().unwrap_or_default();
        if spec.manual_selector == Some(true) || uid.is_empty() || name.is_empty() {
            return;
        }
        // The job's own pods, and nobody else's: the uid tells them apart from those of an
        // earlier job of this name.
        let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
        for (key, value) in [
            (job::CONTROLLER_UID, &uid),
            (job::JOB_NAME, &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
        spec.selector.get_or_insert_with(|| LabelSelector {
            match_labels: Some(BTreeMap::from([(job::CONTROLLER_UID.to_owned(), uid)])),
            match_expressions: None,
        });
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else {
            errors.required("spec", "");
            return;
        };
        validate_spec(spec, "spec", errors);
        match &spec.selector {
            None => errors.required("spec.selector", ""),
            Some(selector) => template::validate_selector(selector, &spec.template, errors),
        }
        let uid = self.metadata.uid.as_deref().unwrap_or_default();
        let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        let given = labels.and_then(|labels| labels.get(job::CONTROLLER_UID));
        if spec.manual_selector != Some(true) && given.is_some_and(|given| given != uid) {
            let path = format!("spec.template.metadata.labels.{}", job::CONTROLLER_UID);
            errors.invalid(path, given, format!("must be '{uid}'"));
        }
        if spec.manual_selector != Some(true)
            && let Some(selector) = &spec.selector
        {
            let own = Selector::from_label_selector(selector).ok();
            let mut labels = BTreeMap::new();
            labels.insert(job::CONTROLLER_UID.to_owned(), uid.to_owned());
            if !own.is_some_and(|own| own.matches(&labels)) {
                let text = "`selector` not auto-generated";
                errors.invalid("spec.selector", selector, text);
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let elastic =
            new.completion_mode.as_deref() == Some("Indexed") && new.completions == new.parallelism;
        if !elastic {
            errors.immutable("spec.completions", &new.completions, &old.completions);
        }
        errors.immutable("spec.completionMode", &new.completion_mode, &old.completion_mode);
        errors.immutable("spec.selector", &new.selector, &old.selector);
        errors.immutable("spec.podFailurePolicy", &new.pod_failure_policy, &old.pod_failure_policy);
        let (new_limit, old_limit) = (new.backoff_limit_per_index, old.backoff_limit_per_index);
        errors.immutable("spec.backoffLimitPerIndex", &new_limit, &old_limit);
        errors.immutable("spec.successPolicy", &new.success_policy, &old.success_policy);
        errors.immutable("spec.managedBy", &new.managed_by, &old.managed_by);
        if new.template != old.template && old.suspend != Some(true) {
            errors.immutable("spec.template", &new.template, &old.template);
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let (containers, images) = template::shown_containers(spec.template.spec.as_ref());
        let succeeded = status.succeeded.unwrap_or(0);
        let completions = match (spec.completions, spec.parallelism) {
            (Some(completions), _) => format!("{succeeded}/{completions}"),
            (None, Some(parallelism)) if parallelism > 1 => {
                format!("{succeeded}/1 of {parallelism}")
            }
            _ => format!("{succeeded}/1"),
        };
        let started = status.start_time.as_ref();
        let end = status.completion_time.as_ref().map_or(now, |time| time.0);
        let duration = started.map(|start| time::duration(end.as_second() - start.0.as_second()));
        let selector = spec.selector.as_ref();
        let selector = selector.and_then(|one| Selector::from_label_selector(one).ok());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            shown_status(self).to_owned(),
            completions,
            duration.unwrap_or_default(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            selector.map(|selector| selector.to_string()).unwrap_or_default(),
        ]
    }
}

fn shown_status(this: &Job) -> &'static str {
    let has = |condition| job::has_condition(this, condition);
    if has(job::COMPLETE) {
        "Complete"
    } else if has(job::FAILED) {
        "Failed"
    } else if this.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has(job::SUSPENDED) {
        "Suspended"
    } else if has(job::FAILURE_TARGET) {
        "FailureTarget"
    } else if has(job::SUCCESS_CRITERIA_MET) {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Kubernetes' defaults of a job's spec, wherever it occurs.
pub(super) fn default_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    spec.backoff_limit.get_or_insert(limit);
    spec.suspend.get_or_insert(false);
    template::default_text(&mut spec.completion_mode, "NonIndexed");
    let replacement =
        if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    template::default_text(&mut spec.pod_replacement_policy, replacement);
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            template::default_text(&mut pattern.status, "True");
        }
    }
    template::default_template(&mut spec.template);
}

/// Checks a job's spec at `path`, but for its selector.
pub(super) fn validate_spec(spec: &JobSpec, path: &str, errors: &mut Errors) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
    ] {
        errors.non_negative(format!("{path}.{field}"), value);
    }
    let mode = spec.completion_mode.as_deref();
    errors.one_of(format!("{path}.completionMode"), mode, &["Indexed", "NonIndexed"]);
    if mode == Some("Indexed") {
        match spec.completions {
            None => {
                errors.required(format!("{path}.completions"), "when completion mode is Indexed")
            }
            Some(count) if count > INDEXED_MAX => {
                let text = format!(
                    "must be less than or equal to {INDEXED_MAX} when completion \
                                    mode is Indexed"
                );
                errors.invalid(format!("{path}.completions"), count, text);
            }
            Some(_) => {}
        }
    } else if spec.backoff_limit_per_index.is_some() {
        let text = "requires indexed completion mode";
        errors.invalid(format!("{path}.backoffLimitPerIndex"), spec.backoff_limit_per_index, text);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let text = "when maxFailedIndexes is specified";
        errors.required(format!("{path}.backoffLimitPerIndex"), text);
    }
    if let Some(policy) = &spec.success_policy {
        let path = format!("{path}.successPolicy");
        if mode == Some("Indexed") {
            validate_success_policy(policy, spec.completions.unwrap_or_default(), &path, errors);
        } else {
            errors.invalid(path, policy, "requires indexed completion mode");
        }
    }
    errors.one_of(
        format!("{path}.podReplacementPolicy"),
        spec.pod_replacement_policy.as_deref(),
        &["Failed", "TerminatingOrFailed"],
    );
    let never = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if let Some(policy) = &spec.pod_failure_policy {
        if never != Some("Never") {
            let text = "only \"Never\" is supported when podFailurePolicy is specified";
            let path = format!("{path}.template.spec.restartPolicy");
            errors.invalid(path, never, text);
        }
        let path = format!("{path}.podFailurePolicy");
        validate_failure_policy(policy, spec.backoff_limit_per_index.is_some(), &path, errors);
    }
    let path = format!("{path}.template");
    template::validate_pod_template(&spec.template, &path, &["OnFailure", "Never"], errors);
}

fn validate_failure_policy(
    policy: &PodFailurePolicy,
    per_index: bool,
    path: &str,
    errors: &mut Errors,
) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    const RULES_MAX: usize = 20;
    if policy.rules.len() > RULES_MAX {
        let text = format!("must have at most {RULES_MAX} items");
        errors.invalid(format!("{path}.rules"), policy.rules.len(), text);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = format!("{path}.rules[{index}]");
        errors.one_of(format!("{path}.action"), Some(&rule.action), &ACTIONS);
        if rule.action == "FailIndex" && !per_index {
            let text = "requires the backoffLimitPerIndex to be set";
            errors.invalid(format!("{path}.action"), &rule.action, text);
        }
        match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (None, None) => {
                let text = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.invalid(path.clone(), "", text);
            }
            (Some(_), Some(conditions)) if !conditions.is_empty() => {
                let text = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.invalid(path.clone(), "", text);
            }
            _ => {}
        }
        let Some(codes) = &rule.on_exit_codes else { continue };
        let path = format!("{path}.onExitCodes");
        errors.one_of(format!("{path}.operator"), Some(&codes.operator), &["In", "NotIn"]);
        if codes.values.is_empty() {
            errors.invalid(format!("{path}.values"), "", "at least one value is required");
        }
        if codes.operator == "In" && codes.values.contains(&0) {
            let text = "must not be 0 for the In operator";
            errors.invalid(format!("{path}.values"), 0, text);
        }
    }
}

fn validate_success_policy(
    policy: &SuccessPolicy,
    completions: i32,
    path: &str,
    errors: &mut Errors,
) {
    const RULES_MAX: usize = 20;
    const TEXT_MAX: usize = 64 * 1024;
    let path = format!("{path}.rules");
    if policy.rules.is_empty() {
        let text = "at least one rules must be specified when the successPolicy is specified";
        errors.required(path.clone(), text);
    }
    if policy.rules.len() > RULES_MAX {
        let text = format!("must have at most {RULES_MAX} items");
        errors.invalid(path.clone(), policy.rules.len(), text);
    }
    for (number, rule) in policy.rules.iter().enumerate() {
        let path = format!("{path}[{number}]");
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            let text = "at least one of succeededCount or succeededIndexes must be specified";
            errors.required(path.clone(), text);
        }
        let mut most = (completions, "specified completions");
        if let Some(indexes) = &rule.succeeded_indexes {
            let path = format!("{path}.succeededIndexes");
            match job::count_indexes(indexes, completions) {
                _ if indexes.len() > TEXT_MAX => {
                    let text = format!("may not be more than {TEXT_MAX} bytes");
                    errors.invalid(path, "", text);
                }
                Ok(total) => most = (total, "indexes in the specified succeededIndexes field"),
                Err(what) => {
                    errors.invalid(path, indexes, format!("error parsing succeededIndexes: {what}"))
                }
            }
        }
        let path = format!("{path}.succeededCount");
        match rule.succeeded_count {
            Some(count) if count <= 0 => errors.invalid(path, count, "must be greater than 0"),
            Some(count) if count > most.0 => {
                let text = format!("must be less than or equal to {} (the number of {})", most.0, most.1);
                errors.invalid(path, count, text);
            }
            _ => {}
        }
    }
}
