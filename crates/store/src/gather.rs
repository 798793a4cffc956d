//! [`Gather`]: what waits at the same time travels together.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// When nothing has been sent for so long, those on their way wait for somebody who may have gone:
/// one more is sent, for there may be another now.
pub const STUCK: Duration = Duration::from_millis(100);

/// May what waits travel with those before it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Yes.
    Yes,
    /// Not with these; those behind it may.
    No,
    /// Not with these, nor may any behind it: enough have been found.
    Full,
}

/// A queue whose items leave it in groups, of which only a few are on their way at once. While that
/// many are, what comes gathers for the next one: one is replicated while another is applied, and
/// the busier it is the larger they get.
#[derive(Debug)]
pub struct Gather<T> {
    waiting: VecDeque<T>,
    most: usize,
    on_their_way: usize,
    /// When a group was sent last.
    sent: Instant,
}

impl<T> Gather<T> {
    /// So many groups on their way at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), most, on_their_way: 0, sent: Instant::now() }
    }

    /// Adds an item. Says whether one more group may be on its way; then the caller has to
    /// [`take`](Self::take) it.
    pub fn push(&mut self, item: T) -> bool {
        self.waiting.push_back(item);
        let start = self.on_their_way < self.most;
        self.on_their_way += usize::from(start);
        start
    }

    /// The same because those on their way do not move, after [`STUCK`].
    pub fn start_another(&mut self) -> bool {
        let stuck = !self.waiting.is_empty() && self.sent.elapsed() >= STUCK;
        if stuck {
            self.on_their_way += 1;
            self.sent = Instant::now();
        }
        stuck
    }

    /// The next group: the first item that somebody still waits for, and those that `fit` to what
    /// the group has already. (The first is asked about too, so that all can be counted; whatever
    /// the answer is, it goes.) `None`, and one less on its way, when there is none.
    pub fn take(
        &mut self,
        is_wanted: impl Fn(&T) -> bool,
        mut fit: impl FnMut(&[T], &T) -> Fit,
    ) -> Option<Vec<T>> {
        let mut group = Vec::new();
        let mut others = VecDeque::new();
        while let Some(next) = self.waiting.pop_front() {
            if !is_wanted(&next) {
                continue;
            }
            match fit(&group, &next) {
                _ if group.is_empty() => group.push(next),
                Fit::Yes => group.push(next),
                Fit::No => others.push_back(next),
                Fit::Full => {
                    others.push_back(next);
                    break;
                }
            }
        }
        if !others.is_empty() {
            others.append(&mut self.waiting);
            self.waiting = others;
        }
        if group.is_empty() {
            self.on_their_way -= 1;
            return None;
        }
        self.sent = Instant::now();
        Some(group)
    }

    /// Takes an item out again that has not been sent.
    pub fn withdraw(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.waiting.iter().position(is_it)?;
        self.waiting.remove(at)
    }
}

#[cfg(test)]
#[path = "gather_test.rs"]
mod tests;
