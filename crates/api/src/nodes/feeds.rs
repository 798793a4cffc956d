//! Who is told of a change: one watch for the whole master notes, for each node that takes
//! assignments from it, the keys of what changed. A session that wakes looks at the cache for
//! what is there now, so that a slow one costs keys and nothing else, and many changes of one
//! object are one message.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_objects::{Selector, kinds};
use quorate_registry::{Object, ObjectKey, Registry, RegistryError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::assignments::{doomed_on, is};

const RETRY: Duration = Duration::from_millis(200);

/// What a session has yet to look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Dirty {
    /// Nothing.
    #[default]
    Nothing,
    /// These objects.
    Keys(BTreeSet<ObjectKey>),
    /// Everything: changes were missed.
    All,
}

/// One session's part.
#[derive(Default)]
pub(crate) struct Feed {
    dirty: Mutex<Dirty>,
    changed: Notify,
    without_services: bool,
}

impl Feed {
    /// Waits for changes and takes them. Cancel-safe.
    pub async fn changes(&self) -> Dirty {
        loop {
            let dirty = std::mem::take(&mut *self.dirty.lock());
            if dirty != Dirty::Nothing {
                return dirty;
            }
            self.changed.notified().await;
        }
    }

    fn mark(&self, key: &ObjectKey) {
        match &mut *self.dirty.lock() {
            Dirty::All => return,
            Dirty::Keys(keys) => drop(keys.insert(key.clone())),
            nothing => *nothing = Dirty::Keys(BTreeSet::from([key.clone()])),
        }
        self.changed.notify_one();
    }

    fn mark_all(&self) {
        *self.dirty.lock() = Dirty::All;
        self.changed.notify_one();
    }
}

#[derive(Default)]
struct State {
    nodes: HashMap<String, Arc<Feed>>,
    /// Which nodes' pods refer to an object.
    references: HashMap<ObjectKey, BTreeSet<String>>,
}

/// The feeds of all nodes that take assignments from this master.
#[derive(Default)]
pub(crate) struct Feeds {
    state: Mutex<State>,
}

/// A node's place among the feeds, until it is dropped.
pub(crate) struct Subscription {
    feeds: Arc<Feeds>,
    node: String,
    feed: Arc<Feed>,
    references: BTreeSet<ObjectKey>,
}

impl Feeds {
    /// Feeds with their watch.
    pub fn start(registry: Registry, cancel: CancellationToken) -> Arc<Self> {
        let feeds = Arc::new(Self::default());
        let watching = Arc::clone(&feeds);
        let work = async move { watching.watch(&registry).await };
        // Task "assignment feeds": ends with the master; a watch that fails begins again.
        tokio::spawn(cancel.run_until_cancelled_owned(work));
        feeds
    }

    /// From now on the node's changes are noted.
    pub fn subscribe(self: &Arc<Self>, node: &str, without_services: bool) -> Subscription {
        let feed = Arc::new(Feed { without_services, ..Feed::default() });
        self.state.lock().nodes.insert(node.to_owned(), Arc::clone(&feed));
        Subscription {
            feeds: Arc::clone(self),
            node: node.to_owned(),
            feed,
            references: BTreeSet::new(),
        }
    }

    async fn watch(&self, registry: &Registry) {
        loop {
            let revision = registry.cache().revision();
            // What came before the watch: whoever has subscribed already looks again.
            self.state.lock().nodes.values().for_each(|feed| feed.mark_all());
            if let Err(error) = self.follow(registry, revision).await {
                tracing::warn!(%error, "changes were missed, all nodes get everything again");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow(&self, registry: &Registry, revision: u64) -> Result<(), RegistryError> {
        let mut watcher = registry.watch(None, None, Selector::everything(), revision)?;
        loop {
            let event = watcher.next().await?;
            if let Some(object) = &event.object {
                self.dispatch(object);
            }
        }
    }

    fn dispatch(&self, object: &Object) {
        let key = object.key();
        let state = self.state.lock();
        if is(key.kind, &kinds::POD) {
            let node = object.field("spec.nodeName").unwrap_or_default();
            if let Some(feed) = state.nodes.get(node) {
                feed.mark(&key);
            }
        } else if is(key.kind, &kinds::NODE) {
            if let Some(feed) = state.nodes.get(object.name()) {
                feed.mark(&key);
            }
        } else if is(key.kind, &kinds::SERVICE) || is(key.kind, &kinds::ENDPOINT_SLICE) {
            state.nodes.values().filter(|f| !f.without_services).for_each(|feed| feed.mark(&key));
        } else {
            let doomed = doomed_on(object).and_then(|node| state.nodes.get(&node));
            doomed.into_iter().for_each(|feed| feed.mark(&key));
            let nodes = state.references.get(&key).into_iter().flatten();
            nodes.filter_map(|node| state.nodes.get(node)).for_each(|feed| feed.mark(&key));
        }
    }
}

impl Subscription {
    /// The node's changes.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What the node's pods refer to now. Whoever reads the cache after this misses nothing.
    pub fn refer(&mut self, wanted: BTreeSet<ObjectKey>) {
        if wanted == self.references {
            return;
        }
        let mut state = self.feeds.state.lock();
        forget(&mut state, &self.node, self.references.difference(&wanted));
        for key in wanted.difference(&self.references) {
            state.references.entry(key.clone()).or_default().insert(self.node.clone());
        }
        drop(state);
        self.references = wanted;
    }
}

fn forget<'a>(state: &mut State, node: &str, keys: impl Iterator<Item = &'a ObjectKey>) {
    for key in keys {
        if let Some(nodes) = state.references.get_mut(key) {
            nodes.remove(node);
            if nodes.is_empty() {
                state.references.remove(key);
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.feeds.state.lock();
        // A newer session of the node may have taken the place.
        if state.nodes.get(&self.node).is_some_and(|feed| Arc::ptr_eq(feed, &self.feed)) {
            state.nodes.remove(&self.node);
            forget(&mut state, &self.node, self.references.iter());
        }
    }
}

#[cfg(test)]
#[path = "feeds_test.rs"]
mod tests;
