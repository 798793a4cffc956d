//! When each node was last heard. In memory only: it never goes through Raft.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::watch;

/// Liveness of nodes, fed by their sessions, read by the node monitor.
pub struct Heartbeats {
    last: RwLock<HashMap<String, Instant>>,
    changes: watch::Sender<u64>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self { last: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl Heartbeats {
    /// The node was heard now.
    pub fn record(&self, node: &str) {
        self.record_all([node], Instant::now());
    }

    /// The node was heard at `when`.
    pub fn record_at(&self, node: &str, when: Instant) {
        self.record_all([node], when);
    }

    /// All of these nodes were heard at `when`.
    pub fn record_all<'a>(&self, nodes: impl IntoIterator<Item = &'a str>, when: Instant) {
        let mut last = self.last.write();
        let mut new = false;
        for node in nodes {
            match last.get_mut(node) {
                Some(entry) => *entry = when,
                None => new |= last.insert(node.to_owned(), when).is_none(),
            }
        }
        drop(last);
        if new {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// When the node was last heard here.
    #[must_use]
    pub fn last(&self, node: &str) -> Option<Instant> {
        self.last.read().get(node).copied()
    }

    /// Gives every known node a fresh grace period: what a new leader does first.
    pub fn reset_all(&self, now: Instant) {
        self.last.write().values_mut().for_each(|last| *last = now);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Forgets a node.
    pub fn remove(&self, node: &str) {
        if self.last.write().remove(node).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Changes when a node is heard for the first time, forgotten, or all are reset.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
