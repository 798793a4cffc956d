//! A CronJob runs once for each time of its schedule, however clocks jump.

use std::collections::BTreeSet;

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "no burst of cron runs",
    promise: "a CronJob that is due every minute runs once for each, and once more for each time \
              that a clock is turned",
    judge,
};

const MINUTE: u64 = 60_000_000_000;

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let Some(cron) = &evidence.cron else { return findings };
    let mut seen = BTreeSet::new();
    for time in &cron.scheduled {
        findings.expect(seen.insert(time), || format!("{time} was served twice"));
    }
    if cron.scheduled.is_empty() {
        return findings;
    }
    // The first and the last minute are pieces. A clock is turned twice: away, and back.
    let minutes = (cron.until - cron.from) / MINUTE + 2;
    let most = minutes + 2 * cron.turns;
    let runs = cron.scheduled.len() as u64;
    findings.expect(runs <= most, || {
        format!(
            "{runs} runs within {minutes} minutes, in which clocks were turned {} times: {}",
            cron.turns,
            cron.scheduled.join(", ")
        )
    });
    findings
}

#[cfg(test)]
#[path = "cron_test.rs"]
mod tests;
