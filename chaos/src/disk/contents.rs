//! The bytes of one file, and what of them a crash would leave.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rand::Rng;

use crate::plan::Torn;

/// What a disk writes as a whole, in bytes.
const SECTOR: u64 = 512;

/// Bytes that were somewhere before.
type Old = (u64, Vec<u8>);

/// One file. What was written since the last sync is kept apart from what is on the disk: as the
/// size that the disk knows, and the bytes that were overwritten.
#[derive(Debug)]
pub(super) struct Contents {
    file: File,
    size: u64,
    on_disk: u64,
    /// What a crash brings back, the newest last.
    overwritten: Vec<Old>,
    /// What a failed sync has lost for good: the kernel calls such pages clean, shows them as
    /// long as it runs, and never writes them.
    lost: Vec<Old>,
}

impl Contents {
    /// An empty file, whose bytes lie at `path`.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).create(true).clone();
        let file = options.clone().truncate(true).open(path)?;
        Ok(Self { file, size: 0, on_disk: 0, overwritten: Vec::new(), lost: Vec::new() })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read(&self, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let left = self.size.saturating_sub(offset).min(u64::from(size));
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.keep_old(offset, end)?;
        self.file.write_all_at(bytes, offset)?;
        self.size = self.size.max(end);
        Ok(())
    }

    pub(super) fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.keep_old(size, self.size)?;
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Keeps what the disk has between `from` and `to`, before it changes.
    fn keep_old(&mut self, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.on_disk).min(self.size);
        if from < to {
            let old = self.read(from, u32::try_from(to - from).unwrap_or(u32::MAX))?;
            self.overwritten.push((from, old));
        }
        Ok(())
    }

    /// Everything so far is on the disk, but for what is lost.
    pub(super) fn sync(&mut self) {
        self.overwritten.clear();
        self.on_disk = self.size;
    }

    /// The sync fails, and with it goes everything that it should have written.
    pub(super) fn fail_sync(&mut self) {
        self.lost.append(&mut self.overwritten);
        if let Ok(size) = usize::try_from(self.size.saturating_sub(self.on_disk))
            && size > 0
        {
            self.lost.push((self.on_disk, vec![0; size]));
        }
        self.on_disk = self.size;
    }

    /// The power fails: what was not synced is gone, but for what `torn` leaves of it.
    pub(super) fn crash(&mut self, torn: Torn, random: &mut impl Rng) -> io::Result<()> {
        let mut back = true;
        let (mut keep, mut size) = (self.on_disk, self.on_disk);
        if torn != Torn::No {
            back = random.random();
            if !back {
                (keep, size) = (self.size, self.size);
            } else if self.size > self.on_disk {
                keep = random.random_range(self.on_disk..=self.size);
                if torn == Torn::Zeros && keep > self.on_disk {
                    // A sector reaches the disk as a whole.
                    keep = keep.next_multiple_of(SECTOR).min(self.size);
                }
                size = if torn == Torn::Zeros { self.size } else { keep };
            }
        }
        self.file.set_len(keep)?;
        self.file.set_len(size)?;
        let overwritten = std::mem::take(&mut self.overwritten);
        let lost = std::mem::take(&mut self.lost);
        for (offset, old) in overwritten.iter().rev().filter(|_| back).chain(lost.iter().rev()) {
            self.file.write_all_at(old, *offset)?;
        }
        self.size = self.file.metadata()?.len();
        self.on_disk = self.size;
        Ok(())
    }

    /// Flips one bit on the disk.
    pub(super) fn rot(&mut self, random: &mut impl Rng) -> io::Result<u64> {
        let offset = random.random_range(0..self.size.max(1));
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset)?;
        byte[0] ^= 1 << random.random_range(0..8_u32);
        self.file.write_all_at(&byte, offset)?;
        Ok(offset)
    }
}

#[cfg(test)]
#[path = "contents_test.rs"]
mod tests;
