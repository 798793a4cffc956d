//! What the node shall run: the newest word of a leader, kept on disk so that the node
//! carries on without masters and after its own restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quorate_proto::v1;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::identity::replace;
use crate::pods::env::Lookup;

/// Namespace and name.
pub type Key = (String, String);

/// What a message changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Change {
    /// Pods came, changed or went.
    pub pods: bool,
    /// What pods refer to changed: ConfigMaps, Secrets, claims.
    pub configs: bool,
    /// PersistentVolumes changed.
    pub volumes: bool,
    /// Services or EndpointSlices changed.
    pub services: bool,
    /// The node's own object changed.
    pub node: bool,
}

/// One object, as it came and as we use it.
#[derive(Debug, Clone)]
struct Held<T> {
    typed: Arc<T>,
    raw: Value,
}

/// All objects that concern the node.
#[derive(Debug, Default, Clone)]
pub struct Assignments {
    term: u64,
    revision: u64,
    pods: BTreeMap<Key, Held<Pod>>,
    node: Option<Held<Node>>,
    services: BTreeMap<Key, Held<Service>>,
    slices: BTreeMap<Key, Held<EndpointSlice>>,
    config_maps: BTreeMap<Key, Held<ConfigMap>>,
    secrets: BTreeMap<Key, Held<Secret>>,
    claims: BTreeMap<Key, Held<PersistentVolumeClaim>>,
    volumes: BTreeMap<Key, Held<PersistentVolume>>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Stored {
    term: u64,
    revision: u64,
    objects: Vec<Value>,
}

/// The message is of an older term than one that was heard already.
#[derive(Debug, PartialEq, Eq)]
pub struct Stale {
    /// Of the message.
    pub term: u64,
    /// The newest heard.
    pub newest: u64,
}

impl Assignments {
    /// Reads what the last run kept; empty when there is nothing.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn load(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        let stored: Stored = serde_json::from_slice(&text)?;
        let mut all = Self { term: stored.term, revision: stored.revision, ..Default::default() };
        for object in stored.objects {
            all.put(object, &mut Change::default());
        }
        Ok(all)
    }

