//! The contract of the key-value store and its one pure state machine.
#![doc = include_str!("../OVERVIEW.md")]

pub mod backend;
mod command;
mod contract;
mod error;
mod gather;
mod image;
mod lessor;
pub mod machine;
mod memory;
pub mod metrics;
mod types;
mod watch;

pub use backend::{Backend, BackendError, Batch, Direction, Space, View, Visit, Write};
pub use command::*;
pub use contract::*;
pub use error::StoreError;
pub use gather::{Fit, Gather, STUCK};
pub use image::read_image;
pub use lessor::{LeaseChange, Lessor, NotLeading, Revocation, grant_lease};
pub use machine::{Entry, StateMachine, check_command, check_known, needs_space, reads_only};
pub use memory::{MemoryBackend, MemoryStore, MemoryView};
pub use types::*;
pub use watch::{History, WatchBatch, WatchHub, Watcher};

/// How many request ids (see [`Command::request_id`]) the state machine remembers.
pub const REQUEST_IDS_KEPT: usize = 4096;
/// Largest encoded command, in bytes (etcd's default request limit).
pub const MAX_COMMAND_BYTES: usize = 1536 * 1024;
/// Longest time to live of a lease, in seconds (etcd's bound, 285 years).
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;
/// Most transactions inside one another. Each is two messages deep, and whoever decodes protobuf
/// (`prost`) gives up at a hundred: what is in the log must be decoded by everyone.
pub const MAX_TXN_DEPTH: usize = 32;
/// Most operations in one transaction, nested ones included (etcd's default).
pub const MAX_TXN_OPS: usize = 128;
/// Most transactions in one batch.
pub const MAX_BATCH: usize = 256;
