//! [`ClusterSnapshot`]: nodes and what they carry, kept up to date by one change at a time.

mod budgets;
mod memory;
mod node;
mod pods;
mod topology;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_objects::pod;

pub(crate) use self::budgets::Budgets;
pub(crate) use self::memory::Memory;
pub use self::node::NodeInfo;
pub(crate) use self::node::Nominated;
use self::pods::since;
pub use self::pods::{Class, PodKey};
pub(crate) use self::pods::{Placed, PodId};
use self::topology::Present;
pub(crate) use self::topology::{ClassState, Counts, Domain, NO_DOMAIN, Term, Topology};
pub(crate) use self::volumes::{Claims, Rule};
use crate::filter::{Filter, FilterSet};
use crate::needs::Needs;
use crate::preempt::Preemption;

/// Nodes and placed pods, as the cache shows them, plus the scheduler's own decisions that the
/// cache does not show yet ("assumed" pods).
///
/// Invariant: a node's sums and the counts of every term are those over the pods placed, each
/// pod counted once.
#[derive(Clone, Debug, Default)]
pub struct ClusterSnapshot {
    nodes: Vec<NodeInfo>,
    /// By slot: the number of the last change of the node or of what it carries.
    changed: Vec<u64>,
    changes: u64,
    /// The number of the last change of a Node object.
    nodes_changed: u64,
    index: HashMap<Arc<str>, usize>,
    unused_slots: Vec<usize>,
    existing: usize,
    pods: Vec<Option<Placed>>,
    unused_pods: Vec<PodId>,
    by_key: HashMap<PodKey, PodId>,
    /// How many placed pods have each priority.
    priorities: BTreeMap<i32, u32>,
    /// How many existing nodes have each image.
    images: HashMap<String, u32>,
    nominations: HashMap<PodKey, usize>,
    priority_classes: HashMap<String, i32>,
    topology: Topology,
    pub(crate) claims: Claims,
    pub(crate) budgets: Budgets,
}