    /// Writes everything down. Slow: the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let stored = Stored {
            term: self.term,
            revision: self.revision,
            objects: self.raw().cloned().collect(),
        };
        replace(path, &serde_json::to_vec(&stored)?)
    }

    /// Takes a leader's message.
    ///
    /// # Errors
    /// When its term is older than the newest heard; nothing changes then.
    pub fn apply(&mut self, message: v1::Assignments) -> Result<Change, Stale> {
        if message.term < self.term {
            return Err(Stale { term: message.term, newest: self.term });
        }
        self.term = message.term;
        self.revision = message.revision;
        let mut change = Change::default();
        let keep: Option<BTreeSet<(String, Key)>> = message.full.then(|| {
            let kind = |o: &v1::Object| o.kind.as_ref().map(|k| k.kind.clone());
            message
                .set
                .iter()
                .map(|o| (kind(o).unwrap_or_default(), (o.namespace.clone(), o.name.clone())))
                .collect()
        });
        if let Some(keep) = keep {
            self.retain(&keep, &mut change);
        }
        for key in message.removed {
            self.remove(&key, &mut change);
        }
        for object in message.set {
            match serde_json::from_slice(&object.json) {
                Ok(value) => self.put(value, &mut change),
                Err(error) => warn!(%error, name = object.name, "an object is not JSON"),
            }
        }
        Ok(change)
    }

    /// What is held now. From here on, what a leader of an older term says counts no more: it
    /// would not be known to whoever hears this.
    ///
    /// # Errors
    /// When the term is older than the newest heard.
    pub fn hold(&mut self, term: u64) -> Result<v1::Holding, Stale> {
        if term < self.term {
            return Err(Stale { term, newest: self.term });
        }
        self.term = term;
        Ok(v1::Holding { term, objects: self.raw().map(held).collect() })
    }

    /// All objects as they came.
    fn raw(&self) -> impl Iterator<Item = &Value> {
        fn each<T>(map: &BTreeMap<Key, Held<T>>) -> impl Iterator<Item = &Value> {
            map.values().map(|held| &held.raw)
        }
        each(&self.pods)
            .chain(self.node.iter().map(|held| &held.raw))
            .chain(each(&self.services))
            .chain(each(&self.slices))
            .chain(each(&self.config_maps))
            .chain(each(&self.secrets))
            .chain(each(&self.claims))
            .chain(each(&self.volumes))
    }

    fn retain(&mut self, keep: &BTreeSet<(String, Key)>, change: &mut Change) {
        fn one<T>(
            map: &mut BTreeMap<Key, Held<T>>,
            kind: &str,
            keep: &BTreeSet<(String, Key)>,
        ) -> bool {
            let before = map.len();
            map.retain(|key, _| keep.contains(&(kind.to_owned(), key.clone())));
            map.len() != before
        }
        change.pods |= one(&mut self.pods, "Pod", keep);
        change.services |= one(&mut self.services, "Service", keep);
        change.services |= one(&mut self.slices, "EndpointSlice", keep);
        change.configs |= one(&mut self.config_maps, "ConfigMap", keep);
        change.configs |= one(&mut self.secrets, "Secret", keep);
        change.configs |= one(&mut self.claims, "PersistentVolumeClaim", keep);
        change.volumes |= one(&mut self.volumes, "PersistentVolume", keep);
    }

    fn remove(&mut self, removed: &v1::ObjectKey, change: &mut Change) {
        let key = (removed.namespace.clone(), removed.name.clone());
        let kind = removed.kind.as_ref().map(|k| k.kind.as_str()).unwrap_or_default();
        match kind {
            "Pod" => {
                // A pod of the same name may have followed already.
                let same = self.pods.get(&key).is_some_and(|held| {
                    removed.uid.is_empty() || held.typed.metadata.uid.as_ref() == Some(&removed.uid)
                });
                change.pods |= same && self.pods.remove(&key).is_some();
            }
            "Service" => change.services |= self.services.remove(&key).is_some(),
            "EndpointSlice" => change.services |= self.slices.remove(&key).is_some(),
            "ConfigMap" => change.configs |= self.config_maps.remove(&key).is_some(),
            "Secret" => change.configs |= self.secrets.remove(&key).is_some(),
            "PersistentVolumeClaim" => change.configs |= self.claims.remove(&key).is_some(),
            "PersistentVolume" => change.volumes |= self.volumes.remove(&key).is_some(),
            _ => {}
        }
    }

    fn put(&mut self, raw: Value, change: &mut Change) {
        fn hold<T: DeserializeOwned>(raw: Value) -> Option<(Key, Held<T>)> {
            let text = |field: &str| {
                raw["metadata"][field].as_str().map(str::to_owned).unwrap_or_default()
            };
            let key = (text("namespace"), text("name"));
            match T::deserialize(&raw) {
                Ok(typed) => Some((key, Held { typed: Arc::new(typed), raw })),
                Err(error) => {
                    warn!(%error, name = key.1, "cannot read an object from the leader");
                    None
                }
            }
        }
        fn insert<T: DeserializeOwned>(
            map: &mut BTreeMap<Key, Held<T>>,
            raw: Value,
            flag: &mut bool,
        ) {
            let Some((key, held)) = hold(raw) else { return };
            if map.get(&key).is_some_and(|present| present.raw == held.raw) {
                return;
            }
            *flag = true;
            map.insert(key, held);
        }
        match raw["kind"].as_str().unwrap_or_default() {
            "Pod" => insert(&mut self.pods, raw, &mut change.pods),
            "Service" => insert(&mut self.services, raw, &mut change.services),
            "EndpointSlice" => insert(&mut self.slices, raw, &mut change.services),
            "ConfigMap" => insert(&mut self.config_maps, raw, &mut change.configs),
            "Secret" => insert(&mut self.secrets, raw, &mut change.configs),
            "PersistentVolumeClaim" => insert(&mut self.claims, raw, &mut change.configs),
            "PersistentVolume" => insert(&mut self.volumes, raw, &mut change.volumes),
            "Node" => {
                if let Some((_, held)) = hold(raw) {
                    change.node = true;
                    self.node = Some(held);
                }
            }
            // A newer master may send what we do not know.
            _ => {}
        }
    }

    /// The newest term heard.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values().map(|held| &held.typed)
    }

    /// One pod.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.pods.get(&key).map(|held| held.typed.clone())
    }

    /// The range from which the node's pods get addresses, once the cluster has given one.
    #[must_use]
    pub fn pod_cidr(&self) -> Option<String> {
        let spec = self.node.as_ref()?.typed.spec.as_ref()?;
        spec.pod_cidr.clone().filter(|cidr| !cidr.is_empty())
    }

    /// The services.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        self.services.values().map(|held| held.typed.clone()).collect()
    }

    /// The persistent volumes of the node's pods, and those whose data it is to remove.
    #[must_use]
    pub fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.values().map(|held| held.typed.clone()).collect()
    }

    /// The endpoint slices.
    #[must_use]
    pub fn slices(&self) -> Vec<Arc<EndpointSlice>> {
        self.slices.values().map(|held| held.typed.clone()).collect()
    }
}

fn held(raw: &Value) -> v1::Held {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &raw["metadata"];
    v1::Held {
        kind: Some(v1::KindRef { api_version: text(&raw["apiVersion"]), kind: text(&raw["kind"]) }),
        namespace: text(&meta["namespace"]),
        name: text(&meta["name"]),
        uid: text(&meta["uid"]),
        revision: text(&meta["resourceVersion"]).parse().unwrap_or_default(),
    }
}

/// Assignments that several tasks read; the lock is held for a look-up only.
pub type Shared = Arc<parking_lot::RwLock<Assignments>>;

/// Look-ups in what all tasks share.
pub struct SharedLookup(pub Shared);

impl Lookup for SharedLookup {
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.read().config_maps.get(&key).map(|held| held.typed.as_ref().clone())
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.read().secrets.get(&key).map(|held| held.typed.as_ref().clone())
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.read().claims.get(&key).map(|held| held.typed.clone())
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        let key = (String::new(), name.to_owned());
        self.0.read().volumes.get(&key).map(|held| held.typed.clone())
    }

    fn services(&self, namespace: &str) -> Vec<Service> {
        let all = self.0.read();
        let own = all.services.iter().filter(|((ns, _), _)| ns == namespace);
        own.map(|(_, held)| held.typed.as_ref().clone()).collect()
    }
}

#[cfg(test)]
#[path = "assignments_test.rs"]
mod tests;
