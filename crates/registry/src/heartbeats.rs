//! When each node was last heard. In memory only: it never goes through Raft.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_store::{MemberId, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Liveness of nodes, fed by their sessions with this master, and by what other masters say when
/// they are asked; read by the node monitor.
pub struct Heartbeats {
    nodes: RwLock<HashMap<String, Heard>>,
    changes: watch::Sender<u64>,
}

/// When a node was last heard.
#[derive(Clone, Copy)]
struct Heard {
    /// By this master, if it ever was.
    here: Option<Instant>,
    /// By any master; never before `here`.
    anywhere: Instant,
}

/// What a master asks the others: which of these nodes do they hear?
#[derive(Serialize, Deserialize)]
struct Question {
    nodes: Vec<String>,
}

/// The answer: milliseconds since each was heard there. Those that never were are left out.
#[derive(Serialize, Deserialize)]
struct Answer {
    ages_ms: HashMap<String, u64>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self { nodes: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl Heartbeats {
    /// The node was heard here, now.
    pub fn record(&self, node: &str) {
        self.record_all([node], Instant::now());
    }

    /// All of these nodes were heard here at `when`.
    pub fn record_all<'a>(&self, nodes: impl IntoIterator<Item = &'a str>, when: Instant) {
        let heard = Heard { here: Some(when), anywhere: when };
        let mut known = self.nodes.write();
        let mut new = false;
        for node in nodes {
            match known.get_mut(node) {
                Some(entry) => *entry = heard,
                None => new |= known.insert(node.to_owned(), heard).is_none(),
            }
        }
        drop(known);
        if new {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// When the node was last heard by any master, as far as this one knows.
    #[must_use]
    pub fn last(&self, node: &str) -> Option<Instant> {
        self.nodes.read().get(node).map(|heard| heard.anywhere)
    }

    /// When the node was last heard by this master itself.
    #[must_use]
    pub fn last_here(&self, node: &str) -> Option<Instant> {
        self.nodes.read().get(node)?.here
    }

    /// Gives every known node a fresh grace period: what a new leader does first.
    pub fn reset_all(&self, now: Instant) {
        let heard = Heard { here: Some(now), anywhere: now };
        self.nodes.write().values_mut().for_each(|entry| *entry = heard);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Forgets a node.
    pub fn remove(&self, node: &str) {
        if self.nodes.write().remove(node).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Changes when a node is heard for the first time, forgotten, or all are reset.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Lets the other masters ask this one.
    pub(crate) fn answer_through(self: &Arc<Self>, store: &dyn Store) {
        let heartbeats = Arc::clone(self);
        store.answer_members(Arc::new(move |question| heartbeats.answer(&question)));
    }

    /// Asks the other masters for nodes that are not heard here, and notes what they say. Returns
    /// how many of them each master has heard within `recent`. A node that nobody hears costs a
    /// round trip, and a master that does not answer at most `patience`.
    pub(crate) async fn ask(
        &self,
        store: &dyn Store,
        nodes: Vec<String>,
        recent: Duration,
        patience: Duration,
    ) -> Vec<(MemberId, usize)> {
        // A list of texts can be written as JSON.
        let question = serde_json::to_vec(&Question { nodes }).unwrap_or_default();
        // Ages count from here: a little too old is on the safe side.
        let asked = Instant::now();
        let answers = store.ask_members(question.into(), patience).await;
        let count = |(member, answer): (MemberId, Bytes)| {
            let answer = serde_json::from_slice::<Answer>(&answer)
                .inspect_err(|error| tracing::warn!(member, %error, "an answer is not understood"))
                .ok()?;
            Some((member, self.note(answer, asked, recent)))
        };
        answers.into_iter().filter_map(count).collect()
    }

    fn answer(&self, question: &[u8]) -> Bytes {
        let Ok(Question { nodes }) = serde_json::from_slice(question) else {
            tracing::warn!("a question about nodes is not understood");
            return Bytes::new();
        };
        let known = self.nodes.read();
        // Only what was heard here: hearsay would go round for ever.
        let age = |node: String| {
            let age = known.get(&node)?.here?.elapsed();
            Some((node, u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
        };
        let ages_ms = nodes.into_iter().filter_map(age).collect();
        serde_json::to_vec(&Answer { ages_ms }).unwrap_or_default().into()
    }

    fn note(&self, answer: Answer, asked: Instant, recent: Duration) -> usize {
        let mut known = self.nodes.write();
        let mut heard = 0;
        for (node, age) in answer.ages_ms {
            let age = Duration::from_millis(age);
            // Before this machine was started: as good as never.
            let Some(when) = asked.checked_sub(age) else { continue };
            let entry = known.entry(node).or_insert(Heard { here: None, anywhere: when });
            entry.anywhere = entry.anywhere.max(when);
            heard += usize::from(age < recent);
        }
        heard
    }
}

#[cfg(test)]
#[path = "heartbeats_test.rs"]
mod tests;
