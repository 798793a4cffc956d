//! Watching objects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quorate_objects::{FieldSelector, Kind, Selector};
use tokio::sync::watch;

use crate::cache::{Cache, Change, Cursor};
use crate::error::RegistryError;
use crate::object::Object;

/// Changes taken from the ring at once.
const CHUNK: usize = 256;

/// What happened, as the watcher's selectors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Created, or matches the selectors now.
    Added,
    /// Changed.
    Modified,
    /// Deleted, or no longer matches. The object is as it was.
    Deleted,
    /// Nothing that matches changed up to the revision.
    Bookmark,
}

/// One step of a watch.
#[derive(Clone, Debug)]
pub struct ObjectEvent {
    /// What happened.
    pub kind: EventKind,
    /// The object; `None` for bookmarks only.
    pub object: Option<Arc<Object>>,
    /// The revision of the change; watch from here to go on.
    pub revision: u64,
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// One kind, or all.
    pub kind: Option<&'static Kind>,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Only objects with these labels.
    pub labels: Selector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
    /// What comes strictly after this revision; 0: one Added for each object that is there,
    /// then a Bookmark, then what comes.
    pub from_revision: u64,
}

/// A watch. It pulls from the cache's ring: one that is not read costs nothing, and when it has
/// fallen out of the ring it gets [`RegistryError::Gone`] and must list again.
pub struct ObjectWatcher {
    cache: Arc<Cache>,
    changed: watch::Receiver<u64>,
    options: WatchOptions,
    cursor: Cursor,
    pending: VecDeque<ObjectEvent>,
    bookmark_interval: Duration,
}

impl ObjectWatcher {
    pub(crate) fn start(
        cache: Arc<Cache>,
        options: WatchOptions,
        bookmark_interval: Duration,
    ) -> Result<Self, RegistryError> {
        let changed = cache.subscribe();
        let cursor = Cursor::After(options.from_revision);
        let mut watcher =
            Self { cache, changed, options, cursor, pending: VecDeque::new(), bookmark_interval };
        if watcher.options.from_revision == 0 {
            watcher.begin_with_list();
        } else {
            // A revision that is gone is refused now, not later.
            watcher.cache.changes(watcher.options.kind, cursor, 1)?;
        }
        Ok(watcher)
    }

    fn begin_with_list(&mut self) {
        let options = &self.options;
        let (list, revision, seq) =
            self.cache.list_and_cursor(options.kind, options.namespace.as_deref());
        self.cursor = Cursor::Seq(seq, revision);
        for object in list {
            if !self.matches(&object) {
                continue;
            }
            let revision = object.revision;
            self.pending.push_back(ObjectEvent {
                kind: EventKind::Added,
                object: Some(object),
                revision,
            });
        }
        self.pending.push_back(bookmark(revision));
    }

    /// The next event. Safe to cancel.
    ///
    /// # Errors
    /// [`RegistryError::Gone`] when this watcher was too slow; [`RegistryError::Unavailable`]
    /// when the master shuts down.
    pub async fn next(&mut self) -> Result<ObjectEvent, RegistryError> {
        // One deadline for the whole call, so that unrelated changes do not keep bookmarks away.
        let deadline = tokio::time::Instant::now() + self.bookmark_interval;
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            self.changed.borrow_and_update();
            self.fill()?;
            if !self.pending.is_empty() {
                continue;
            }
            if let Cursor::Seq(seq, _) = self.cursor
                && self.cache.list_is_behind(seq)
            {
                continue;
            }
            match tokio::time::timeout_at(deadline, self.changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(RegistryError::Unavailable {
                        reason: "the master is shutting down".into(),
                        leader: None,
                    });
                }
                Err(_) => return Ok(bookmark(self.progress())),
            }
        }
    }

    /// Everything up to this revision has been handed out (or does not match).
    #[must_use]
    pub fn progress(&self) -> u64 {
        match self.cursor {
            Cursor::After(revision) | Cursor::Seq(_, revision) => revision,
        }
    }

    fn fill(&mut self) -> Result<(), RegistryError> {
        if let Cursor::After(revision) = self.cursor
            && self.cache.revision() < revision
        {
            // This master has not applied that revision yet.
            return Ok(());
        }
        let (changes, seq, revision) = self.cache.changes(self.options.kind, self.cursor, CHUNK)?;
        let events: Vec<_> = changes.iter().filter_map(|change| self.event(change)).collect();
        self.pending.extend(events);
        let revision = revision.max(self.progress());
        self.cursor = Cursor::Seq(seq, revision);
        Ok(())
    }

    fn matches(&self, object: &Object) -> bool {
        let options = &self.options;
        let namespace = options.namespace.as_deref().filter(|ns| !ns.is_empty());
        let here = namespace.is_none_or(|ns| !object.kind.namespaced || ns == object.namespace());
        here && options.labels.matches(object.labels()) && object.matches_fields(&options.fields)
    }

    /// A change as the selectors see it.
    fn event(&self, change: &Change) -> Option<ObjectEvent> {
        let old = change.old.as_ref().filter(|object| self.matches(object));
        let new = change.new.as_ref().filter(|object| self.matches(object));
        // They are one object: neither a transaction nor a relist replaces one by another of its
        // name in one change.
        let (kind, object) = match (old, new) {
            (None, None) => return None,
            (None, Some(new)) => (EventKind::Added, Arc::clone(new)),
            (Some(_), Some(new)) => (EventKind::Modified, Arc::clone(new)),
            (Some(old), None) => (EventKind::Deleted, Arc::new(old.at_revision(change.revision))),
        };
        Some(ObjectEvent { kind, object: Some(object), revision: change.revision })
    }
}

fn bookmark(revision: u64) -> ObjectEvent {
    ObjectEvent { kind: EventKind::Bookmark, object: None, revision }
}
