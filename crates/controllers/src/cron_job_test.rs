#![allow(clippy::unwrap_used)]

use super::*;

fn at(text: &str) -> Timestamp {
    format!("2026-01-01T{text}Z").parse().unwrap()
}

fn hourly(last: Option<&str>, deadline: Option<i64>, now: &str) -> Due {
    let schedule = Schedule::parse("0 * * * *", None).unwrap();
    due(&schedule, at("00:30:00"), last.map(at), deadline, at(now))
}

#[test]
fn the_last_time_that_was_missed_and_no_other() {
    let first = hourly(None, None, "00:59:59");
    assert_eq!((first.run, first.next), (None, Some(at("01:00:00"))));
    assert_eq!(hourly(None, None, "01:00:00").run, Some(at("01:00:00")));
    assert_eq!(hourly(Some("01:00:00"), None, "01:30:00").run, None, "it was served");
    // Ten hours without a leader, or a clock that jumps ahead: one run, not ten.
    let late = hourly(Some("01:00:00"), None, "11:30:00");
    assert_eq!((late.run, late.next), (Some(at("11:00:00")), Some(at("12:00:00"))));
}

#[test]
fn the_deadline_for_starting() {
    assert_eq!(hourly(None, Some(60), "01:00:59").run, Some(at("01:00:00")));
    let late = hourly(None, Some(60), "01:02:00");
    assert_eq!((late.run, late.missed), (None, Some(at("01:00:00"))));
}

#[test]
fn a_clock_that_goes_back() {
    // A little: the time was served already, so nothing runs twice.
    let small = hourly(Some("02:00:00"), None, "01:59:30");
    assert_eq!((small.run, small.reset), (None, false));
    // Much: waiting until then would be a standstill.
    assert!(hourly(Some("09:00:00"), None, "02:30:00").reset);
}

#[test]
fn the_job_of_a_time() {
    let mut owner: CronJob = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "backup", "namespace": "default", "uid": "u"},
        "spec": {"schedule": "0 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}},
            "spec": {"template": {"spec": {"containers": []}}}}},
    }))
    .unwrap();
    owner.set_defaults();
    let job = new_job(&owner, at("01:00:00"));
    assert_eq!(job.metadata.name.as_deref(), Some("backup-29453820"));
    assert_eq!(job.metadata.labels.unwrap()["a"], "b");
    assert_eq!(job.metadata.annotations.unwrap()[SCHEDULED_AT], "2026-01-01T01:00:00Z");
    assert_eq!(job.metadata.owner_references.unwrap()[0].uid, "u");
}
