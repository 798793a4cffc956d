//! [`Queue`]: the pods that wait for a node, and when each of them is tried next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use crate::needs::Needs;
use crate::snapshot::PodKey;

/// A pod that waits, with what the scheduler knows of it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// As the cache showed it last.
    pub pod: Arc<Pod>,
    /// The store's revision of that.
    pub revision: u64,
    /// Worked out from it.
    pub needs: Needs,
    /// Attempts that failed since its needs changed.
    pub attempts: u32,
}

/// Where a waiting pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be tried now; with its rank in the order.
    Active(Rank),
    /// To be tried at this time.
    BackOff(Instant, u64),
    /// Fitted nowhere; tried again when the cluster changes, but not before this time.
    Unschedulable(Instant),
    /// Being decided about and committed, since this many calls of [`Queue::wake`].
    InFlight(u64),
}

type Rank = (Reverse<i32>, u64);

/// The queue. Every pod in it is in exactly one place: active, backing off, unschedulable, or
/// in flight.
#[derive(Debug)]
pub struct Queue {
    entries: HashMap<PodKey, (Waiting, Place)>,
    active: BTreeMap<Rank, PodKey>,
    back_off: BTreeMap<(Instant, u64), PodKey>,
    unschedulable: BTreeSet<PodKey>,
    /// In flight, and the pod has changed since: try again at once if refused.
    stirred: HashSet<PodKey>,
    /// Calls of [`Queue::wake`].
    wakes: u64,
    sequence: u64,
    first: Duration,
    longest: Duration,
}

impl Queue {
    /// An empty queue; `first` and `longest` bound the exponential back-off.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeMap::new(),
            back_off: BTreeMap::new(),
            unschedulable: BTreeSet::new(),
            stirred: HashSet::new(),
            wakes: 0,
            sequence: 0,
            first,
            longest,
        }
    }

    /// Number of pods that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Does no pod wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is a pod to be tried now?
    #[must_use]
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// A pod without a node is new or changed. It is tried at once when it is new or needs
    /// something else than before; a mere change of status does not wake it.
    pub fn upsert(&mut self, pod: Arc<Pod>, revision: u64) {
        let key = PodKey::of(&pod);
        let needs = Needs::of(&pod);
        let Some((waiting, place)) = self.entries.get_mut(&key) else {
            let waiting = Waiting { pod, revision, needs, attempts: 0 };
            self.entries.insert(key.clone(), (waiting, Place::InFlight(self.wakes)));
            self.activate(&key);
            return;
        };
        let other_needs = waiting.needs != needs;
        waiting.pod = pod;
        waiting.revision = revision;
        if other_needs {
            waiting.needs = needs;
            waiting.attempts = 0;
            if matches!(place, Place::InFlight(_)) {
                self.stirred.insert(key);
            } else {
                self.activate(&key);
            }
        }
    }

    /// A pod is gone or has its node.
    pub fn remove(&mut self, key: &PodKey) {
        self.leave_place(key);
        self.entries.remove(key);
        self.stirred.remove(key);
    }

    /// Takes the next pod to be tried: the highest priority first, then the longest waiting.
    /// It is in flight until [`Queue::failed`], [`Queue::unschedulable`] or [`Queue::remove`].
    pub fn pop(&mut self) -> Option<(PodKey, Waiting)> {
        let (_, key) = self.active.pop_first()?;
        let (waiting, place) = self.entries.get_mut(&key)?;
        *place = Place::InFlight(self.wakes);
        Some((key, waiting.clone()))
    }

    /// The attempt went wrong for reasons of no concern to the pod (a conflict, a store that
    /// did not answer): try again after a while.
    pub fn failed(&mut self, key: &PodKey, now: Instant) {
        let sequence = self.next_sequence();
        let stirred = self.stirred.remove(key);
        let Some((waiting, place)) = self.entries.get_mut(key) else { return };
        if !matches!(place, Place::InFlight(_)) {
            return;
        }
        waiting.attempts = waiting.attempts.saturating_add(1);
        if stirred {
            self.activate(key);
            return;
        }
        let until = now + back_off(self.first, self.longest, waiting.attempts);
        *place = Place::BackOff(until, sequence);
        self.back_off.insert((until, sequence), key.clone());
    }

    /// The pod was refused because somebody changed it meanwhile: try again at once, with what
    /// the cache shows then.
    pub fn conflicted(&mut self, key: &PodKey, now: Instant) {
        self.stirred.insert(key.clone());
        self.failed(key, now);
    }

    /// No node would do: wait until the cluster changes.
    pub fn unschedulable(&mut self, key: &PodKey, now: Instant) {
        if self.stirred.contains(key) {
            self.failed(key, now);
            return;
        }
        let wakes = self.wakes;
        let Some((waiting, place)) = self.entries.get_mut(key) else { return };
        let Place::InFlight(since) = *place else { return };
        if since != wakes {
            // The cluster has changed since the decision: nobody would wake the pod for that.
            self.failed(key, now);
            return;
        }
        waiting.attempts = waiting.attempts.saturating_add(1);
        let until = now + back_off(self.first, self.longest, waiting.attempts);
        *place = Place::Unschedulable(until);
        self.unschedulable.insert(key.clone());
    }

    /// Something in the cluster has changed for the better: unschedulable pods are tried again,
    /// each after its back-off at the earliest.
    pub fn wake(&mut self, now: Instant) {
        self.wakes += 1;
        for key in std::mem::take(&mut self.unschedulable) {
            let sequence = self.next_sequence();
            let Some((_, place)) = self.entries.get_mut(&key) else { continue };
            match *place {
                Place::Unschedulable(until) if until > now => {
                    *place = Place::BackOff(until, sequence);
                    self.back_off.insert((until, sequence), key);
                }
                _ => self.activate(&key),
            }
        }
    }

    /// Moves what has waited long enough to the active ones.
    pub fn tick(&mut self, now: Instant) {
        while let Some((due, key)) = self.back_off.first_key_value() {
            if due.0 > now {
                break;
            }
            let key = key.clone();
            self.activate(&key);
        }
    }

    /// When [`Queue::tick`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.back_off.first_key_value().map(|((until, _), _)| *until)
    }

    fn activate(&mut self, key: &PodKey) {
        self.leave_place(key);
        let sequence = self.next_sequence();
        let Some((waiting, place)) = self.entries.get_mut(key) else { return };
        let rank = (Reverse(waiting.needs.priority), sequence);
        *place = Place::Active(rank);
        self.active.insert(rank, key.clone());
    }

    fn leave_place(&mut self, key: &PodKey) {
        match self.entries.get(key).map(|(_, place)| *place) {
            Some(Place::Active(rank)) => {
                self.active.remove(&rank);
            }
            Some(Place::BackOff(until, sequence)) => {
                self.back_off.remove(&(until, sequence));
            }
            Some(Place::Unschedulable(_)) => {
                self.unschedulable.remove(key);
            }
            Some(Place::InFlight(_)) | None => {}
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

fn back_off(first: Duration, longest: Duration, attempts: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempts.saturating_sub(1));
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
