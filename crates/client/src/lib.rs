#![doc = include_str!("../OVERVIEW.md")]

mod call;
mod cluster;
mod cluster_file;
mod error;
mod forwarder;
mod list_watch;
mod node;
mod object;
mod objects;
mod pool;
mod scheduler;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::Tls;

pub use cluster_file::{ClusterFile, ClusterFileError, EndpointEntry, MasterEntry, NodeEntry};
pub use error::{Attempt, ClientError, Field};
pub use forwarder::forward;
pub use list_watch::{Difference, ListWatch};
pub use node::{LogStream, NodeSession, PodInput, PodOutput, PodStream};
pub use object::{Deleted, List, Object};
pub use objects::{DeleteOptions, ListOptions, PatchOptions, PatchType, WriteOptions};
pub use quorate_proto::v1;
pub use tonic::Code;
pub use watch::{Event, Watch, WatchOptions};

/// How long one attempt of a read may take before the next master is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer taken: lists and full assignments are larger than what masters take.
pub(crate) const MAX_ANSWER_BYTES: usize = 256 << 20;

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Every call is over after this long, retries included.
    pub timeout: Duration,
    /// A call that can be repeated moves to the next master after this long.
    pub attempt_timeout: Duration,
    /// Certificates, for https endpoints.
    pub tls: Option<Tls>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), attempt_timeout: ATTEMPT_TIMEOUT, tls: None }
    }
}

/// A client of all masters of one cluster. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) pool: Arc<pool::Pool>,
    pub(crate) options: ClientOptions,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the masters at these URLs. Connects when first used; needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no URL, or one is malformed.
    pub fn new(endpoints: Vec<String>, options: ClientOptions) -> Result<Self, ClientError> {
        let pool = pool::Pool::new(&endpoints, options.tls.as_ref())?;
        Ok(Self { pool: Arc::new(pool), options })
    }

    /// A client of the cluster that a `cluster.json` describes, with the certificates beside it.
    ///
    /// # Errors
    /// When the file lists no master, or the certificates cannot be read.
    pub fn from_cluster_file(
        file: &ClusterFile,
        mut options: ClientOptions,
    ) -> Result<Self, ClientError> {
        if options.tls.is_none() {
            options.tls = file.tls().map_err(|e| {
                ClientError::new(Code::InvalidArgument, "BadRequest", e.to_string())
            })?;
        }
        Self::new(file.urls(), options)
    }

    /// The masters' URLs, as given.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.pool.iter().map(|master| master.url.clone()).collect()
    }

    /// The same connections with another deadline per call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut client = self.clone();
        client.options.timeout = timeout;
        client
    }
}
