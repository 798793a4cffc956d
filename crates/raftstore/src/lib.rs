#![doc = include_str!("../OVERVIEW.md")]

#[cfg(test)]
mod cluster_test;
mod codec;
mod error;
mod failpoint;
mod fatal;
mod forward;
mod identity;
mod leadership;
mod leases;
mod log;
mod members;
mod options;
mod peer;
mod reads;
mod rocks;
mod start;
mod state;
mod store;
mod types;

pub use error::RaftStoreError;
pub use options::{InitialMember, Options, PeerListen};
pub use store::RaftStore;
