//! A Job is done exactly as often as was asked.

use super::{Findings, Promise};
use crate::evidence::Evidence;

pub(super) const PROMISE: Promise = Promise {
    name: "jobs are done as often as asked",
    promise: "a Job that is complete has counted exactly its completions, and no more pods of it \
              have succeeded",
    judge,
};

fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for job in &evidence.jobs {
        findings.expect(job.counted == job.wanted && job.succeeded <= job.wanted, || {
            format!(
                "{}: {} completions wanted, {} counted, {} pods have succeeded",
                job.name, job.wanted, job.counted, job.succeeded
            )
        });
    }
    findings
}

#[cfg(test)]
#[path = "jobs_test.rs"]
mod tests;
