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

/// It has succeeded; what still runs is being stopped.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// It has failed; what still runs is being stopped.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// The field `managedBy` of Jobs that the controller looks after; others say who does.
pub const CONTROLLER: &str = "kubernetes.io/job-controller";

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

/// How many indexes a list such as `1,3-5,7` names. They ascend, and are below `completions`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn count_indexes(text: &str, completions: i32) -> Result<i32, String> {
    let (mut total, mut previous) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if last.contains('-') {
            return Err(format!(
                "the fragment \"{part}\" violates the requirement that an index interval can have \
                 at most two parts separated by '-'"
            ));
        }
        let first = index(first, completions)?;
        let last = index(last, completions)?;
        if let Some(previous) = previous.filter(|previous| *previous >= first) {
            return Err(format!("non-increasing order, previous: {previous}, current: {first}"));
        }
        if last < first || (last == first && part.contains('-')) {
            return Err(format!("non-increasing order, previous: {first}, current: {last}"));
        }
        total += last - first + 1;
        previous = Some(last);
    }
    Ok(total)
}

fn index(text: &str, completions: i32) -> Result<i32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i32>() {
        Ok(index) if digits && index < completions => Ok(index),
        Ok(_) if digits => Err(format!("too large index: \"{text}\"")),
        _ => Err(format!("cannot convert string to integer for index: \"{text}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_ascend_and_are_below_the_completions() {
        for (text, count) in [("", 0), ("0", 1), ("1,3-5,7", 5), ("0-9", 10)] {
            assert_eq!(count_indexes(text, 10), Ok(count), "{text}");
        }
        for text in ["10", "8-10", "3,3", "5-3", "2-2", "1-2-3", "a", "-1", "1,", "+1", "0x1"] {
            assert!(count_indexes(text, 10).is_err(), "{text}");
        }
    }
}
