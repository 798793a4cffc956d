//! [`WorkQueue`]: the keys that a controller has to look at.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_objects::Kind;
use tokio::sync::Notify;
use tokio::time::Instant;

/// First and longest back-off of a key that fails.
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(10);

/// What a reconciliation is about: an object, which may exist or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind.singular, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind.singular, self.namespace, self.name)
        }
    }
}

/// A queue without duplicates, in which a key is worked on by one worker at a time, with
/// back-off per key. Its size is bounded by the number of objects.
#[derive(Debug, Default)]
pub struct WorkQueue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Key>,
    /// In `ready`.
    queued: HashSet<Key>,
    /// Being worked on.
    busy: HashSet<Key>,
    /// Being worked on, and to be looked at again afterwards.
    again: HashSet<Key>,
    later: BTreeMap<(Instant, u64), Key>,
    due: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, u32>,
    sequence: u64,
}

impl State {
    fn add(&mut self, key: Key) {
        if let Some(at) = self.due.remove(&key) {
            self.later.remove(&at);
        }
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: Key, at: Instant) {
        if self.queued.contains(&key) || self.due.get(&key).is_some_and(|(due, _)| *due <= at) {
            return;
        }
        if let Some(old) = self.due.remove(&key) {
            self.later.remove(&old);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.later.insert((at, self.sequence), key);
    }

    fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some((at, _)) = self.later.first_key_value() {
            if at.0 > now {
                break;
            }
            if let Some((_, key)) = self.later.pop_first() {
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }
}

impl WorkQueue {
    /// Adds a key, unless it is there.
    pub fn add(&self, key: Key) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Takes the next key; waits for one. Safe to cancel.
    pub async fn next(&self) -> Key {
        loop {
            let changed = self.changed.notified();
            let (key, more, due) = {
                let mut state = self.state.lock();
                let key = state.take(Instant::now());
                let due = state.later.first_key_value().map(|((at, _), _)| *at);
                (key, !state.ready.is_empty(), due)
            };
            if let Some(key) = key {
                if more {
                    // One permit may stand for several keys: pass it on to the next worker.
                    self.changed.notify_one();
                }
                return key;
            }
            match due {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The work on a key is done; look at it again after `again`, when given.
    pub fn done(&self, key: &Key, again: Option<Duration>) {
        self.done_at(key, again, Instant::now());
    }

    fn done_at(&self, key: &Key, again: Option<Duration>, now: Instant) {
        let mut state = self.state.lock();
        state.failures.remove(key);
        Self::release(&mut state, key, again, now);
        drop(state);
        self.changed.notify_one();
    }

    /// The work on a key failed: look at it again after its back-off.
    pub fn failed(&self, key: &Key) {
        self.failed_at(key, Instant::now());
    }

    fn failed_at(&self, key: &Key, now: Instant) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        let factor = 2_u32.saturating_pow(*failures - 1);
        let wait = BACK_OFF_FIRST.saturating_mul(factor).min(BACK_OFF_LONGEST);
        // A change during the attempt does not break the back-off of a key that keeps failing.
        state.again.remove(key);
        Self::release(&mut state, key, Some(wait), now);
        drop(state);
        self.changed.notify_one();
    }

    fn release(state: &mut State, key: &Key, again: Option<Duration>, now: Instant) {
        state.busy.remove(key);
        if state.again.remove(key) {
            state.add(key.clone());
        } else if let Some(wait) = again {
            state.add_at(key.clone(), now + wait);
        }
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
