//! From events of the cache to the snapshot and the queue.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use quorate_objects::{kinds, pod};
use quorate_registry::{EventKind, Object, ObjectEvent};
use serde::de::DeserializeOwned;

use super::follow::Follower;
use crate::filter::{Filter, FilterSet};
use crate::snapshot::PodKey;

/// More changed nodes than this at once are not looked at one by one.
const NODES_AT_ONCE: usize = 16;

/// What a few events together may have made possible.
pub(super) struct Seen {
    /// For pods that these filters refused.
    pub helped: FilterSet,
    /// On these nodes; `None`: too many to tell.
    pub nodes: Option<Vec<String>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { helped: FilterSet::default(), nodes: Some(Vec::new()) }
    }
}

impl Seen {
    fn add(&mut self, helped: FilterSet, node: &str) {
        if helped.is_empty() {
            return;
        }
        self.helped |= helped;
        if let Some(nodes) = &mut self.nodes
            && !nodes.iter().any(|known| known == node)
        {
            nodes.push(node.to_owned());
            if nodes.len() > NODES_AT_ONCE {
                self.nodes = None;
            }
        }
    }

    fn everywhere(&mut self, helped: FilterSet) {
        if !helped.is_empty() {
            self.helped |= helped;
            self.nodes = None;
        }
    }
}

impl Follower {
    /// Takes an event in.
    pub(super) fn observe(&mut self, event: &ObjectEvent, seen: &mut Seen) {
        let Some(object) = &event.object else { return };
        let deleted = event.kind == EventKind::Deleted;
        match object.kind.kind {
            "Node" if *object.kind == kinds::NODE => self.observe_node(object, deleted, seen),
            "Pod" if *object.kind == kinds::POD => {
                if let Ok(pod) = readable(object.typed::<Pod>()) {
                    self.observe_pod(pod, object.revision, deleted, seen);
                }
            }
            "Namespace" => {
                let labels = (!deleted).then(|| object.labels().clone());
                seen.everywhere(self.snapshot.set_namespace(object.name(), labels));
            }
            _ => self.observe_rest(object, deleted, seen),
        }
    }

    fn observe_node(&mut self, object: &Object, deleted: bool, seen: &mut Seen) {
        if deleted {
            seen.everywhere(self.snapshot.remove_node(object.name()));
        } else if let Ok(node) = readable(object.typed::<Node>()) {
            seen.add(self.snapshot.set_node(&node), object.name());
        }
    }

    fn observe_rest(&mut self, object: &Object, deleted: bool, seen: &mut Seen) {
        let volumes = FilterSet::from([Filter::VolumeBinding]);
        let (namespace, name) = (object.namespace(), object.name());
        match (object.kind.kind, deleted) {
            ("PodDisruptionBudget", true) => self.snapshot.budgets.remove(namespace, name),
            ("PodDisruptionBudget", false) => {
                if let Ok(budget) = readable(decoded::<PodDisruptionBudget>(object)) {
                    self.snapshot.budgets.set(&budget);
                }
            }
            ("PriorityClass", true) => self.snapshot.set_priority_class(name, None),
            ("PriorityClass", false) => {
                if let Ok(class) = readable(decoded::<PriorityClass>(object)) {
                    self.snapshot.set_priority_class(name, class.value);
                }
            }
            ("StorageClass", true) => self.snapshot.claims.set_class(name, None),
            ("StorageClass", false) => {
                if let Ok(class) = readable(decoded::<StorageClass>(object)) {
                    self.snapshot.claims.set_class(name, Some(class));
                    seen.everywhere(volumes);
                }
            }
            ("PersistentVolumeClaim", true) => {
                self.snapshot.claims.remove_claim(namespace, name);
            }
            ("PersistentVolumeClaim", false) => {
                if let Ok(claim) = readable(decoded::<PersistentVolumeClaim>(object)) {
                    self.snapshot.claims.set_claim(&claim);
                    seen.everywhere(volumes);
                }
            }
            ("PersistentVolume", true) => self.snapshot.claims.remove_volume(name),
            ("PersistentVolume", false) => {
                if let Ok(volume) = readable(decoded::<PersistentVolume>(object)) {
                    self.snapshot.claims.set_volume(&volume);
                    seen.everywhere(volumes);
                }
            }
            _ => {}
        }
    }

    fn observe_pod(&mut self, object: Arc<Pod>, revision: u64, deleted: bool, seen: &mut Seen) {
        let key = PodKey::of(&object);
        let node = pod::node_name(&object).unwrap_or_default();
        if deleted {
            self.queue.remove(&key);
            seen.add(self.snapshot.remove_pod(&key), node);
            return;
        }
        if !node.is_empty() || !self.is_ours(&object) {
            self.queue.remove(&key);
        } else {
            let class = self.snapshot.class_of(&object);
            self.queue.upsert(Arc::clone(&object), revision, class);
            self.take_over_nomination(&key, &object);
        }
        seen.add(self.snapshot.set_pod(&object), node);
    }

    /// An earlier leader has made room for the pod, or gives it to others again.
    fn take_over_nomination(&mut self, key: &PodKey, object: &Pod) {
        if self.queue.was_tried(key) {
            return;
        }
        let nominated = object.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        let class = self.snapshot.class_of(object);
        let at = nominated.filter(|node| !node.is_empty()).map(|node| (node, &class));
        self.snapshot.nominate(key, at);
    }
}

/// For kinds of which there are few: each time anew.
fn decoded<T: DeserializeOwned>(object: &Object) -> Result<T, serde_json::Error> {
    serde_json::from_slice(&object.json)
}

fn readable<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, E> {
    result.inspect_err(|error| tracing::error!("an object in the cache cannot be read: {error}"))
}
