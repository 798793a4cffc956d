//! [`Backend`]: the ordered key spaces that a state machine lives in.

use std::fmt::Display;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::StoreError;

/// One of a state machine's key spaces (a column family in RocksDB). Keys are ordered as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The present state: user key → record.
    Latest = 0,
    /// All changes in order: revision, sub-revision → change.
    History = 1,
    /// The changes of each key: user key, revision, sub-revision → what happened.
    Index = 2,
    /// Counters; keys that begin with `raft/` belong to the replication.
    Meta = 3,
    /// Remembered request ids with their results.
    Requests = 4,
    /// Leases, and which keys are attached to them.
    Leases = 5,
}

impl Space {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Latest, Self::History, Self::Index, Self::Meta, Self::Requests, Self::Leases];

    /// A short lower-case name, for column families and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::History => "history",
            Self::Index => "index",
            Self::Meta => "meta",
            Self::Requests => "requests",
            Self::Leases => "leases",
        }
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// The storage failed or holds what it must not hold. The process has to stop: a state machine
/// that carried on would differ from its replicas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage: {0}")]
pub struct BackendError(String);

impl BackendError {
    /// With a text for people.
    pub fn new(text: impl Display) -> Self {
        Self(text.to_string())
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// One change: space, key, and the new value (`None` deletes).
pub type Write = (Space, Bytes, Option<Bytes>);

/// Changes that take effect together or not at all. No key occurs twice in one space, except
/// that a later operation on the same key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The changes.
    pub ops: Vec<Write>,
}

/// Ordered key spaces with snapshots and atomic batches.
pub trait Backend: Send + Sync + 'static {
    /// A consistent snapshot of all spaces.
    type View<'a>: View
    where
        Self: 'a;

    /// Takes a snapshot. Short-lived: an implementation may hold writers off until it is dropped.
    fn view(&self) -> Self::View<'_>;

    /// Applies a batch atomically.
    ///
    /// # Errors
    /// When the storage fails; then nothing of the batch may become visible.
    fn commit(&self, batch: Batch) -> Result<(), BackendError>;
}

/// Called with each key and value of a scan.
pub type Visit<'a> = &'a mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a);

/// A consistent snapshot of a [`Backend`].
pub trait View {
    /// Reads one key.
    ///
    /// # Errors
    /// When the storage fails.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Visits the keys of `[start, end)` (no `end`: up to the last key), in either direction,
    /// until `visit` breaks.
    ///
    /// # Errors
    /// When the storage fails.
    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), BackendError>;
}
