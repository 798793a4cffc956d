//! What readers beside `apply` see: [`Published`] counters, and past events for watchers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;

use super::codec::{Change, Counters, Moment, decode_record};
use super::overlay::try_scan;
use super::range::{ReadPoint, change_before, record_at};
use crate::backend::{Backend, BackendError, Direction, Space, View};
use crate::error::StoreError;
use crate::types::{Event, EventType, KeyRange, KeyValue, Revision};
use crate::watch::History;

/// The counters that belong to the committed state, readable without a lock. A reader that
/// takes its view while a commit is under way reads the counters from the view instead.
#[derive(Default)]
pub(super) struct Published {
    /// Odd while a commit is under way.
    epoch: AtomicU64,
    revision: AtomicU64,
    compact_revision: AtomicU64,
}

impl Published {
    /// Runs `change`, which changes the backend and returns the counters after it. One caller at
    /// a time.
    pub fn replace(
        &self,
        change: impl FnOnce() -> Result<ReadPoint, BackendError>,
    ) -> Result<(), BackendError> {
        self.epoch.fetch_add(1, SeqCst);
        let outcome = change();
        if let Ok(at) = outcome {
            self.revision.store(at.revision, SeqCst);
            self.compact_revision.store(at.compact_revision, SeqCst);
        }
        self.epoch.fetch_add(1, SeqCst);
        outcome.map(|_| ())
    }

    pub fn revision(&self) -> Revision {
        self.revision.load(SeqCst)
    }

    pub fn compact_revision(&self) -> Revision {
        self.compact_revision.load(SeqCst)
    }

    /// A view, and the revisions of exactly that view.
    pub fn view<'b, B: Backend>(
        &self,
        backend: &'b B,
    ) -> Result<(B::View<'b>, ReadPoint), BackendError> {
        let before = self.epoch.load(SeqCst);
        let view = backend.view();
        let at = ReadPoint { revision: self.revision(), compact_revision: self.compact_revision() };
        if before.is_multiple_of(2) && self.epoch.load(SeqCst) == before {
            return Ok((view, at));
        }
        let Counters { revision, compact_revision, .. } = Counters::load(&view)?;
        Ok((view, ReadPoint { revision, compact_revision }))
    }
}

/// A watcher's look into the past ends after this many changes, matching or not, so that it does
/// not hold its thread for long.
const LOOK: usize = 2048;
/// Or after this many bytes of them, so that a batch has a bearable size.
const LOOK_BYTES: usize = 4 * 1024 * 1024;

/// [`History`] in a backend.
pub(super) struct BackendHistory<B> {
    backend: Arc<B>,
    published: Arc<Published>,
}

impl<B: Backend> BackendHistory<B> {
    pub fn new(backend: Arc<B>, published: Arc<Published>) -> Self {
        Self { backend, published }
    }
}

impl<B: Backend> History for BackendHistory<B> {
    fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        to: Revision,
        limit: usize,
        prev_kv: bool,
    ) -> Result<Vec<(Revision, Vec<Event>)>, StoreError> {
        let (view, at) = self.published.view(&*self.backend)?;
        let to = to.min(at.revision);
        // A state that is older than what was asked for replaced the one that was watched.
        if from < at.compact_revision || from > to {
            return Err(StoreError::Compacted(at.compact_revision));
        }
        let mut reached = to;
        let mut found: Vec<(Revision, Vec<Event>)> = Vec::new();
        let (mut looked, mut bytes, mut matched, mut last) = (0, 0, 0, from);
        let visit = |place: &[u8], change: &[u8]| {
            let moment = Moment::decode(place)?;
            let enough = matched >= limit || looked >= LOOK || bytes >= LOOK_BYTES;
            if moment.revision != last && enough {
                reached = moment.revision - 1;
                return Ok(ControlFlow::Break(()));
            }
            last = moment.revision;
            looked += 1;
            bytes += change.len();
            let change = Change::decode(change)?;
            if range.contains(change.key) {
                matched += 1;
                let event = event(&view, change, moment, prev_kv)?;
                match found.last_mut() {
                    Some((revision, events)) if *revision == last => events.push(event),
                    _ => found.push((last, vec![event])),
                }
            }
            Ok::<_, BackendError>(ControlFlow::Continue(()))
        };
        let (start, end) = (Moment::first(from).encode(), Moment::first(to + 1).encode());
        try_scan(&view, Space::History, &start, Some(&end), Direction::Forward, visit)?;
        if found.last().is_none_or(|(revision, _)| *revision < reached) {
            found.push((reached, Vec::new()));
        }
        Ok(found)
    }

    fn compact_revision(&self) -> Revision {
        self.published.compact_revision()
    }
}

fn event(
    view: &impl View,
    change: Change<'_>,
    moment: Moment,
    prev_kv: bool,
) -> Result<Event, BackendError> {
    let prev_kv = if prev_kv { previous(view, change.key, moment)? } else { None };
    Ok(Event { kind: change.kind, kv: change.to_kv(moment.revision)?, prev_kv })
}

fn previous(
    view: &impl View,
    key: &[u8],
    moment: Moment,
) -> Result<Option<KeyValue>, BackendError> {
    match change_before(view, key, moment)? {
        Some((before, EventType::Put)) => {
            let record = record_at(view, before)?;
            decode_record(Bytes::copy_from_slice(key), &record).map(Some)
        }
        _ => Ok(None),
    }
}
