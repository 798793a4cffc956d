#![doc = include_str!("../OVERVIEW.md")]

mod bind;
pub mod decide;
pub mod filter;
pub mod needs;
pub mod queue;
mod run;
pub mod score;
pub mod snapshot;

pub use bind::is_fenced;
pub use decide::{Decision, Outcome, Unschedulable, decide};
pub use run::{SchedulerOptions, run};
pub use snapshot::ClusterSnapshot;

#[cfg(test)]
mod fixtures;
