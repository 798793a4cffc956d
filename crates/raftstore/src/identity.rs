//! Whose data directory it is, and that only one process uses it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use quorate_store::MemberId;
use serde::{Deserialize, Serialize};

use crate::error::RaftStoreError;

/// Contents of `identity.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub cluster_id: String,
    pub member_id: MemberId,
    pub name: String,
    /// Chosen when the directory was new; see [`crate::admission`].
    pub instance: u64,
}

/// Keeps other processes out of the directory while it lives.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory`, which must exist.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, RaftStoreError> {
        let path = directory.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| RaftStoreError::io("cannot open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message: an unreadable file leaves "?".
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "?".into() } else { pid.trim().to_owned() };
                return Err(RaftStoreError::Locked { path: directory.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => {
                return Err(RaftStoreError::io("cannot lock", &path, error));
            }
        }
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|error| RaftStoreError::io("cannot write", &path, error))?;
        Ok(Self { _file: file })
    }
}

impl Identity {
    /// The directory's identity, if it has one.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, RaftStoreError> {
        let path = directory.join("identity.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                RaftStoreError::Damaged { path: path.clone(), reason: error.to_string() }
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RaftStoreError::io("cannot read", &path, error)),
        }
    }

    /// Checks the directory's identity against `self`, or writes it when the directory is new.
    /// Returns whether it was new. The member id on disk wins: positions in the list of initial
    /// masters count only once.
    pub(crate) fn claim(self, directory: &Path) -> Result<(Self, bool), RaftStoreError> {
        let path = directory.join("identity.json");
        if let Some(found) = Self::read(directory)? {
            found.check(&self, directory)?;
            return Ok((found, false));
        }
        if directory.join("log").exists() {
            let reason = "it is missing, but there is a log".into();
            return Err(RaftStoreError::Damaged { path, reason });
        }
        self.write(&path)?;
        Ok((self, true))
    }

    fn check(&self, expected: &Self, directory: &Path) -> Result<(), RaftStoreError> {
        if self.cluster_id != expected.cluster_id {
            return Err(RaftStoreError::OtherCluster {
                path: directory.to_owned(),
                found: self.cluster_id.clone(),
                expected: expected.cluster_id.clone(),
            });
        }
        if self.name != expected.name {
            return Err(RaftStoreError::OtherMember {
                path: directory.to_owned(),
                found: self.name.clone(),
                expected: expected.name.clone(),
            });
        }
        Ok(())
    }

    /// Makes `directory` this member's.
    pub(crate) fn write_to(&self, directory: &Path) -> Result<(), RaftStoreError> {
        self.write(&directory.join("identity.json"))
    }

    fn write(&self, path: &Path) -> Result<(), RaftStoreError> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| RaftStoreError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        write_atomically(path, &json)
            .map_err(|error| RaftStoreError::io("cannot write", path, error))
    }
}

/// Writes a file so that after a crash it is either absent (or old) or complete.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Removes a file, or a directory with all it holds; that it is not there is as good.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
#[path = "identity_test.rs"]
mod tests;
