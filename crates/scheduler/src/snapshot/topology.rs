//! [`Topology`]: how many pods of which kind are in which domain, kept up by one change at a time.
//!
//! A *domain* is a value of a label of nodes (a zone, a host). Pods with equal needs are one
//! *class*, so a term (a selector with a topology key) is matched once per class and not once
//! per pod.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::memory::Memory;
use super::{Class, Placed};
use crate::needs::{Needs, PodTerm};

pub(crate) type TermId = u32;
pub(crate) type ClassId = u32;
pub(crate) type Domain = u32;
/// A node without the label.
pub(crate) const NO_DOMAIN: Domain = u32::MAX;

/// Classes that are remembered in detail; see [`Memory`].
const REMEMBERED: usize = 128;
/// Unused classes are looked for when there are this many, or twice as many as after last time.
const SWEEP_FROM: usize = 256;

/// Numbers by domain, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(FxHashMap<Domain, i64>);

impl Counts {
    pub fn get(&self, domain: Domain) -> i64 {
        self.0.get(&domain).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (Domain, i64)> + '_ {
        self.0.iter().map(|(domain, count)| (*domain, *count))
    }

    fn add(&mut self, domain: Domain, by: i64) {
        let count = self.0.entry(domain).or_default();
        *count += by;
        if *count == 0 {
            self.0.remove(&domain);
        }
    }
}

/// A label of nodes, and which node has which value.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopologyKey {
    name: String,
    domains: HashMap<String, Domain>,
    unused: Vec<Domain>,
    /// Existing nodes of each domain.
    nodes: Vec<u32>,
    /// By the node's slot.
    of_slot: Vec<Domain>,
}

impl TopologyKey {
    pub fn domain(&self, slot: usize) -> Domain {
        self.of_slot.get(slot).copied().unwrap_or(NO_DOMAIN)
    }

    /// The domain's value of the label.
    #[cfg(test)]
    pub fn value(&self, domain: Domain) -> Option<&str> {
        let mut all = self.domains.iter();
        all.find(|(_, other)| **other == domain).map(|(value, _)| value.as_str())
    }

    /// How many domains there are.
    pub fn count(&self) -> usize {
        self.domains.len()
    }

    fn set(&mut self, slot: usize, value: Option<&String>) {
        let old = self.domain(slot);
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, NO_DOMAIN);
        }
        let new = value.map_or(NO_DOMAIN, |value| self.number(value));
        self.of_slot[slot] = new;
        if let Some(count) = self.nodes.get_mut(new as usize) {
            *count += 1;
        }
        if let Some(count) = self.nodes.get_mut(old as usize) {
            *count -= 1;
            if *count == 0 {
                self.domains.retain(|_, domain| *domain != old);
                self.unused.push(old);
            }
        }
    }

    fn number(&mut self, value: &String) -> Domain {
        if let Some(domain) = self.domains.get(value) {
            return *domain;
        }
        let domain = self.unused.pop().unwrap_or_else(|| {
            self.nodes.push(0);
            // As many domains as nodes at most, and those are counted by u32 slots.
            Domain::try_from(self.nodes.len() - 1).unwrap_or(NO_DOMAIN)
        });
        self.domains.insert(value.clone(), domain);
        domain
    }
}

/// A term that some class uses.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub what: Arc<PodTerm>,
    /// Index of its topology key.
    pub key: usize,
    /// Pods that it means.
    pub matching: Counts,
    /// Of these, pods that are being deleted.
    pub leaving: Counts,
    /// Pods that require not to be with such pods.
    pub repelled: Counts,
    /// Pods that require to be with such pods.
    pub attracted: Counts,
    /// Weights of the pods that wish (not) to be with such pods.
    pub wished: Counts,
    /// Number of classes that use it.
    users: u32,
}

/// Pods with equal needs, and the terms that concern them.
#[derive(Clone, Debug)]
pub(crate) struct ClassState {
    pub needs: Arc<Needs>,
    pub affinity: Vec<TermId>,
    pub anti_affinity: Vec<TermId>,
    pub preferred: Vec<(i64, TermId)>,
    pub spread: Vec<TermId>,
    /// Terms that mean pods of this class.
    pub matched: Vec<TermId>,
    pub memory: Memory,
}

