#![doc = include_str!("../OVERVIEW.md")]

pub mod decide;
pub mod filter;
pub mod needs;
pub mod queue;
pub mod score;
pub mod snapshot;

pub use decide::{Decision, Outcome, Unschedulable, decide};
pub use snapshot::ClusterSnapshot;

#[cfg(test)]
mod fixtures;
