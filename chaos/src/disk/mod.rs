//! A disk that can be broken: a file system of ours (FUSE) that a master's data lies on.
//!
//! It knows what a crash of the machine would leave: the bytes of each file as of its last
//! `fsync` or `fdatasync`, and the names in each directory as [`Names`] says.

mod contents;
mod filesystem;
mod mounts;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fuser::{BackgroundSession, Config, MountOption};
use rand::Rng;

use crate::plan::Torn;
use filesystem::Served;
pub use mounts::unmount_stale;
pub use tree::Names;
use tree::Tree;

/// Calls that the disk serves at a time: a slow sync delays no read.
const THREADS: usize = 4;

/// What the control and the kernel's side of a disk share.
#[derive(Debug)]
struct Shared {
    tree: Mutex<Tree>,
    syncs: AtomicU64,
    sync_delay_ms: AtomicU64,
    syncs_fail: AtomicBool,
    writes_fail: AtomicBool,
    /// Bytes that files may still grow by; `u64::MAX`: as they like.
    room: AtomicU64,
}

/// What ails a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Each sync fails with EIO, and loses what it should have written.
    SyncsFail,
    /// Each write fails with EIO.
    WritesFail,
    /// Files may grow by so many bytes, then writes fail with ENOSPC.
    Full {
        /// Bytes.
        room: u64,
    },
    /// Each sync takes longer by this much.
    SlowSyncs(Duration),
}

/// A mounted disk. Dropping it unmounts it; what it held is gone.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    session: Option<BackgroundSession>,
    _folder: tempfile::TempDir,
}

impl Disk {
    /// Mounts a disk at the directory `at`. What is in the directory is copied onto it, and is
    /// hidden as long as the disk is mounted.
    ///
    /// # Errors
    /// When the directory cannot be read, or nothing can be mounted: that needs `/dev/fuse` and
    /// the right to mount.
    pub fn mount(at: &Path, names: Names) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("quorate-disk-").tempdir()?;
        let mut tree = Tree::new(folder.path(), names)?;
        tree.import(at).with_context(|| format!("copying {}", at.display()))?;
        let shared = Arc::new(Shared {
            tree: Mutex::new(tree),
            syncs: AtomicU64::new(0),
            sync_delay_ms: AtomicU64::new(0),
            syncs_fail: AtomicBool::new(false),
            writes_fail: AtomicBool::new(false),
            room: AtomicU64::new(u64::MAX),
        });
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(mounts::source()),
            MountOption::Subtype("quorate".to_owned()),
            MountOption::NoAtime,
        ];
        config.n_threads = Some(THREADS);
        let served = Served(Arc::clone(&shared));
        let session = fuser::spawn_mount(served, at, &config).with_context(|| {
            format!("mounting a disk at {} (it needs /dev/fuse, and root)", at.display())
        })?;
        Ok(Self { at: at.to_owned(), shared, session: Some(session), _folder: folder })
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.shared.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails. Nobody may have files open any more. What was not synced is gone, but for
    /// what `torn` leaves of it.
    ///
    /// # Errors
    /// When the files behind the disk cannot be changed.
    pub fn crash(&self, torn: Torn, random: &mut impl Rng) -> Result<()> {
        Ok(self.tree().crash(torn, random)?)
    }

    /// Everything that was written is on the disk, as after a while on a machine that runs.
    pub fn sync_all(&self) {
        self.tree().sync_all();
    }

    /// Flips one bit in a file of a database; says where. `None` when there is no such file.
    ///
    /// # Errors
    /// When the files behind the disk cannot be changed.
    pub fn rot(&self, random: &mut impl Rng) -> Result<Option<String>> {
        Ok(self.tree().rot(random)?)
    }

    /// Number of syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Relaxed)
    }

    /// Begins a trouble.
    pub fn trouble(&self, trouble: Trouble) {
        let shared = &self.shared;
        match trouble {
            Trouble::SyncsFail => shared.syncs_fail.store(true, Relaxed),
            Trouble::WritesFail => shared.writes_fail.store(true, Relaxed),
            Trouble::Full { room } => shared.room.store(room, Relaxed),
            Trouble::SlowSyncs(delay) => {
                let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                shared.sync_delay_ms.store(delay, Relaxed);
            }
        }
    }

    /// Ends every trouble.
    pub fn heal(&self) {
        self.shared.syncs_fail.store(false, Relaxed);
        self.shared.writes_fail.store(false, Relaxed);
        self.shared.room.store(u64::MAX, Relaxed);
        self.shared.sync_delay_ms.store(0, Relaxed);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // First: a process that still has files open cannot keep it mounted.
        if let Err(error) = mounts::unmount(&self.at) {
            eprintln!("unmounting {}: {error}", self.at.display());
        }
        drop(self.session.take());
    }
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
