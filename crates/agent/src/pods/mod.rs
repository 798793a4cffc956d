//! Pods: one worker per pod looks at what there is, decides one step (`plan`, pure), takes
//! it, tells the status (`status`, pure), and looks again.

pub mod access;
pub mod backoff;
pub mod claims;
pub mod disk;
pub mod env;
pub mod events;
pub mod manager;
pub mod outbox;
pub mod plan;
pub mod probe;
pub mod prober;
pub mod resolve;
pub mod status;
pub mod steps;
pub mod termination;
pub mod volumes;
pub mod worker;

#[cfg(test)]
pub(crate) mod fake;