impl ClusterSnapshot {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All nodes in no particular, but stable, order. Check [`NodeInfo::exists`].
    #[must_use]
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.slot_of(name).map(|slot| &self.nodes[slot])
    }

    pub(crate) fn slot_of(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The number of the last change of the node or of what it carries; never 0.
    pub(crate) fn changed(&self, slot: usize) -> u64 {
        self.changed[slot]
    }

    /// The number of the last change of a Node object.
    pub(crate) fn nodes_changed(&self) -> u64 {
        self.nodes_changed
    }

    /// Number of Node objects.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.existing
    }

    /// Number of placed pods.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.by_key.len()
    }

    /// The lowest priority of a placed pod.
    pub(crate) fn lowest_priority(&self) -> Option<i32> {
        self.priorities.first_key_value().map(|(priority, _)| *priority)
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn topology_mut(&mut self) -> &mut Topology {
        &mut self.topology
    }

    pub(crate) fn pod(&self, id: PodId) -> Option<&Placed> {
        self.pods.get(id as usize)?.as_ref()
    }

    pub(crate) fn placed(&self, key: &PodKey) -> Option<&Placed> {
        self.by_key.get(key).and_then(|id| self.pod(*id))
    }

    /// How many nodes have the image.
    pub(crate) fn nodes_with_image(&self, image: &str) -> u32 {
        self.images.get(image).copied().unwrap_or_default()
    }

    /// The class of a pod.
    pub fn class_of(&mut self, object: &Pod) -> Class {
        self.class(self.needs_of(object))
    }

    fn needs_of(&self, object: &Pod) -> Needs {
        let mut needs = Needs::of(object);
        // Admission writes the priority into the pod; this is for pods that came without it.
        if let Some(spec) = object.spec.as_ref().filter(|spec| spec.priority.is_none())
            && let Some(name) = &spec.priority_class_name
        {
            needs.priority = self.priority_classes.get(name).copied().unwrap_or_default();
        }
        needs
    }

    /// A PriorityClass and its value (`None`: it is gone).
    pub fn set_priority_class(&mut self, name: &str, value: Option<i32>) {
        match value {
            Some(value) => self.priority_classes.insert(name.to_owned(), value),
            None => self.priority_classes.remove(name),
        };
    }

    /// The class of these needs.
    pub fn class(&mut self, needs: Needs) -> Class {
        let nodes = &self.nodes;
        let present = Present {
            labels: &|slot| nodes.get(slot).filter(|node| node.exists).map(|node| &node.labels),
            slots: nodes.len(),
            pods: &self.pods,
        };
        self.topology.intern(needs, &present)
    }

    /// A Node object is new or changed. Returns what may be possible now that was not before.
    pub fn set_node(&mut self, node: &Node) -> FilterSet {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let slot = self.slot(name);
        let empty = BTreeMap::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
        let moves = !self.nodes[slot].exists || self.topology.moves(slot, Some(labels));
        if moves {
            self.count_node(slot, -1);
        }
        if !self.nodes[slot].exists {
            self.existing += 1;
        }
        self.count_images(slot, false);
        let helped = self.nodes[slot].update(node);
        self.count_images(slot, true);
        if moves {
            self.topology.set_domains(slot, Some(labels));
            self.count_node(slot, 1);
        }
        if !helped.is_empty() || moves {
            self.touch(slot);
            self.nodes_changed = self.changes;
        }
        helped
    }

    /// A Node object is gone. Returns what may be possible now that was not before.
    pub fn remove_node(&mut self, name: &str) -> FilterSet {
        let Some(slot) = self.slot_of(name) else { return FilterSet::default() };
        self.count_node(slot, -1);
        if self.nodes[slot].exists {
            self.existing -= 1;
        }
        self.count_images(slot, false);
        self.nodes[slot].vanish();
        self.topology.set_domains(slot, None);
        self.nominations.retain(|_, at| *at != slot);
        self.touch(slot);
        self.nodes_changed = self.changes;
        self.drop_if_unused(slot);
        // Fewer domains: the smallest number of pods in one may be larger now.
        FilterSet::from([Filter::PodTopologySpread])
    }

    /// A pod is new or changed. Returns what may be possible now that was not before.
    pub fn set_pod(&mut self, object: &Pod) -> FilterSet {
        let key = PodKey::of(object);
        match pod::node_name(object) {
            // What has ended takes nothing any more.
            Some(_) if pod::is_terminal(object) => self.remove_pod(&key),
            Some(node) => {
                self.nominate(&key, None);
                // The same class as when it was decided about.
                let needs = Needs { node_name: None, ..self.needs_of(object) };
                let class = self.class(needs);
                let slot = self.slot(node);
                self.place(Placed {
                    key,
                    slot,
                    class,
                    assumed: false,
                    deleting: pod::is_deleting(object),
                    since: since(object),
                })
            }
            // Not bound as far as the cache knows; our own decision stands until it is refused.
            None => FilterSet::default(),
        }
    }

    /// A pod is gone. Returns what may be possible now that was not before.
    pub fn remove_pod(&mut self, key: &PodKey) -> FilterSet {
        self.nominate(key, None);
        match self.take(key) {
            Some(placed) => {
                self.drop_if_unused(placed.slot);
                let claims = !placed.class.needs.claims.is_empty();
                let freed = FilterSet::from(FREED);
                // Perhaps one that only one pod may use.
                if claims { freed | FilterSet::from([Filter::VolumeBinding]) } else { freed }
            }
            None => FilterSet::default(),
        }
    }

    /// The scheduler has decided; the cache will show it later.
    pub fn assume(&mut self, key: PodKey, class: &Class, node: &str) {
        self.nominate(&key, None);
        let slot = self.slot(node);
        let class = class.clone();
        self.place(Placed { key, slot, class, assumed: true, deleting: false, since: i64::MAX });
    }

    /// The decision was refused. Does nothing when the cache has shown the pod bound.
    pub fn forget(&mut self, key: &PodKey) {
        if self.placed(key).is_some_and(|placed| placed.assumed)
            && let Some(placed) = self.take(key)
        {
            self.drop_if_unused(placed.slot);
        }
    }

    /// Is the pod placed, and does the cache show it?
    #[must_use]
    pub fn is_confirmed(&self, key: &PodKey) -> bool {
        self.placed(key).is_some_and(|placed| !placed.assumed)
    }

    /// Works with the pod not being placed, if it is; then it is placed again.
    pub(crate) fn without<T>(&mut self, key: &PodKey, work: impl FnOnce(&mut Self) -> T) -> T {
        let placed = self.take(key);
        let result = work(self);
        if let Some(placed) = placed {
            self.place(placed);
        }
        result
    }

    /// Keeps room for a pod on the node, where others have been asked to leave for it. (`None`:
    /// no more.)
    pub fn nominate(&mut self, key: &PodKey, at: Option<(&str, &Class)>) {
        if let Some(slot) = self.nominations.remove(key) {
            self.nodes[slot].nominated.retain(|nominated| nominated.key != *key);
            self.touch(slot);
        }
        let Some((name, class)) = at else { return };
        let Some(slot) = self.slot_of(name).filter(|slot| self.nodes[*slot].exists) else { return };
        let nominated = Nominated { key: key.clone(), class: class.clone() };
        self.nodes[slot].nominated.push(nominated);
        self.nominations.insert(key.clone(), slot);
        self.touch(slot);
    }

    /// Where room is kept for the pod.
    pub(crate) fn nomination(&self, key: &PodKey) -> Option<usize> {
        self.nominations.get(key).copied()
    }

    /// Pods have been asked to leave for the pod; the cache will show it later. The room is kept
    /// for it, and no more for less important pods that were to have it.
    pub fn preempt(&mut self, key: &PodKey, class: &Class, preemption: &Preemption) {
        for victim in &preemption.victims {
            if let Some(needs) = self.placed(victim).map(|pod| Arc::clone(&pod.class.needs)) {
                self.budgets.spend(&needs);
            }
            self.mark_deleting(victim);
        }
        if let Some(slot) = self.slot_of(&preemption.node) {
            let lower = |n: &&Nominated| n.class.needs.priority < class.needs.priority;
            let displaced = self.nodes[slot].nominated.iter().filter(lower);
            let displaced: Vec<PodKey> = displaced.map(|n| n.key.clone()).collect();
            displaced.iter().for_each(|key| self.nominate(key, None));
        }
        self.nominate(key, Some((&preemption.node, class)));
    }

    /// The pod has been asked to leave; the cache will show it later.
    pub(crate) fn mark_deleting(&mut self, key: &PodKey) {
        if let Some(placed) = self.take(key) {
            self.place(Placed { deleting: true, ..placed });
        }
    }

    /// A namespace's labels (`None`: it is gone). Returns what may be possible now.
    pub fn set_namespace(
        &mut self,
        name: &str,
        labels: Option<BTreeMap<String, String>>,
    ) -> FilterSet {
        if !self.topology.set_namespace(name, labels) {
            return FilterSet::default();
        }
        self.topology.recount(&self.pods);
        FilterSet::from([Filter::InterPodAffinity])
    }

    /// Says what the placing may make possible for others.
    fn place(&mut self, mut placed: Placed) -> FilterSet {
        let mut helped = FilterSet::default();
        if let Some(id) = self.by_key.get(&placed.key).copied()
            && let Some(old) = &mut self.pods[id as usize]
        {
            if old.slot == placed.slot
                && old.class == placed.class
                && old.deleting == placed.deleting
            {
                if old.assumed && !placed.assumed {
                    old.assumed = false;
                    old.since = placed.since;
                    return JOINED.into();
                }
                return helped;
            }
            if old.slot != placed.slot || old.class != placed.class {
                helped = FREED.into();
            }
            placed.assumed &= old.assumed;
            let old_slot = old.slot;
            let key = placed.key.clone();
            self.take(&key);
            if old_slot != placed.slot {
                self.drop_if_unused(old_slot);
            }
        }
        let id = self.unused_pods.pop().unwrap_or_else(|| {
            self.pods.push(None);
            PodId::try_from(self.pods.len() - 1).unwrap_or(PodId::MAX)
        });
        self.nodes[placed.slot].add(id, placed.class.needs());
        *self.priorities.entry(placed.class.needs.priority).or_default() += 1;
        self.topology.count(&placed, 1);
        self.claims.note_user(&placed.key, placed.class.needs(), true);
        self.touch(placed.slot);
        self.by_key.insert(placed.key.clone(), id);
        self.pods[id as usize] = Some(placed);
        helped | JOINED.into()
    }

    fn take(&mut self, key: &PodKey) -> Option<Placed> {
        let id = self.by_key.remove(key)?;
        let placed = self.pods[id as usize].take()?;
        self.unused_pods.push(id);
        self.nodes[placed.slot].remove(id, placed.class.needs());
        let priority = placed.class.needs.priority;
        if let Some(count) = self.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&priority);
            }
        }
        self.topology.count(&placed, -1);
        self.claims.note_user(&placed.key, placed.class.needs(), false);
        self.touch(placed.slot);
        Some(placed)
    }

    /// Counts the pods of a node in (1) or out (-1).
    fn count_node(&mut self, slot: usize, by: i64) {
        for id in &self.nodes[slot].pods {
            if let Some(Some(placed)) = self.pods.get(*id as usize) {
                self.topology.count(placed, by);
            }
        }
    }

    fn count_images(&mut self, slot: usize, add: bool) {
        for image in self.nodes[slot].images.keys() {
            if add {
                *self.images.entry(image.clone()).or_default() += 1;
            } else if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    fn touch(&mut self, slot: usize) {
        self.changes += 1;
        self.changed[slot] = self.changes;
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slot_of(name) {
            return slot;
        }
        // DefaultHasher::new() has fixed keys.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let name: Arc<str> = name.into();
        let node =
            NodeInfo { name: Arc::clone(&name), hash: hasher.finish(), ..NodeInfo::default() };
        let slot = self.unused_slots.pop().unwrap_or_else(|| {
            self.nodes.push(NodeInfo::default());
            self.changed.push(0);
            self.nodes.len() - 1
        });
        self.nodes[slot] = node;
        self.index.insert(name, slot);
        self.touch(slot);
        slot
    }

    fn drop_if_unused(&mut self, slot: usize) {
        let node = &self.nodes[slot];
        if node.exists || !node.pods.is_empty() || node.name.is_empty() {
            return;
        }
        self.index.remove(&node.name);
        self.nodes[slot] = NodeInfo::default();
        self.unused_slots.push(slot);
    }
}

/// What a pod that goes away makes possible.
const FREED: [Filter; 4] = [
    Filter::NodePorts,
    Filter::NodeResourcesFit,
    Filter::InterPodAffinity,
    Filter::PodTopologySpread,
];
/// What a pod that arrives makes possible.
const JOINED: [Filter; 2] = [Filter::InterPodAffinity, Filter::PodTopologySpread];

#[cfg(test)]
#[path = "../snapshot_test.rs"]
mod tests;
