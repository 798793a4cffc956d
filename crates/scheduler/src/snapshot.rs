//! [`ClusterSnapshot`]: nodes and what they carry, kept up to date by one change at a time.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use quorate_objects::pod::{self, Resources};
use quorate_objects::quantity;

use crate::needs::{Group, HostPort, Needs};

/// `namespace/name` of a pod, with its uid: a later pod of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl PodKey {
    /// The key of a pod.
    #[must_use]
    pub fn of(object: &Pod) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            namespace: text(&object.metadata.namespace),
            name: text(&object.metadata.name),
            uid: text(&object.metadata.uid),
        }
    }
}

/// A node, and the sum of what is placed on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// `false` while only pods name it: then nothing more may be placed on it.
    pub exists: bool,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node object.
    pub taints: Vec<Taint>,
    /// Cordoned?
    pub unschedulable: bool,
    /// Is the condition Ready true?
    pub ready: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// What its pods have asked for.
    pub allocated: Resources,
    /// Ports taken on the node.
    pub host_ports: Vec<HostPort>,
    /// How many pods of each group it has.
    pub groups: HashMap<Group, u32>,
}

impl NodeInfo {
    /// What is left.
    #[must_use]
    pub fn free(&self) -> Resources {
        self.allocatable.minus(self.allocated)
    }

