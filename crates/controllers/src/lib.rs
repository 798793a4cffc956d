#![doc = include_str!("../OVERVIEW.md")]

mod context;
mod controller;
mod deployment;
mod endpoints;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fake;
mod garbage;
mod leader;
mod namespaces;
mod nodes;
mod options;
mod queue;
mod replica_set;

pub use endpoints::SERVICE_NAME;
pub use error::LeaderError;
pub use leader::{Leader, lead};
pub use options::LeaderOptions;
