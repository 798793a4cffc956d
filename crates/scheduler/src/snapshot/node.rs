//! [`NodeInfo`]: a node, and the sums of what is placed on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use quorate_objects::pod::{Resources, is_extended};
use quorate_objects::{node, quantity};
use rustc_hash::FxHashMap;

use super::{Class, PodId, PodKey};
use crate::filter::{Filter, FilterSet};
use crate::needs::{Group, HostPort, Needs, tagged};

/// A pod for which others have been asked to leave the node. Its room is kept.
#[derive(Clone, Debug)]
pub(crate) struct Nominated {
    pub key: PodKey,
    pub class: Class,
}

/// A node, and the sum of what is placed on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: Arc<str>,
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
    /// What pods may use of extended resources.
    pub allocatable_extended: BTreeMap<String, i64>,
    /// What its pods have asked for.
    pub allocated: Resources,
    /// What its pods have asked for of extended resources.
    pub allocated_extended: BTreeMap<String, i64>,
    /// Ports taken on the node, and by whom.
    pub(crate) host_ports: Vec<(PodId, HostPort)>,
    /// How many pods of each group it has.
    pub groups: FxHashMap<Group, u32>,
    /// Images that are there already, with their size in bytes.
    pub images: BTreeMap<String, i64>,
    /// Its pods.
    pub(crate) pods: Vec<PodId>,
    /// How many of its pods have each priority.
    pub(crate) priorities: BTreeMap<i32, u32>,
    pub(crate) nominated: Vec<Nominated>,
    /// Of the name, for deciding between equals.
    pub(crate) hash: u64,
}

impl NodeInfo {
    /// What is left.
    #[must_use]
    pub fn free(&self) -> Resources {
        self.allocatable.minus(self.allocated)
    }

    /// Takes over the Node object. Returns what may be possible now that was not before.
    pub(super) fn update(&mut self, node: &Node) -> FilterSet {
        let spec = node.spec.as_ref();
        let ready = node::is_ready(node);
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        let unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or_default();
        let (allocatable, extended) = allocatable(node);
        let mut helped = FilterSet::default();
        if !self.exists {
            helped = FilterSet::all();
        }
        if self.labels != labels {
            helped |= FilterSet::from([
                Filter::NodeAffinity,
                Filter::VolumeBinding,
                Filter::PodTopologySpread,
                Filter::InterPodAffinity,
            ]);
        }
        if self.taints != taints {
            helped |= FilterSet::from([Filter::TaintToleration, Filter::PodTopologySpread]);
        }
        if self.unschedulable != unschedulable {
            helped |= FilterSet::from([Filter::NodeUnschedulable]);
        }
        if self.ready != ready {
            helped |= FilterSet::from([Filter::NodeReady]);
        }
        if self.allocatable != allocatable || self.allocatable_extended != extended {
            helped |= FilterSet::from([Filter::NodeResourcesFit]);
        }
        self.exists = true;
        self.labels = labels;
        self.taints = taints;
        self.unschedulable = unschedulable;
        self.ready = ready;
        self.allocatable = allocatable;
        self.allocatable_extended = extended;
        self.images = images(node);
        helped
    }

    /// The Node object is gone; its pods are still there.
    pub(super) fn vanish(&mut self) {
        let old = std::mem::take(self);
        *self = Self {
            name: old.name,
            hash: old.hash,
            allocated: old.allocated,
            allocated_extended: old.allocated_extended,
            host_ports: old.host_ports,
            groups: old.groups,
            pods: old.pods,
            priorities: old.priorities,
            ..Self::default()
        };
    }

    pub(super) fn add(&mut self, id: PodId, needs: &Needs) {
        self.allocated = self.allocated.plus(needs.requests);
        for (name, amount) in &needs.extended {
            *self.allocated_extended.entry(name.clone()).or_default() += amount;
        }
        self.host_ports.extend(needs.host_ports.iter().map(|port| (id, port.clone())));
        if let Some(group) = needs.group {
            *self.groups.entry(group).or_default() += 1;
        }
        *self.priorities.entry(needs.priority).or_default() += 1;
        self.pods.push(id);
    }

    pub(super) fn remove(&mut self, id: PodId, needs: &Needs) {
        self.allocated = self.allocated.minus(needs.requests);
        for (name, amount) in &needs.extended {
            if let Some(sum) = self.allocated_extended.get_mut(name) {
                *sum -= amount;
                if *sum == 0 {
                    self.allocated_extended.remove(name);
                }
            }
        }
        self.host_ports.retain(|(owner, _)| *owner != id);
        if let Some(group) = needs.group
            && let Some(count) = self.groups.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
        if let Some(count) = self.priorities.get_mut(&needs.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&needs.priority);
            }
        }
        if let Some(at) = self.pods.iter().position(|pod| *pod == id) {
            self.pods.swap_remove(at);
        }
    }
}

/// `status.allocatable`, or `status.capacity` where an entry is missing; 110 pods when neither
/// says anything (Kubernetes' default), and no limit of the disk.
fn allocatable(node: &Node) -> (Resources, BTreeMap<String, i64>) {
    const PODS_DEFAULT: i64 = 110;
    let status = node.status.as_ref();
    let lists =
        [status.and_then(|s| s.capacity.as_ref()), status.and_then(|s| s.allocatable.as_ref())];
    let find = |name: &str| lists.iter().rev().flatten().find_map(|list| list.get(name));
    let resources = Resources {
        cpu_millis: find("cpu").map_or(0, quantity::cpu_millis),
        memory_bytes: find("memory").map_or(0, quantity::bytes),
        ephemeral_bytes: find("ephemeral-storage").map_or(i64::MAX / 4, quantity::bytes),
        pods: find("pods").map_or(PODS_DEFAULT, quantity::bytes),
    };
    let extended = lists.iter().flatten().flat_map(|list| list.iter());
    let extended = extended.filter(|(name, _)| is_extended(name));
    (resources, extended.map(|(name, amount)| (name.clone(), quantity::bytes(amount))).collect())
}

fn images(node: &Node) -> BTreeMap<String, i64> {
    let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
    let named = |image: &k8s_openapi::api::core::v1::ContainerImage| {
        let size = image.size_bytes.unwrap_or_default();
        let names = image.names.clone().unwrap_or_default();
        names.into_iter().map(move |name| (tagged(&name), size))
    };
    images.flat_map(named).collect()
}