impl ClassState {
    pub fn is_matched(&self, term: TermId) -> bool {
        self.matched.contains(&term)
    }

    fn terms(&self) -> impl Iterator<Item = TermId> + '_ {
        let preferred = self.preferred.iter().map(|(_, term)| *term);
        let required = self.affinity.iter().chain(&self.anti_affinity).chain(&self.spread).copied();
        required.chain(preferred)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    pub keys: Vec<TopologyKey>,
    terms: Vec<Option<Term>>,
    unused_terms: Vec<TermId>,
    by_term: HashMap<Arc<PodTerm>, TermId>,
    /// Terms by a label that they require; those that require none are under `None`.
    by_label: HashMap<Option<(String, String)>, Vec<TermId>>,
    classes: Vec<Option<ClassState>>,
    unused_classes: Vec<ClassId>,
    by_needs: HashMap<Arc<Needs>, ClassId>,
    remembered: VecDeque<ClassId>,
    sweep_at: usize,
    namespaces: HashMap<String, BTreeMap<String, String>>,
}

/// What a new term has to look at.
pub(crate) struct Present<'a> {
    pub labels: &'a dyn Fn(usize) -> Option<&'a BTreeMap<String, String>>,
    pub slots: usize,
    pub pods: &'a [Option<Placed>],
}

impl Topology {
    /// A term in use.
    pub fn term(&self, id: TermId) -> Option<&Term> {
        self.terms.get(id as usize)?.as_ref()
    }

