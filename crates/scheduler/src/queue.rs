//! [`Queue`]: the pods that wait for a node, and when each of them is tried next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use crate::filter::FilterSet;
use crate::snapshot::{Class, PodKey};

/// A pod that waits, with what the scheduler knows of it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// As the cache showed it last.
    pub pod: Arc<Pod>,
    /// The store's revision of that.
    pub revision: u64,
    /// What it needs.
    pub class: Class,
    /// Attempts that failed since its needs changed.
    pub attempts: u32,
    /// The filters that refused nodes at the last attempt.
    pub refused_by: FilterSet,
}

/// Where a waiting pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be tried now; with its rank in the order.
    Active(Rank),
    /// To be tried at this time.
    BackOff(Instant, u64),
    /// Fitted nowhere; tried again when the cluster changes in a way that may help, but not before
    /// this time.
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
    /// By the filters that refused nodes.
    unschedulable: HashMap<FilterSet, BTreeSet<PodKey>>,
    /// In flight, and the pod has changed since: try again at once if refused.
    stirred: HashSet<PodKey>,
    /// Calls of [`Queue::wake`].
    wakes: u64,
    /// The last of them that helped with a filter, for each of the filters.
    last_help: HashMap<FilterSet, u64>,
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
            unschedulable: HashMap::new(),
            stirred: HashSet::new(),
            wakes: 0,
            last_help: HashMap::new(),
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
    pub fn upsert(&mut self, pod: Arc<Pod>, revision: u64, class: Class) {
        let key = PodKey::of(&pod);
        let Some((waiting, place)) = self.entries.get_mut(&key) else {
            let refused_by = FilterSet::default();
            let waiting = Waiting { pod, revision, class, attempts: 0, refused_by };
            self.entries.insert(key.clone(), (waiting, Place::InFlight(self.wakes)));
            self.activate(&key);
            return;
        };
        let other_needs = waiting.class != class;
        waiting.pod = pod;
        waiting.revision = revision;
        if other_needs {
            waiting.class = class;
            waiting.attempts = 0;
            if matches!(place, Place::InFlight(_)) {
                self.stirred.insert(key);
            } else {
                self.activate(&key);
            }
        }
    }

    /// Has an attempt failed already, since its needs changed?
    #[must_use]
    pub fn was_tried(&self, key: &PodKey) -> bool {
        self.entries.get(key).is_some_and(|(waiting, place)| {
            waiting.attempts > 0 || matches!(place, Place::InFlight(_))
        })
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

    /// No node would do, because of these filters: wait until the cluster changes in a way that
    /// may help.
    pub fn unschedulable(&mut self, key: &PodKey, refused_by: FilterSet, now: Instant) {
        if self.stirred.contains(key) {
            self.failed(key, now);
            return;
        }
        // Without nodes nothing was refused, and every node helps.
        let refused_by = if refused_by.is_empty() { FilterSet::all() } else { refused_by };
        let Some((waiting, place)) = self.entries.get_mut(key) else { return };
        let Place::InFlight(since) = *place else { return };
        let mut helps = self.last_help.iter();
        if helps.any(|(helped, wake)| *wake > since && helped.meets(refused_by)) {
            // The cluster has changed since the decision: nobody would wake the pod for that.
            self.failed(key, now);
            return;
        }
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.refused_by = refused_by;
        let until = now + back_off(self.first, self.longest, waiting.attempts);
        *place = Place::Unschedulable(until);
        self.unschedulable.entry(refused_by).or_default().insert(key.clone());
    }

    /// The cluster has changed in a way that may help against these filters. Pods that they
    /// refused, and for which it is `worth` it, are tried again, each after its back-off at the
    /// earliest.
    pub fn wake(
        &mut self,
        helped: FilterSet,
        mut worth: impl FnMut(&PodKey, &Waiting) -> bool,
        now: Instant,
    ) {
        if helped.is_empty() {
            return;
        }
        self.wakes += 1;
        for filter in helped.each() {
            self.last_help.insert(filter, self.wakes);
        }
        let sets = self.unschedulable.iter().filter(|(set, _)| set.meets(helped));
        let keys = sets.flat_map(|(_, keys)| keys);
        let worth = |key: &&PodKey| self.entries.get(*key).is_some_and(|(w, _)| worth(key, w));
        // In their order, so that who has waited longest does not depend on chance.
        let woken: BTreeSet<PodKey> = keys.filter(worth).cloned().collect();
        for key in woken {
            match self.entries.get(&key).map(|(_, place)| *place) {
                Some(Place::Unschedulable(until)) if until > now => {
                    self.leave_place(&key);
                    let sequence = self.next_sequence();
                    if let Some((_, place)) = self.entries.get_mut(&key) {
                        *place = Place::BackOff(until, sequence);
                    }
                    self.back_off.insert((until, sequence), key);
                }
                _ => self.activate(&key),
            }
        }
    }

    /// Tries all pods again that fitted nowhere.
    pub fn wake_all(&mut self, now: Instant) {
        self.wake(FilterSet::all(), |_, _| true, now);
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
        let rank = (Reverse(waiting.class.needs().priority), sequence);
        *place = Place::Active(rank);
        self.active.insert(rank, key.clone());
    }

    fn leave_place(&mut self, key: &PodKey) {
        let Some((waiting, place)) = self.entries.get(key) else { return };
        match *place {
            Place::Active(rank) => {
                self.active.remove(&rank);
            }
            Place::BackOff(until, sequence) => {
                self.back_off.remove(&(until, sequence));
            }
            Place::Unschedulable(_) => {
                let set = waiting.refused_by;
                if let Some(keys) = self.unschedulable.get_mut(&set) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.unschedulable.remove(&set);
                    }
                }
            }
            Place::InFlight(_) => {}
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
