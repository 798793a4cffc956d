//! [`WatchHub`] and [`Watcher`]: changes, delivered in order, whole revisions at a time.
//!
//! The hub keeps a bounded ring of recent revisions. A watcher owns nothing but a cursor: it
//! reads from the ring, and from [`History`] when the ring has moved past it. A watcher that
//! does not read therefore costs nothing and delays nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::backend::BackendError;
use crate::contract::WatchRequest;
use crate::error::StoreError;
use crate::types::{Event, EventType, KeyRange, Revision};

/// A watcher's batch ends with the revision that brings it to this many events.
const BATCH_EVENTS: usize = 512;
/// A watcher looks at this many revisions of the ring at a time.
const BATCH_REVISIONS: usize = 512;
/// The ring holds at most about this many bytes of keys and values.
const RING_BYTES: usize = 16 * 1024 * 1024;

/// The past, for watchers that the ring has left behind.
pub trait History: Send + Sync {
    /// Events of `range` in the revisions `from..=to`, oldest first, revisions whole. Stops
    /// after the revision that brings the number of events to `limit`, or earlier when it has
    /// looked at enough. The last element tells how far it came: its revision is covered, and
    /// it may be without events. Never empty when `from <= to`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `from` lies before the compaction revision.
    fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        to: Revision,
        limit: usize,
        prev_kv: bool,
    ) -> Result<Vec<(Revision, Vec<Event>)>, StoreError>;

    /// The revision up to which history is compacted.
    fn compact_revision(&self) -> Revision;
}

/// What a [`Watcher`] hands out: all matching events of one or more whole revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchBatch {
    /// Everything up to this revision has been seen; a batch without events reports progress.
    pub revision: Revision,
    /// The revision up to which history is compacted.
    pub compact_revision: Revision,
    /// The events, in order; `kv.mod_revision` tells which revision each belongs to.
    pub events: Vec<Event>,
}

/// Distributes the events of applied transactions to watchers.
pub struct WatchHub {
    history: Arc<dyn History>,
    capacity: usize,
    ring: RwLock<Ring>,
    applied: watch::Sender<Revision>,
    watchers: AtomicUsize,
}

/// All events of one revision.
struct Change {
    revision: Revision,
    events: Vec<Event>,
    bytes: usize,
}

/// The newest revisions without gaps: the last one is the applied revision.
#[derive(Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    events: usize,
    bytes: usize,
    /// Counts the times that the state went back (a snapshot older than what was published).
    generation: u64,
    closed: bool,
}

impl WatchHub {
    /// A hub at revision 0 with room for `capacity_events` events (see [`WatchHub::reset`]).
    pub fn new(history: Arc<dyn History>, capacity_events: usize) -> Self {
        Self {
            history,
            capacity: capacity_events,
            ring: RwLock::default(),
            applied: watch::Sender::new(0),
            watchers: AtomicUsize::new(0),
        }
    }

    /// Publishes all events of one revision. The state must be readable already.
    pub fn publish(&self, revision: Revision, events: Vec<Event>) {
        self.publish_group(vec![(revision, events)]);
    }

    /// Publishes several revisions, in order, waking watchers once.
    pub fn publish_group(&self, group: Vec<(Revision, Vec<Event>)>) {
        let Some(&(newest, _)) = group.last() else { return };
        {
            let mut ring = self.ring.write();
            for (revision, events) in group {
                ring.push(revision, events);
            }
            ring.trim(self.capacity);
        }
        self.applied.send_replace(newest);
    }

    /// Starts to watch.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history from the start revision is gone.
    pub fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<Watcher, StoreError> {
        let generation = self.ring.read().generation;
        let applied = self.applied.subscribe();
        let now = *applied.borrow();
        let next = if request.start_revision == 0 { now + 1 } else { request.start_revision };
        let compacted = self.history.compact_revision();
        if next < compacted {
            return Err(StoreError::Compacted(compacted));
        }
        let progress = now.min(next - 1);
        self.watchers.fetch_add(1, Relaxed);
        Ok(Watcher { hub: self.clone(), request, generation, next, progress, applied })
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// The newest applied revision; sent after the state is readable.
    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// The state was replaced (snapshot) and is now at `revision`: watchers resync from history
    /// or learn that their revision is gone.
    pub fn reset(&self, revision: Revision) {
        {
            let mut ring = self.ring.write();
            ring.clear();
            if revision < *self.applied.borrow() {
                ring.generation += 1;
            }
        }
        self.applied.send_replace(revision);
    }

    /// Ends all watchers.
    pub fn close(&self) {
        self.ring.write().closed = true;
        self.applied.send_modify(|_| ());
    }
}

impl Ring {
    fn push(&mut self, revision: Revision, events: Vec<Event>) {
        // A gap would be served as if nothing had happened in it.
        if self.changes.back().is_some_and(|last| last.revision + 1 != revision) {
            self.clear();
        }
        let bytes = events.iter().map(event_bytes).sum();
        self.events += events.len();
        self.bytes += bytes;
        self.changes.push_back(Arc::new(Change { revision, events, bytes }));
    }

