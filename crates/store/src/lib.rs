//! The contract of the key-value store and its one pure state machine.
#![doc = include_str!("../OVERVIEW.md")]

mod contract;
mod error;
mod types;
mod watch;

pub use contract::*;
pub use error::StoreError;
pub use types::*;
pub use watch::{WatchHub, Watcher};

/// How many request ids (see [`Command::request_id`]) the state machine remembers.
pub const REQUEST_IDS_KEPT: usize = 4096;
/// Largest encoded command, in bytes (etcd's default request limit).
pub const MAX_COMMAND_BYTES: usize = 1536 * 1024;
/// Most operations in one transaction, nested ones included (etcd's default).
pub const MAX_TXN_OPS: usize = 128;