    /// Takes over the Node object. Says whether something could fit now that did not before.
    fn update(&mut self, node: &Node) -> bool {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let ready = status
            .and_then(|s| s.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        let new = Self {
            name: self.name.clone(),
            exists: true,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or_default(),
            ready,
            allocatable: allocatable(node),
            allocated: self.allocated,
            host_ports: std::mem::take(&mut self.host_ports),
            groups: std::mem::take(&mut self.groups),
        };
        let same = self.exists
            && self.labels == new.labels
            && self.taints == new.taints
            && self.unschedulable == new.unschedulable
            && self.ready == new.ready
            && self.allocatable == new.allocatable;
        *self = new;
        !same
    }

    fn is_empty(&self) -> bool {
        self.allocated == Resources::default()
    }
}

/// `status.allocatable`, or `status.capacity` where an entry is missing; 110 pods when neither
/// says anything (Kubernetes' default).
fn allocatable(node: &Node) -> Resources {
    const PODS_DEFAULT: i64 = 110;
    let status = node.status.as_ref();
    let find = |name: &str| {
        let allocatable = status.and_then(|s| s.allocatable.as_ref()).and_then(|m| m.get(name));
        allocatable.or_else(|| status.and_then(|s| s.capacity.as_ref()).and_then(|m| m.get(name)))
    };
    Resources {
        cpu_millis: find("cpu").map_or(0, quantity::cpu_millis),
        memory_bytes: find("memory").map_or(0, quantity::bytes),
        pods: find("pods").map_or(PODS_DEFAULT, quantity::bytes),
    }
}

#[derive(Clone, Debug)]
struct Placed {
    node: String,
    requests: Resources,
    host_ports: Vec<HostPort>,
    group: Option<Group>,
    assumed: bool,
}

/// Nodes and placed pods, as the cache shows them, plus the scheduler's own decisions that the
/// cache does not show yet ("assumed" pods).
///
/// Invariant: a node's `allocated`, `host_ports` and `groups` are the sums over the pods placed
/// on it, each pod counted once.
#[derive(Clone, Debug, Default)]
pub struct ClusterSnapshot {
    nodes: Vec<NodeInfo>,
    index: HashMap<String, usize>,
    pods: HashMap<PodKey, Placed>,
    existing: usize,
    /// Makes ties fall differently in different clusters, and alike in a replay.
    pub seed: u64,
}

impl ClusterSnapshot {
    /// An empty one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// All nodes in no particular, but stable, order. Check [`NodeInfo::exists`].
    #[must_use]
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|slot| &self.nodes[*slot])
    }

    /// Number of Node objects.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.existing
    }

    /// Number of placed pods.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// A Node object is new or changed. Says whether pods that fitted nowhere should be tried
    /// again.
    pub fn set_node(&mut self, node: &Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let slot = self.slot(&name);
        if !self.nodes[slot].exists {
            self.existing += 1;
        }
        self.nodes[slot].update(node)
    }

    /// A Node object is gone.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.index.get(name).copied() else { return };
        if self.nodes[slot].exists {
            self.existing -= 1;
        }
        let node = &mut self.nodes[slot];
        *node = NodeInfo {
            name: node.name.clone(),
            allocated: node.allocated,
            host_ports: std::mem::take(&mut node.host_ports),
            groups: std::mem::take(&mut node.groups),
            ..NodeInfo::default()
        };
        self.drop_if_unused(slot);
    }

    /// A pod is new or changed. Says whether it freed something that another pod may need.
    pub fn set_pod(&mut self, object: &Pod) -> bool {
        let key = PodKey::of(object);
        match pod::node_name(object) {
            // What has ended takes nothing any more.
            Some(_) if pod::is_terminal(object) => self.remove_pod(&key),
            Some(node) => {
                let moved = self.pods.get(&key).is_some_and(|old| old.node != node);
                self.place(key, &Needs::of(object), node, false);
                moved
            }
            // Not bound as far as the cache knows; our own decision stands until it is refused.
            None => false,
        }
    }

    /// A pod is gone. Says whether it had taken something.
    pub fn remove_pod(&mut self, key: &PodKey) -> bool {
        let Some(placed) = self.pods.remove(key) else { return false };
        let Some(slot) = self.index.get(&placed.node).copied() else { return false };
        let node = &mut self.nodes[slot];
        node.allocated = node.allocated.minus(placed.requests);
        for port in &placed.host_ports {
            if let Some(at) = node.host_ports.iter().position(|p| p == port) {
                node.host_ports.swap_remove(at);
            }
        }
        if let Some(group) = placed.group
            && let Some(count) = node.groups.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                node.groups.remove(&group);
            }
        }
        self.drop_if_unused(slot);
        true
    }

    /// The scheduler has decided; the cache will show it later.
    pub fn assume(&mut self, key: PodKey, needs: &Needs, node: &str) {
        self.place(key, needs, node, true);
    }

    /// The decision was refused. Does nothing when the cache has shown the pod bound.
    pub fn forget(&mut self, key: &PodKey) {
        if self.pods.get(key).is_some_and(|placed| placed.assumed) {
            self.remove_pod(key);
        }
    }

    /// Is the pod placed, and does the cache show it?
    #[must_use]
    pub fn is_confirmed(&self, key: &PodKey) -> bool {
        self.pods.get(key).is_some_and(|placed| !placed.assumed)
    }

    fn place(&mut self, key: PodKey, needs: &Needs, node: &str, assumed: bool) {
        if let Some(old) = self.pods.get_mut(&key) {
            if old.node == node && old.requests == needs.requests && old.group == needs.group {
                old.assumed &= assumed;
                return;
            }
            self.remove_pod(&key);
        }
        let slot = self.slot(node);
        let info = &mut self.nodes[slot];
        info.allocated = info.allocated.plus(needs.requests);
        info.host_ports.extend(needs.host_ports.iter().cloned());
        if let Some(group) = needs.group {
            *info.groups.entry(group).or_default() += 1;
        }
        let placed = Placed {
            node: node.to_owned(),
            requests: needs.requests,
            host_ports: needs.host_ports.clone(),
            group: needs.group,
            assumed,
        };
        self.pods.insert(key, placed);
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.index.get(name) {
            return *slot;
        }
        self.nodes.push(NodeInfo { name: name.to_owned(), ..NodeInfo::default() });
        self.index.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn drop_if_unused(&mut self, slot: usize) {
        if self.nodes[slot].exists || !self.nodes[slot].is_empty() {
            return;
        }
        let gone = self.nodes.swap_remove(slot);
        self.index.remove(&gone.name);
        if let Some(moved) = self.nodes.get(slot) {
            self.index.insert(moved.name.clone(), slot);
        }
    }
}
