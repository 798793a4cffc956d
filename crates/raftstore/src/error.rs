//! What can go wrong when a master's store starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a [`crate::RaftStore`] could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RaftStoreError {
    /// The options contradict each other.
    #[error("invalid options: {0}")]
    Options(String),
    /// The directory belongs to another cluster.
    #[error(
        "data directory {} belongs to cluster {found:?}, not to {expected:?}; \
         give this master a directory of its own, or start it with the id of that cluster",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: String,
        /// The cluster asked for.
        expected: String,
    },
    /// The directory belongs to another member.
    #[error(
        "data directory {} belongs to master {found:?}, not to {expected:?}; \
         each master needs a directory of its own",
        path.display()
    )]
    OtherMember {
        /// The directory.
        path: PathBuf,
        /// The master it belongs to.
        found: String,
        /// The master asked for.
        expected: String,
    },
    /// Another process uses the directory.
    #[error(
        "data directory {} is in use by process {pid}; stop that process first",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, or "?" when it is not known.
        pid: String,
    },
    /// The peer port is taken or not ours.
    #[error("cannot listen for other masters on {address}: {source}{}", hint(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Reading or writing a file failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file says something impossible.
    #[error("{} is damaged: {reason}; restore the directory, or remove this member and add it anew", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// RocksDB refused.
    #[error("database {}: {reason}", path.display())]
    Database {
        /// Its directory.
        path: PathBuf,
        /// RocksDB's words.
        reason: String,
    },
    /// This member's data is gone while the cluster exists.
    #[error(
        "master {name:?} has been part of its cluster, but not with this data directory: its \
         data was lost, and with it votes and entries that it has acknowledged; remove the member \
         and add a new one (`quorate members replace`)"
    )]
    LostData {
        /// This member.
        name: String,
    },
    /// The cluster exists and does not know this master.
    #[error(
        "master {name:?} is not a member of its cluster; add it first (`quorate members add`), \
         then start it with --join"
    )]
    NotMember {
        /// This master.
        name: String,
    },
    /// This member was removed.
    #[error("master {name:?} was removed from its cluster; its data directory is of no use now")]
    Removed {
        /// This master.
        name: String,
    },
    /// No other member has sent its state.
    #[error("the state cannot be fetched from another master: {0}")]
    Fetch(String),
    /// Raft stopped.
    #[error("raft stopped: {0}")]
    Raft(String),
}

impl RaftStoreError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    pub(crate) fn database(path: &Path, error: rocksdb::Error) -> Self {
        Self::Database { path: path.to_owned(), reason: error.into_string() }
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another process has this port, choose another one",
        std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}
