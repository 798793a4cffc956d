//! Keys of the log's database: `e` + index (big endian) for entries, `m...` for the rest.

pub(super) const VOTE: &[u8] = b"mvote";
pub(super) const COMMITTED: &[u8] = b"mcommitted";
pub(super) const PURGED: &[u8] = b"mpurged";

/// Greater than the key of every entry, smaller than every other key.
pub(super) const AFTER_ENTRIES: [u8; 1] = [b'f'];

pub(super) fn entry(index: u64) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(super) fn index(key: &[u8]) -> Option<u64> {
    let (prefix, index) = key.split_first()?;
    if *prefix != b'e' {
        return None;
    }
    Some(u64::from_be_bytes(index.try_into().ok()?))
}
