#![doc = include_str!("../OVERVIEW.md")]

mod bind;
mod claims;
pub mod decide;
pub mod filter;
pub mod needs;
pub mod preempt;
pub mod queue;
mod run;
pub mod score;
pub mod snapshot;
pub mod trace;

pub use bind::is_fenced;
pub use decide::{Decision, Outcome, Policy, Unschedulable, decide};
pub use run::{SchedulerOptions, Standby, run};
pub use snapshot::ClusterSnapshot;
pub use trace::Explainer;

#[cfg(test)]
mod fixtures;
