//! Why the agent cannot start or go on.

use std::path::PathBuf;

use thiserror::Error;

use crate::runtime::RuntimeError;

/// Why the agent ended. Everything else it survives.
#[derive(Debug, Error)]
pub enum AgentError {
    /// An option is of no use.
    #[error("{0}")]
    Options(String),
    /// The data directory cannot be used.
    #[error("data directory {}: {message}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The container runtime cannot be used.
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
    /// The masters belong to another cluster than this agent.
    #[error(
        "the master at {master} belongs to cluster {theirs}, this node to cluster {ours}; use \
         that cluster's masters, or an empty --data-dir to join the other cluster"
    )]
    WrongCluster {
        /// URL of the master.
        master: String,
        /// Its cluster.
        theirs: String,
        /// The node's.
        ours: String,
    },
    /// No master has welcomed this agent, and one says that it belongs elsewhere.
    #[error("{0}")]
    Refused(String),
    /// A newer agent of the same node has registered.
    #[error("another agent of node {0} has started and took over; stop one of the two")]
    Replaced(String),
}
