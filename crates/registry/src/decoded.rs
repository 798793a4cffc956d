//! [`Form`]: an object as its type, from when somebody asks for it until nobody has for long.
//!
//! Decoded, an object takes about five times the memory of its text. What is read again and again
//! is kept; of the rest, only as much as [`Budget`] allows.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quorate_objects::Decoded;

/// Of all objects in this process: 15,000 pods or so, as many as 500 machines have.
static PROCESS: Budget = Budget::new(32 * 1024 * 1024);
/// Entries of what is kept no longer that are not worth a look through all.
const DEAD: usize = 64 * 1024;

/// How much may be kept decoded, in bytes of text.
pub(crate) struct Budget {
    limit: usize,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Of what is kept, in the order in which it is looked at next; and some that is gone.
    order: VecDeque<Weak<Slot>>,
    objects: usize,
    bytes: usize,
}

impl Budget {
    const fn new(limit: usize) -> Self {
        let order = VecDeque::new();
        Self { limit, kept: Mutex::new(Kept { order, objects: 0, bytes: 0 }) }
    }

    fn has_room(&self, size: usize) -> bool {
        self.kept.lock().bytes + size <= self.limit
    }

    /// Something of this size is about to be kept.
    fn reserve(&self, size: usize) {
        let mut kept = self.kept.lock();
        kept.objects += 1;
        kept.bytes += size;
    }

    /// `slot` keeps a decoded object now, for which there was a reservation. Others may have to
    /// give theirs up for it: those that nobody has read since they were looked at last.
    fn enter(&self, slot: &Arc<Slot>) {
        let mut kept = self.kept.lock();
        kept.order.push_back(Arc::downgrade(slot));
        if kept.order.len() > 2 * kept.objects + DEAD {
            kept.order.retain(|slot| slot.strong_count() > 0);
        }
        let all = kept.order.len();
        drop(kept);
        for looked_at in 0..2 * all {
            let mut kept = self.kept.lock();
            if kept.bytes <= self.limit {
                return;
            }
            let Some(next) = kept.order.pop_front() else { return };
            // What follows takes the lock again.
            drop(kept);
            let Some(slot) = next.upgrade() else { continue };
            // In the second round there is no pardon.
            if !slot.give_up(looked_at >= all) {
                self.kept.lock().order.push_back(next);
            }
        }
    }

    /// Something of this size is kept no longer.
    fn release(&self, size: usize) {
        let mut kept = self.kept.lock();
        kept.objects -= 1;
        kept.bytes -= size;
    }
}

#[derive(Default)]
struct State {
    /// Since somebody has asked for it.
    decoded: Option<Decoded>,
    /// Somebody has asked for it again.
    read: bool,
    /// Something newer is in the object's place.
    is_old: bool,
}

struct Slot {
    state: Mutex<State>,
    /// Bytes of the object's text.
    size: usize,
    budget: &'static Budget,
}

impl Slot {
    /// Forgets the decoded object. Says whether that is so: not when it was read lately and that
    /// counts.
    fn give_up(&self, even_if_read: bool) -> bool {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.read) && !even_if_read && state.decoded.is_some() {
            return false;
        }
        let decoded = state.decoded.take();
        drop(state);
        if decoded.is_some() {
            self.budget.release(self.size);
        }
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_up(true);
    }
}

/// An object as its type, if it is kept.
pub(crate) struct Form(Arc<Slot>);

impl Form {
    /// Of an object with so many bytes of text.
    pub fn new(size: usize) -> Self {
        Self::within(&PROCESS, size)
    }

    fn within(budget: &'static Budget, size: usize) -> Self {
        Self(Arc::new(Slot { state: Mutex::default(), size, budget }))
    }

    /// What is kept.
    pub fn get(&self) -> Option<Decoded> {
        let mut state = self.0.state.lock();
        state.read = true;
        state.decoded.clone()
    }

    /// What others get from now on: what is decoded first. Of an object that is old, nothing is
    /// kept.
    pub fn keep(&self, decoded: Decoded) -> Decoded {
        let (budget, size) = (self.0.budget, self.0.size);
        // Before anybody can take it away again.
        budget.reserve(size);
        let mut state = self.0.state.lock();
        let first = if state.is_old { Some(decoded.clone()) } else { state.decoded.clone() };
        if let Some(first) = first {
            drop(state);
            budget.release(size);
            return first;
        }
        state.decoded = Some(Arc::clone(&decoded));
        state.read = false;
        drop(state);
        budget.enter(&self.0);
        decoded
    }

    /// Something newer is in the object's place. The history keeps its text only: hardly anybody
    /// asks for it any more.
    pub fn grow_old(&self) {
        self.0.state.lock().is_old = true;
        self.0.give_up(true);
    }

    /// Is it worth decoding before anybody asks? Not at the cost of what was asked for.
    pub fn is_wanted(&self) -> bool {
        let state = self.0.state.lock();
        let wanted = !state.is_old && state.decoded.is_none();
        drop(state);
        wanted && self.0.budget.has_room(self.0.size)
    }
}

#[cfg(test)]
#[path = "decoded_test.rs"]
mod tests;
