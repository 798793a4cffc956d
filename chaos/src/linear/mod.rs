//! Is a history linearizable? The search of Wing & Gong with Lowe's memoisation of
//! configurations, as in Porcupine, split into independent parts by key.
//!
//! Operations of unknown outcome are left open: they may take effect at any time after they
//! were sent, which includes "never observed". A configuration in which such an operation has
//! *not* been used yet can do everything that the same configuration can in which it has, so
//! the memory keeps the smallest sets only; without that, a dozen lost answers make a failing
//! history undecidable.

mod bits;
mod lists;
mod registers;
mod sets;
mod transactions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::history::{Nanos, Operation};
use bits::Bits;

pub use lists::{ListInput, ListOutput, Lists};
pub use registers::{RegisterInput, RegisterOutput, Registers, Versioned};
pub use sets::{SetInput, SetOutput, Sets};
pub use transactions::{TransactionInput, TransactionOutput, Transactions};

/// A sequential specification.
pub trait Model {
    /// What can be asked.
    type Input: Clone + Debug;
    /// What can be answered.
    type Output: Clone + Debug;
    /// The state between two operations.
    type State: Clone + Eq + Hash + Debug;
    /// Names an independent part of the state; each is judged alone.
    type Part: Clone + Ord + Debug;

    /// Which part an operation works on.
    fn part(input: &Self::Input) -> Self::Part;

    /// The state before everything.
    fn initial() -> Self::State;

    /// The state after the operation, or `None` when it cannot have this output in this state.
    /// Without an output (the outcome is unknown) any output that is possible will do.
    fn step(
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Does the operation only read? Without an answer it says nothing then.
    fn reads_only(input: &Self::Input) -> bool;
}

/// How long to search, per part.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Most configurations to look at; bounds memory too.
    pub configurations: usize,
    /// Longest time.
    pub time: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { configurations: 2_000_000, time: Duration::from_secs(20) }
    }
}

/// What the search found for a whole history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Operations that were judged.
    pub checked: usize,
    /// One text per part that no order explains.
    pub violations: Vec<String>,
    /// One text per part for which the budget did not suffice.
    pub not_decided: Vec<String>,
}

/// A call of a model.
type Op<M> = Operation<<M as Model>::Input, <M as Model>::Output>;

/// Judges a history, part by part.
pub fn check<M: Model>(history: &[Operation<M::Input, M::Output>], budget: Budget) -> Finding {
    let mut parts: BTreeMap<M::Part, Vec<&Op<M>>> = BTreeMap::new();
    for operation in history {
        if operation.output.is_some() || !M::reads_only(&operation.input) {
            parts.entry(M::part(&operation.input)).or_default().push(operation);
        }
    }
    let mut finding = Finding::default();
    for (part, operations) in parts {
        finding.checked += operations.len();
        match Search::<M>::new(operations, budget).run() {
            Answer::Linearizable => {}
            Answer::Violation(text) => finding.violations.push(format!("{part:?}: {text}")),
            Answer::NotDecided(text) => finding.not_decided.push(format!("{part:?}: {text}")),
        }
    }
    finding
}

enum Answer {
    Linearizable,
    Violation(String),
    NotDecided(String),
}

/// One configuration: which operations have been put in order so far, and the state after them.
struct Node<S> {
    /// Of the operations with an answer.
    done: Bits,
    /// Of those without.
    used: Bits,
    /// With an answer, and not done.
    left: usize,
    /// Before this index all operations with an answer are done.
    first: usize,
    state: S,
}

/// Goes deep first along operations that have an answer, and puts in one without an answer only
/// when nothing else is left to try: so the smallest sets of open operations are seen first.
struct Search<'h, M: Model> {
    /// With an answer, in order of sending.
    known: Vec<&'h Op<M>>,
    /// Without.
    open: Vec<&'h Op<M>>,
    queue: VecDeque<Node<M::State>>,
    seen: HashMap<(Bits, M::State), Vec<Bits>>,
    budget: Budget,
    looked_at: usize,
    /// The furthest place: how many were done, the state, and who could not go on.
    furthest: (usize, M::State, Vec<usize>),
}

impl<'h, M: Model> Search<'h, M> {
    fn new(operations: Vec<&'h Op<M>>, budget: Budget) -> Self {
        let (mut known, open): (Vec<_>, Vec<_>) =
            operations.into_iter().partition(|operation| operation.output.is_some());
        known.sort_by_key(|operation| operation.sent);
        let node = Node {
            done: Bits::new(known.len()),
            used: Bits::new(open.len()),
            left: known.len(),
            first: 0,
            state: M::initial(),
        };
        Self {
            queue: VecDeque::from([node]),
            seen: HashMap::new(),
            budget,
            looked_at: 0,
            furthest: (0, M::initial(), Vec::new()),
            known,
            open,
        }
    }

