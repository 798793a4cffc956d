//! Port ranges for clusters that run side by side.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// First port base that is tried; below the range of ephemeral ports.
const FIRST: u16 = 21_000;
/// Distance of two bases: a cluster uses base for its endpoint, base + 1… for clients and
/// base + 101… for peers, and a proxy in front of it base + 51… and base + 151…
const STEP: u16 = 200;
/// Number of bases that are tried.
const BASES: u16 = 40;

/// A port base that no other process of ours uses, for as long as this value lives.
#[derive(Debug)]
pub struct PortBase {
    base: u16,
    _lock: Flock<File>,
}

impl PortBase {
    /// Takes a free base for `masters` masters.
    ///
    /// # Errors
    /// When all are taken.
    pub fn reserve(masters: u16) -> Result<Self> {
        for base in (0..BASES).map(|n| FIRST + n * STEP) {
            let Some(lock) = lock(base)? else { continue };
            if ports(base, masters).all(|port| is_free((Ipv4Addr::LOCALHOST, port))) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no free range of ports from {FIRST} on: are many clusters running?")
    }

    /// The number for `quorate up --port-base`.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.base
    }
}

/// Does somebody live who has reserved this base?
pub(crate) fn is_reserved(base: u16) -> Result<bool> {
    Ok(lock(base)?.is_none())
}

/// The lock of a base; `None` when somebody else holds it.
fn lock(base: u16) -> Result<Option<Flock<File>>> {
    let path = lock_folder()?.join(format!("{base}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn ports(base: u16, masters: u16) -> impl Iterator<Item = u16> {
    let each = move |n| [base + n, base + 50 + n, base + 100 + n, base + 150 + n];
    std::iter::once(base).chain((1..=masters).flat_map(each))
}

/// Does nobody listen there?
pub(crate) fn is_free(address: impl ToSocketAddrs) -> bool {
    TcpListener::bind(address).is_ok()
}

fn lock_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("quorate-ports-{}", nix::unistd::getuid()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
#[path = "ports_test.rs"]
mod tests;
