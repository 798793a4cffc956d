//! What controllers, commands and columns ask of Jobs.

use k8s_openapi::api::batch::v1::Job;

/// The label of a Job's pods with its uid.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label of a Job's pods with its name.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The annotation and label of a pod of an Indexed Job with its index.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// It has succeeded.
pub const COMPLETE: &str = "Complete";
/// It has failed for good.
pub const FAILED: &str = "Failed";
/// It runs no pods for now.
pub const SUSPENDED: &str = "Suspended";

/// Is the condition there and true?
#[must_use]
pub fn has_condition(job: &Job, condition: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == condition && one.status == "True")
}

/// Has it ended, one way or the other?
#[must_use]
pub fn is_finished(job: &Job) -> bool {
    has_condition(job, COMPLETE) || has_condition(job, FAILED)
}
