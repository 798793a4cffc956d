//! Hashes over the state, to compare replicas. XXH3 is the same on every machine and version.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::codec::{Counters, Moment, parse_mark, split_index_key};
use super::overlay::try_scan;
use crate::backend::{BackendError, Direction, Space, View};
use crate::types::{EventType, Revision};

/// Of the present keys and the revision.
pub(super) fn present(view: &impl View) -> Result<u64, BackendError> {
    let mut hash = Xxh3::new();
    hash.update(&Counters::load(view)?.revision.to_be_bytes());
    view.scan(Space::Latest, &[], None, Direction::Forward, &mut |key, record| {
        hash.update(&record_hash(key, record).to_be_bytes());
        ControlFlow::Continue(())
    })?;
    Ok(hash.digest())
}

/// The sum of all records' hashes, to be compared with the one that was kept while applying.
pub(super) fn content(view: &impl View) -> Result<u64, BackendError> {
    let mut sum = 0u64;
    view.scan(Space::Latest, &[], None, Direction::Forward, &mut |key, record| {
        sum = sum.wrapping_add(record_hash(key, record));
        ControlFlow::Continue(())
    })?;
    Ok(sum)
}

/// Of one key with its record. A sum of these can be kept up to date record by record.
pub(super) fn record_hash(key: &[u8], record: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(record);
    hash.digest()
}

/// Of all changes up to `revision` that compaction leaves.
pub(super) fn history(
    view: &impl View,
    revision: Revision,
    compact_revision: Revision,
) -> Result<u32, BackendError> {
    let superseded = superseded(view, compact_revision)?;
    let mut hash = Xxh3::new();
    let end = Moment::first(revision + 1).encode();
    try_scan(view, Space::History, &[], Some(&end), Direction::Forward, |place, change| {
        if !superseded.contains(&Moment::decode(place)?) {
            hash.update(place);
            hash.update(&xxh3_64(change).to_be_bytes());
        }
        Ok::<_, BackendError>(ControlFlow::Continue(()))
    })?;
    // Half of the bits are as good as any.
    Ok(hash.digest() as u32)
}

/// What compaction has not removed yet: replicas at one revision may have come differently far.
fn superseded(view: &impl View, compacted: Revision) -> Result<BTreeSet<Moment>, BackendError> {
    let mut superseded = BTreeSet::new();
    let mut last: Option<(Vec<u8>, Moment, EventType)> = None;
    try_scan(view, Space::Index, &[], None, Direction::Forward, |key, mark| {
        let (prefix, moment) = split_index_key(key)?;
        if moment.revision <= compacted {
            let kind = parse_mark(mark)?;
            match &mut last {
                Some((of, before, before_kind)) if of.as_slice() == prefix => {
                    if before.revision < compacted {
                        superseded.insert(*before);
                    }
                    (*before, *before_kind) = (moment, kind);
                }
                _ => {
                    superseded
                        .extend(last.take().and_then(|(_, at, kind)| buried(at, kind, compacted)));
                    last = Some((prefix.to_vec(), moment, kind));
                }
            }
        }
        Ok::<_, BackendError>(ControlFlow::Continue(()))
    })?;
    superseded.extend(last.and_then(|(_, at, kind)| buried(at, kind, compacted)));
    Ok(superseded)
}

/// A key's last change up to the compaction revision, if it is a tombstone from before it.
fn buried(at: Moment, kind: EventType, compacted: Revision) -> Option<Moment> {
    (kind == EventType::Delete && at.revision < compacted).then_some(at)
}
