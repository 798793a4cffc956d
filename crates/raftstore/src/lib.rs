#![doc = include_str!("../OVERVIEW.md")]

mod admission;
mod ask;
#[cfg(test)]
mod ask_test;
#[cfg(test)]
mod cluster_test;
mod codec;
mod corrupt;
#[cfg(test)]
mod crash_test;
mod duties;
mod error;
mod failpoint;
mod fatal;
#[cfg(test)]
mod faults_test;
mod forward;
mod groups;
mod identity;
mod leadership;
mod leases;
mod log;
mod members;
#[cfg(test)]
mod members_test;
mod metrics;
mod options;
mod peer;
mod reads;
mod restore;
mod rocks;
#[cfg(test)]
mod simulation;
mod space;
mod start;
mod state;
mod store;
mod torn;
mod trim;
mod types;
#[cfg(test)]
mod writes_test;

pub use error::RaftStoreError;
pub use options::{AutoCompaction, InitialMember, Options, PeerListen};
pub use restore::{Restored, rebuild, restore, verify};
pub use store::RaftStore;
