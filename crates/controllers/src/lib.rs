#![doc = include_str!("../OVERVIEW.md")]

mod api_access;
mod autoscaler;
mod context;
mod controller;
mod cron_job;
mod custom_resources;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoints;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fake;
#[cfg(test)]
mod full_pass_test;
mod garbage;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod interleave_test;
mod job;
mod leader;
mod namespaces;
mod nodes;
mod options;
mod queue;
mod quotas;
mod rebalance;
mod replica_set;
mod revisions;
mod service_accounts;
mod stateful_set;
mod storage;
mod template;
mod workload;

pub use api_access::ApiAccess;
pub use endpoints::SERVICE_NAME;
pub use error::LeaderError;
pub use leader::{Leader, lead};
pub use options::LeaderOptions;
pub use rebalance::RebalanceOptions;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod workloads_test;
