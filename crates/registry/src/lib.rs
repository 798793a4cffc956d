#![doc = include_str!("../OVERVIEW.md")]

mod admit;
mod alloc;
mod apply;
mod batch;
mod cache;
mod commit;
mod decoded;
mod delete;
mod error;
mod events;
mod evict;
mod feed;
mod fresh;
mod heartbeats;
pub mod metrics;
mod object;
mod options;
mod part;
mod patch;
mod precondition;
mod prepare;
mod proposer;
pub mod quota;
mod registry;
mod stored;
mod strategic;
mod system;
mod system_roles;
mod warm;
mod watcher;
mod write;

pub use admit::DEFAULT_SERVICE_ACCOUNT;
pub use apply::{Applied, ApplyOptions, ConflictCause, check_manager};
pub use cache::{Cache, View};
pub use delete::Deleted;
pub use error::{Code, RegistryError};
pub use events::{EventRecord, EventRecorder, EventType};
pub use heartbeats::Heartbeats;
pub use metrics::Metrics;
pub use object::{Object, ObjectKey};
pub use options::*;
pub use patch::apply as apply_patch;
pub use registry::{List, Registry};
pub use watcher::{EventKind, ObjectEvent, ObjectWatcher, WatchOptions};

pub use quorate_store::Consistency;

#[cfg(test)]
mod admission_test;
#[cfg(test)]
mod custom_test;
#[cfg(test)]
mod registry_test;