    fn run(mut self) -> Answer {
        let start = Instant::now();
        while let Some(node) = self.queue.pop_front() {
            if node.left == 0 {
                return Answer::Linearizable;
            }
            self.looked_at += 1;
            let late = self.looked_at.is_multiple_of(1024) && start.elapsed() > self.budget.time;
            if late || self.looked_at > self.budget.configurations {
                return Answer::NotDecided(format!(
                    "undecided after {} configurations and {:.1?} ({} operations with an answer, \
                     {} without)",
                    self.looked_at,
                    start.elapsed(),
                    self.known.len(),
                    self.open.len()
                ));
            }
            self.expand(&node);
        }
        Answer::Violation(self.explain())
    }

    fn expand(&mut self, node: &Node<M::State>) {
        let (mut candidates, earliest) = self.candidates(node);
        // The last one pushed is looked at first: what was answered first should be.
        candidates.sort_by_key(|index| std::cmp::Reverse(self.known[*index].answered));
        let finished = self.known.len() - node.left;
        if finished >= self.furthest.0 {
            self.furthest = (finished, node.state.clone(), candidates.clone());
        }
        for index in candidates {
            let operation = self.known[index];
            let after = M::step(&node.state, &operation.input, operation.output.as_ref());
            let Some(state) = after else { continue };
            let mut done = node.done.clone();
            done.set(index, true);
            let mut first = node.first;
            while first < self.known.len() && done.get(first) {
                first += 1;
            }
            let next = Node { done, used: node.used.clone(), left: node.left - 1, first, state };
            if self.is_new(&next) {
                self.queue.push_front(next);
            }
        }
        for (index, operation) in self.open.clone().into_iter().enumerate() {
            if operation.sent > earliest || node.used.get(index) {
                continue;
            }
            // Without an effect here it is the same as not yet.
            let after = M::step(&node.state, &operation.input, None);
            let Some(state) = after.filter(|state| *state != node.state) else { continue };
            let mut used = node.used.clone();
            used.set(index, true);
            let next =
                Node { done: node.done.clone(), used, left: node.left, first: node.first, state };
            if self.is_new(&next) {
                self.queue.push_back(next);
            }
        }
    }

    /// Who can come next, and when the first of the missing operations was answered: nothing
    /// that was sent after that can come before it.
    fn candidates(&self, node: &Node<M::State>) -> (Vec<usize>, Nanos) {
        let mut earliest = Nanos::MAX;
        let mut candidates = Vec::new();
        for (index, operation) in self.known.iter().enumerate().skip(node.first) {
            if operation.sent > earliest {
                break;
            }
            if !node.done.get(index) {
                earliest = earliest.min(operation.answered.unwrap_or(Nanos::MAX));
                candidates.push(index);
            }
        }
        candidates.retain(|index| self.known[*index].sent <= earliest);
        (candidates, earliest)
    }

    /// Remembers the configuration; false when one that can do at least as much was seen.
    fn is_new(&mut self, node: &Node<M::State>) -> bool {
        let seen = self.seen.entry((node.done.clone(), node.state.clone())).or_default();
        if seen.iter().any(|used| used.is_subset_of(&node.used)) {
            return false;
        }
        seen.push(node.used.clone());
        true
    }

    fn explain(&self) -> String {
        let (finished, state, candidates) = &self.furthest;
        let waiting: Vec<String> =
            candidates.iter().take(4).map(|index| describe(self.known[*index])).collect();
        format!(
            "no order of the operations explains the answers; in the best attempt {finished} of \
             {} fit, the state is {state:?}, and none of these can come next: {}",
            self.known.len(),
            waiting.join("; ")
        )
    }
}

fn describe<I: Debug, O: Debug>(operation: &Operation<I, O>) -> String {
    let millis = |nanos: Nanos| nanos as f64 / 1e6;
    format!(
        "client {} {:?} -> {:?} [{:.1}..{:.1} ms]",
        operation.client,
        operation.input,
        operation.output.as_ref(),
        millis(operation.sent),
        operation.answered.map_or(f64::INFINITY, millis)
    )
}

#[cfg(test)]
#[path = "linear_test.rs"]
mod tests;
