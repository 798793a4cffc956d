//! Compaction: at once for readers, in small steps for the storage.
//!
//! A walk over the history up to the compaction revision removes, for each change, the change
//! of the same key before it, and tombstones. Changes *of* the compaction revision stay until the
//! next compaction, because that revision can still be watched from: a deletion at it must not be
//! lost (etcd #18089, #19179).

use std::ops::ControlFlow;

use bytes::Bytes;

use super::codec::{Change, Counters, Moment, index_key};
use super::overlay::{Overlay, try_scan};
use super::range::change_before;
use crate::backend::{BackendError, Direction, Space, View};
use crate::command::Rejection;
use crate::types::{EventType, Revision};

/// Changes that one log entry's step looks at. More than an ordinary entry adds, so that the
/// walk arrives; few enough that no entry is slow.
const STEP: usize = 128;

/// Moves the compaction revision.
pub(super) fn begin(counters: &mut Counters, revision: Revision) -> Result<(), Rejection> {
    if revision <= counters.compact_revision {
        return Err(Rejection::Compacted(counters.compact_revision));
    }
    if revision > counters.revision {
        return Err(Rejection::FutureRevision(counters.revision));
    }
    // The changes of the previous compaction revision were left in place: walk over them again.
    let walked = Moment { revision: counters.compacted_to, sub: counters.compacted_to_sub };
    move_to(counters, walked.min(Moment::first(counters.compact_revision)));
    counters.compact_revision = revision;
    counters.compacting = true;
    Ok(())
}

/// Does a little of what is left to do.
pub(super) fn step<V: View>(
    state: &mut Overlay<'_, V>,
    counters: &mut Counters,
) -> Result<(), BackendError> {
    if !counters.compacting {
        return Ok(());
    }
    let target = counters.compact_revision;
    let start = Moment { revision: counters.compacted_to, sub: counters.compacted_to_sub };
    let changes = changes(state, start, target)?;
    for (moment, kind, key) in &changes {
        if let Some((superseded, _)) = change_before(state, key, *moment)?
            && superseded.revision < target
        {
            remove(state, key, superseded);
        }
        if *kind == EventType::Delete && moment.revision < target {
            remove(state, key, *moment);
        }
    }
    match changes.last() {
        Some((last, ..)) if changes.len() == STEP => {
            move_to(counters, Moment { sub: last.sub + 1, ..*last });
        }
        _ => {
            counters.compacting = false;
            move_to(counters, Moment::first(target));
        }
    }
    Ok(())
}

fn move_to(counters: &mut Counters, moment: Moment) {
    counters.compacted_to = moment.revision;
    counters.compacted_to_sub = moment.sub;
}

fn changes<V: View>(
    state: &Overlay<'_, V>,
    start: Moment,
    target: Revision,
) -> Result<Vec<(Moment, EventType, Bytes)>, BackendError> {
    let mut changes = Vec::new();
    let end = Moment::first(target + 1).encode();
    let visit = |place: &[u8], change: &[u8]| {
        let change = Change::decode(change)?;
        let moment = Moment::decode(place)?;
        changes.push((moment, change.kind, Bytes::copy_from_slice(change.key)));
        let full = changes.len() == STEP;
        let flow = if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        Ok::<_, BackendError>(flow)
    };
    let start = start.encode();
    try_scan(state, Space::History, &start, Some(&end), Direction::Forward, visit)?;
    Ok(changes)
}

fn remove<V: View>(state: &mut Overlay<'_, V>, key: &[u8], moment: Moment) {
    state.delete(Space::History, Bytes::copy_from_slice(&moment.encode()));
    state.delete(Space::Index, index_key(key, moment));
}
