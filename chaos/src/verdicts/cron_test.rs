use super::super::violations;
use super::*;
use crate::evidence::CronRuns;

fn runs(minutes: u64, turns: u64, scheduled: &[&str]) -> Vec<String> {
    let scheduled = scheduled.iter().map(|time| (*time).to_owned()).collect();
    let cron = CronRuns { from: MINUTE, until: (minutes + 1) * MINUTE, turns, scheduled };
    violations(&PROMISE, &Evidence { cron: Some(cron), ..Evidence::default() })
}

#[test]
fn one_run_for_each_minute_and_each_turn() {
    assert!(runs(1, 0, &["12:01", "12:02"]).is_empty());
    assert!(runs(0, 1, &["12:01", "14:01", "12:02"]).is_empty());
    let burst = runs(0, 1, &["12:01", "12:02", "12:03", "12:04", "12:05"]);
    assert!(burst.len() == 1 && burst[0].contains("5 runs"), "{burst:?}");
    let twice = runs(3, 0, &["12:01", "12:01"]);
    assert!(twice.len() == 1 && twice[0].contains("12:01 was served twice"), "{twice:?}");
}
