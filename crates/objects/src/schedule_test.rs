#![allow(clippy::unwrap_used)]

use super::*;

fn next(text: &str, zone: Option<&str>, after: &str) -> String {
    let schedule = Schedule::parse(text, zone).unwrap();
    schedule.next_after(after.parse().unwrap()).unwrap().to_string()
}

#[test]
fn five_fields_and_names() {
    let after = "2026-03-01T10:30:00Z";
    assert_eq!(next("* * * * *", None, after), "2026-03-01T10:31:00Z");
    assert_eq!(next("*/15 * * * *", None, after), "2026-03-01T10:45:00Z");
    assert_eq!(next("0 4 * * 1-5", None, after), "2026-03-02T04:00:00Z");
    assert_eq!(next("0 0 29 2 *", None, after), "2028-02-29T00:00:00Z");
    assert_eq!(next("@hourly", None, after), "2026-03-01T11:00:00Z");
    // Both days given: either is enough, as everywhere since the first cron.
    assert_eq!(next("0 0 13 * 1", None, after), "2026-03-02T00:00:00Z");
}

#[test]
fn time_zones_and_their_clock_changes() {
    // Berlin goes from 02:00 to 03:00 on 2026-03-29 and back on 2026-10-25.
    let berlin = Some("Europe/Berlin");
    assert_eq!(next("0 12 * * *", berlin, "2026-03-28T12:00:00Z"), "2026-03-29T10:00:00Z");
    assert_eq!(next("0 12 * * *", berlin, "2026-10-24T12:00:00Z"), "2026-10-25T11:00:00Z");
}

#[test]
fn the_last_time() {
    let schedule = Schedule::parse("0 * * * *", None).unwrap();
    let last = |now: &str| schedule.last_before(now.parse().unwrap()).unwrap().to_string();
    assert_eq!(last("2026-03-01T10:30:00Z"), "2026-03-01T10:00:00Z");
    assert_eq!(last("2026-03-01T10:00:00Z"), "2026-03-01T10:00:00Z");
}

#[test]
fn what_is_no_schedule() {
    for (text, zone) in [
        ("", None),
        ("* * * *", None),
        ("* * * * * *", None),
        ("61 * * * *", None),
        ("TZ=UTC 0 * * * *", None),
        ("0 * * * *", Some("Atlantis/City")),
        ("0 * * * *", Some("Local")),
    ] {
        assert!(Schedule::parse(text, zone).is_err(), "{text:?} in {zone:?}");
    }
    assert_eq!(Schedule::parse("0 0 30 2 *", None).unwrap_err(), ScheduleError::Never);
}