    fn trim(&mut self, capacity: usize) {
        while self.events > capacity || self.bytes > RING_BYTES {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.events -= oldest.events.len();
            self.bytes -= oldest.bytes;
        }
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.events = 0;
        self.bytes = 0;
    }

    /// Up to [`BATCH_REVISIONS`] changes from `from` on; `None` when the ring starts later.
    fn from(&self, from: Revision) -> Option<Vec<Arc<Change>>> {
        let first = self.changes.front()?.revision;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        Some(self.changes.iter().skip(skip).take(BATCH_REVISIONS).cloned().collect())
    }
}

impl WatchRequest {
    fn wants(&self, event: &Event) -> bool {
        let left_out = match event.kind {
            EventType::Put => self.no_put,
            EventType::Delete => self.no_delete,
        };
        !left_out && self.range.contains(&event.kv.key)
    }
}

fn event_bytes(event: &Event) -> usize {
    let previous = event.prev_kv.as_ref().map_or(0, |kv| kv.value.len());
    event.kv.key.len() + event.kv.value.len() + previous + size_of::<Event>()
}

/// A reader's place in the stream of changes.
pub struct Watcher {
    hub: Arc<WatchHub>,
    request: WatchRequest,
    generation: u64,
    /// First revision not seen yet.
    next: Revision,
    progress: Revision,
    applied: watch::Receiver<Revision>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.watchers.fetch_sub(1, Relaxed);
    }
}

impl Watcher {
    /// Waits for the next batch: matching events, or the news that there are none up to a newer
    /// revision. Safe to cancel.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when this watcher was so slow that history is gone (list and
    /// watch again); [`StoreError::Unavailable`] when the store closes.
    pub async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        // A watcher that always finds something must not starve its thread.
        tokio::task::consume_budget().await;
        loop {
            if let Some(batch) = self.try_next()? {
                return Ok(batch);
            }
            self.applied.changed().await.map_err(|_| closed())?;
        }
    }

    /// What [`Watcher::next`] would return at once, if anything.
    ///
    /// # Errors
    /// As [`Watcher::next`].
    pub fn try_next(&mut self) -> Result<Option<WatchBatch>, StoreError> {
        let (recent, now) = {
            let ring = self.hub.ring.read();
            if ring.closed {
                return Err(closed());
            }
            if ring.generation != self.generation {
                return Err(StoreError::Compacted(self.hub.history.compact_revision()));
            }
            let now = *self.applied.borrow_and_update();
            if self.next > now {
                self.progress = self.progress.max(now);
                return Ok(None);
            }
            (ring.from(self.next), now)
        };
        let (revision, events) = match recent {
            Some(changes) if !changes.is_empty() => self.select(&changes),
            _ => self.recall(now)?,
        };
        self.next = revision + 1;
        self.progress = revision;
        let compact_revision = self.hub.history.compact_revision();
        Ok(Some(WatchBatch { revision, compact_revision, events }))
    }

    /// Everything up to this revision has been handed out, so it may be reported as progress. A
    /// request for progress is answered with it once [`Watcher::try_next`] has nothing more.
    #[must_use]
    pub fn progress(&self) -> Revision {
        self.progress
    }

    /// The matching events of the ring's changes, and the last revision looked at.
    fn select(&self, changes: &[Arc<Change>]) -> (Revision, Vec<Event>) {
        let mut reached = self.next;
        let mut events = Vec::new();
        for change in changes {
            reached = change.revision;
            for event in change.events.iter().filter(|event| self.request.wants(event)) {
                let prev_kv = event.prev_kv.as_ref().filter(|_| self.request.prev_kv).cloned();
                events.push(Event { kind: event.kind, kv: event.kv.clone(), prev_kv });
            }
            if events.len() >= BATCH_EVENTS {
                break;
            }
        }
        (reached, events)
    }

    /// The same from history.
    fn recall(&self, now: Revision) -> Result<(Revision, Vec<Event>), StoreError> {
        let WatchRequest { range, prev_kv, .. } = &self.request;
        let chunks = self.hub.history.events(range, self.next, now, BATCH_EVENTS, *prev_kv)?;
        let Some(&(reached, _)) = chunks.last() else {
            return Err(
                BackendError::new("history answered nothing for an applied revision").into()
            );
        };
        let events = chunks.into_iter().flat_map(|(_, events)| events);
        Ok((reached, events.filter(|event| self.request.wants(event)).collect()))
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { reason: "this master is shutting down".into(), leader: None }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
