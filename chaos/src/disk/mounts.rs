//! Which disks of ours are mounted, also those that a harness left behind that was killed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

/// Every disk of ours is named so, with the process id of its harness.
const SOURCE: &str = "quorate-chaos-disk:";

/// The name of this process's disks in the table of mounts.
pub(super) fn source() -> String {
    format!("{SOURCE}{}", std::process::id())
}

/// Unmounts, whoever still has files open there.
pub(super) fn unmount(at: &Path) -> nix::Result<()> {
    umount2(at, MntFlags::MNT_DETACH)
}

/// Unmounts the disks of processes that are gone; returns where they were.
///
/// # Errors
/// When the table of mounts cannot be read, or one cannot be unmounted.
pub fn unmount_stale() -> Result<Vec<PathBuf>> {
    let table =
        std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let alive = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    let stale = stale(&table, alive);
    for at in &stale {
        unmount(at).with_context(|| format!("unmounting {}", at.display()))?;
    }
    Ok(stale)
}

fn stale(table: &str, alive: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let mounted = table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let pid = fields.next()?.strip_prefix(SOURCE)?.parse().ok()?;
        // The table writes a space as \040; folders of ours have none.
        (!alive(pid)).then(|| PathBuf::from(fields.next().unwrap_or_default()))
    });
    mounted.collect()
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod tests;