    /// The terms, without their numbers.
    #[cfg(test)]
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        self.terms.iter().flatten()
    }

    /// The domain of a node, as a term sees it.
    pub fn domain(&self, term: &Term, slot: usize) -> Domain {
        self.keys[term.key].domain(slot)
    }

    /// A class in use.
    pub fn class(&self, class: &Class) -> &ClassState {
        self.state(class.id)
    }

    fn state(&self, id: ClassId) -> &ClassState {
        match self.classes.get(id as usize) {
            Some(Some(state)) => state,
            // A `Class` keeps its entry alive: `sweep` removes only what nobody holds.
            _ => unreachable!("a class that is held is in the table"),
        }
    }

    /// The class's memory, to be given back by [`Self::put_memory`].
    pub fn take_memory(&mut self, class: &Class) -> Memory {
        match self.classes.get_mut(class.id as usize) {
            Some(Some(state)) => std::mem::take(&mut state.memory),
            _ => Memory::default(),
        }
    }

    /// Keeps the memory; that of the class which got its own first is dropped for it.
    pub fn put_memory(&mut self, class: &Class, mut memory: Memory) {
        if memory.is_empty() {
            return;
        }
        if !std::mem::replace(&mut memory.kept, true) {
            self.remembered.push_back(class.id);
        }
        if let Some(Some(state)) = self.classes.get_mut(class.id as usize) {
            state.memory = memory;
        }
        if self.remembered.len() > REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
            && let Some(Some(state)) = self.classes.get_mut(oldest as usize)
        {
            state.memory = Memory::default();
        }
    }

    /// The class of these needs.
    pub fn intern(&mut self, needs: Needs, present: &Present<'_>) -> Class {
        if let Some((needs, id)) = self.by_needs.get_key_value(&needs) {
            return Class { id: *id, needs: Arc::clone(needs) };
        }
        if self.by_needs.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.sweep();
        }
        let needs = Arc::new(needs);
        let id = self.unused_classes.pop().unwrap_or_else(|| {
            self.classes.push(None);
            ClassId::try_from(self.classes.len() - 1).unwrap_or(ClassId::MAX)
        });
        self.classes[id as usize] = Some(ClassState {
            needs: Arc::clone(&needs),
            affinity: Vec::new(),
            anti_affinity: Vec::new(),
            preferred: Vec::new(),
            spread: Vec::new(),
            matched: self.terms_for(&needs),
            memory: Memory::default(),
        });
        self.by_needs.insert(Arc::clone(&needs), id);
        let mut number = |term: &Arc<PodTerm>| self.number(term, present);
        let affinity = needs.affinity.iter().map(&mut number).collect();
        let anti_affinity = needs.anti_affinity.iter().map(&mut number).collect();
        let preferred =
            needs.preferred_pods.iter().map(|(weight, term)| (*weight, number(term))).collect();
        let spread = needs.spread.iter().map(|spread| number(&spread.term)).collect();
        if let Some(state) = &mut self.classes[id as usize] {
            state.affinity = affinity;
            state.anti_affinity = anti_affinity;
            state.preferred = preferred;
            state.spread = spread;
        }
        Class { id, needs }
    }

    fn matches(&self, term: &PodTerm, needs: &Needs) -> bool {
        term.matches(&needs.namespace, self.namespaces.get(&needs.namespace), &needs.labels)
    }

    /// The terms that mean pods with these needs.
    fn terms_for(&self, needs: &Needs) -> Vec<TermId> {
        let keys = needs.labels.iter().map(|(key, value)| Some((key.clone(), value.clone())));
        let lists = keys.chain([None]).filter_map(|key| self.by_label.get(&key));
        let candidates = lists.flatten().copied();
        let means = |id: &TermId| self.term(*id).is_some_and(|t| self.matches(&t.what, needs));
        candidates.filter(means).collect()
    }

    /// The number of a term; a new one is counted over all that is present.
    fn number(&mut self, what: &Arc<PodTerm>, present: &Present<'_>) -> TermId {
        if let Some(id) = self.by_term.get(what) {
            if let Some(Some(term)) = self.terms.get_mut(*id as usize) {
                term.users += 1;
            }
            return *id;
        }
        let key = self.key(&what.topology_key, present);
        let id = self.unused_terms.pop().unwrap_or_else(|| {
            self.terms.push(None);
            TermId::try_from(self.terms.len() - 1).unwrap_or(TermId::MAX)
        });
        let mut term = Term {
            what: Arc::clone(what),
            key,
            matching: Counts::default(),
            leaving: Counts::default(),
            repelled: Counts::default(),
            attracted: Counts::default(),
            wished: Counts::default(),
            users: 1,
        };
        let means = |state: &ClassState| {
            let labels = self.namespaces.get(&state.needs.namespace);
            what.matches(&state.needs.namespace, labels, &state.needs.labels)
        };
        let mut meant: HashSet<ClassId> = HashSet::new();
        for (class, state) in (0..).zip(&mut self.classes) {
            if let Some(state) = state.as_mut().filter(|state| means(state)) {
                state.matched.push(id);
                meant.insert(class);
            }
        }
        for pod in present.pods.iter().flatten().filter(|pod| meant.contains(&pod.class.id)) {
            let domain = self.keys[key].domain(pod.slot);
            if domain != NO_DOMAIN {
                term.matching.add(domain, 1);
                if pod.deleting {
                    term.leaving.add(domain, 1);
                }
            }
        }
        self.terms[id as usize] = Some(term);
        self.by_term.insert(Arc::clone(what), id);
        self.by_label.entry(label_of(what)).or_default().push(id);
        id
    }

    fn key(&mut self, name: &str, present: &Present<'_>) -> usize {
        if let Some(index) = self.keys.iter().position(|key| key.name == name) {
            return index;
        }
        let mut key = TopologyKey { name: name.to_owned(), ..TopologyKey::default() };
        for slot in 0..present.slots {
            key.set(slot, (present.labels)(slot).and_then(|labels| labels.get(name)));
        }
        self.keys.push(key);
        self.keys.len() - 1
    }

    /// Counts a pod in (`by` 1) or out (-1).
    pub fn count(&mut self, pod: &Placed, by: i64) {
        let Some(Some(class)) = self.classes.get(pod.class.id as usize) else { return };
        let (keys, terms) = (&self.keys, &mut self.terms);
        let mut add = |id: TermId, pick: fn(&mut Term) -> &mut Counts, by: i64| {
            if let Some(Some(term)) = terms.get_mut(id as usize) {
                let domain = keys[term.key].domain(pod.slot);
                if domain != NO_DOMAIN {
                    pick(term).add(domain, by);
                }
            }
        };
        for id in &class.matched {
            add(*id, |term| &mut term.matching, by);
            if pod.deleting {
                add(*id, |term| &mut term.leaving, by);
            }
        }
        class.affinity.iter().for_each(|id| add(*id, |term| &mut term.attracted, by));
        class.anti_affinity.iter().for_each(|id| add(*id, |term| &mut term.repelled, by));
        for (weight, id) in &class.preferred {
            add(*id, |term| &mut term.wished, weight * by);
        }
    }

    /// Would the node be in other domains with these labels?
    pub fn moves(&self, slot: usize, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.keys.iter().any(|key| {
            let new = labels.and_then(|labels| labels.get(&key.name));
            new.map_or(NO_DOMAIN, |value| key.domains.get(value).copied().unwrap_or(NO_DOMAIN - 1))
                != key.domain(slot)
        })
    }

    /// Puts a node into its domains. Its pods must not be counted at this moment.
    pub fn set_domains(&mut self, slot: usize, labels: Option<&BTreeMap<String, String>>) {
        for key in &mut self.keys {
            let value = labels.and_then(|labels| labels.get(&key.name));
            key.set(slot, value);
        }
    }

    /// A namespace's labels (`None`: it is gone). Says whether pods have to be counted anew, by
    /// [`Self::recount`].
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) -> bool {
        let same = self.namespaces.get(name) == labels.as_ref();
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        let by_labels =
            |term: &Term| term.what.namespace_selector.as_ref().is_some_and(|s| !s.is_everything());
        !same && self.terms.iter().flatten().any(by_labels)
    }

    /// Matches every class again, and counts every pod again.
    pub fn recount(&mut self, pods: &[Option<Placed>]) {
        for term in self.terms.iter_mut().flatten() {
            let counts = [
                &mut term.matching,
                &mut term.leaving,
                &mut term.repelled,
                &mut term.attracted,
                &mut term.wished,
            ];
            counts.into_iter().for_each(|counts| counts.0.clear());
        }
        for id in 0..self.classes.len() {
            let Some(needs) = self.classes[id].as_ref().map(|state| Arc::clone(&state.needs))
            else {
                continue;
            };
            let matched = self.terms_for(&needs);
            if let Some(state) = &mut self.classes[id] {
                state.matched = matched;
            }
        }
        pods.iter().flatten().for_each(|pod| self.count(pod, 1));
    }

    /// Removes classes that nobody holds, and terms that no class uses any more.
    fn sweep(&mut self) {
        let mut dead: HashSet<TermId> = HashSet::new();
        for (id, entry) in (0..).zip(&mut self.classes) {
            // Held by the entry and by the key of `by_needs` only.
            let Some(state) = entry.take_if(|state| Arc::strong_count(&state.needs) <= 2) else {
                continue;
            };
            self.by_needs.remove(&state.needs);
            self.remembered.retain(|remembered| *remembered != id);
            self.unused_classes.push(id);
            for term_id in state.terms() {
                let Some(Some(term)) = self.terms.get_mut(term_id as usize) else { continue };
                term.users = term.users.saturating_sub(1);
                if term.users == 0 {
                    dead.insert(term_id);
                }
            }
        }
        for id in &dead {
            let Some(term) = self.terms[*id as usize].take() else { continue };
            self.by_term.remove(&term.what);
            let label = label_of(&term.what);
            if let Some(list) = self.by_label.get_mut(&label) {
                list.retain(|other| other != id);
                if list.is_empty() {
                    self.by_label.remove(&label);
                }
            }
            self.unused_terms.push(*id);
        }
        if !dead.is_empty() {
            for state in self.classes.iter_mut().flatten() {
                state.matched.retain(|id| !dead.contains(id));
            }
        }
        self.sweep_at = self.by_needs.len() * 2;
    }
}

fn label_of(term: &PodTerm) -> Option<(String, String)> {
    term.selector.required_label().map(|(key, value)| (key.to_owned(), value.to_owned()))
}
