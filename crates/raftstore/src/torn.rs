//! The end of a write-ahead log that a power cut has torn.
//!
//! RocksDB forgives a last record that the end of the file cuts short, but not one whose end reads
//! as zeros: when the file's length reached the disk before all of its sectors did. Nothing in
//! such a record was ever reported as durable, and refusing it would keep a whole cluster down
//! after all of its machines lost power at once. So it is cut off before the database is opened.
//! etcd does the same with its log (`isTornEntry`). Whatever else is wrong is left to RocksDB,
//! which refuses.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Physical records do not cross the bounds of blocks (RocksDB's `log_format.h`).
const BLOCK: usize = 32 << 10;
/// Masked CRC-32C of type and payload (4 bytes), length (2), type (1); all little-endian. Files
/// that are used again have longer headers, and are off here.
const HEADER: usize = 7;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Cuts a torn record off the newest write-ahead log of a database that is not open.
pub(crate) fn mend(database: &Path) -> io::Result<()> {
    let Some(path) = newest_log(database)? else { return Ok(()) };
    let bytes = fs::read(&path)?;
    let Some(length) = torn_at(&bytes) else { return Ok(()) };
    tracing::warn!(
        file = %path.display(),
        length,
        was = bytes.len(),
        "the last write before a power cut was torn, and is cut off"
    );
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}

fn newest_log(database: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in entries {
        let path = entry?.path();
        let log = path.extension().is_some_and(|extension| extension == "log");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| log)
            && newest.as_ref().is_none_or(|(last, _)| number > *last)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the first bad record begins, when from one of its sectors on the file is all zeros.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    let end_of_data = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let zeros = end_of_data.next_multiple_of(SECTOR);
    if zeros >= bytes.len() {
        return None;
    }
    let mut at = 0;
    loop {
        let room = BLOCK - at % BLOCK;
        if room < HEADER {
            at += room;
            continue;
        }
        let [c0, c1, c2, c3, l0, l1, kind] = *bytes.get(at..)?.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if kind == 0 && length == 0 {
            // Zeros between records: RocksDB passes over them.
            return None;
        }
        let end = at + HEADER + length;
        // The checksum is of the type and what follows it.
        let content = bytes.get(at + HEADER - 1..end).filter(|_| HEADER + length <= room);
        let stored = u32::from_le_bytes([c0, c1, c2, c3]);
        if content.is_none_or(|content| masked(crc32c::crc32c(content)) != stored) {
            return (at < zeros && zeros < end).then_some(at);
        }
        at = end;
    }
}

/// A checksum as RocksDB stores it (`crc32c::Mask`).
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
#[path = "torn_test.rs"]
mod tests;
