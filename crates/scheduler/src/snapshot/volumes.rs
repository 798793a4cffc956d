//! [`Claims`]: on which nodes the volumes of persistent volume claims can be.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use quorate_objects::storage::{self, SELECTED_NODE};

use super::PodKey;
use crate::filter::Reason;
use crate::needs::Needs;

/// What a claim asks of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    /// It is this one.
    Node(String),
    /// It satisfies the volume's node affinity.
    Affinity(NodeSelector),
    /// It satisfies that of one of the volumes that are free for the claim (`None`: any node does).
    OneOf(Vec<Option<NodeSelector>>),
}

type ClaimKey = (String, String);

/// Claims, volumes and classes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    claims: HashMap<ClaimKey, PersistentVolumeClaim>,
    volumes: HashMap<String, PersistentVolume>,
    classes: HashMap<String, StorageClass>,
    /// Claims whose node was chosen by us and is not shown by the cache yet.
    chosen: HashMap<ClaimKey, String>,
    /// The placed pods that use each claim.
    users: HashMap<ClaimKey, HashSet<PodKey>>,
}

/// The node that was chosen for a claim's volume.
fn node_of(claim: &PersistentVolumeClaim) -> Option<&String> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(SELECTED_NODE).filter(|node| !node.is_empty())
}

impl Claims {
    /// A claim is new or changed.
    pub fn set_claim(&mut self, object: &PersistentVolumeClaim) {
        let meta = &object.metadata;
        let key =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        if node_of(object).is_some() || storage::volume_of(object).is_some() {
            self.chosen.remove(&key);
        }
        self.claims.insert(key, object.clone());
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.claims.remove(&key);
        self.chosen.remove(&key);
    }

    /// A volume is new or changed.
    pub fn set_volume(&mut self, object: &PersistentVolume) {
        let name = object.metadata.name.clone().unwrap_or_default();
        self.volumes.insert(name, object.clone());
    }

    /// A volume is gone.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// A class of volumes (`None`: it is gone).
    pub fn set_class(&mut self, name: &str, class: Option<StorageClass>) {
        match class {
            Some(class) => self.classes.insert(name.to_owned(), class),
            None => self.classes.remove(name),
        };
    }

    /// A pod with such needs is placed, or no longer.
    pub fn note_user(&mut self, pod: &PodKey, needs: &Needs, placed: bool) {
        for name in &needs.claims {
            let key = (needs.namespace.clone(), name.clone());
            let users = self.users.entry(key.clone()).or_default();
            if placed {
                users.insert(pod.clone());
            } else {
                users.remove(pod);
            }
            if users.is_empty() {
                self.users.remove(&key);
            }
        }
    }

    /// What the pod's claims ask of its node.
    ///
    /// # Errors
    /// Why no node will do: a claim does not exist, cannot be provided for, is not bound although
    /// it should be by now, or is another pod's alone.
    pub fn rules(&self, pod: &PodKey, needs: &Needs) -> Result<Vec<Rule>, Reason> {
        let mut rules = Vec::new();
        for name in &needs.claims {
            let key = (needs.namespace.clone(), name.clone());
            let claim = self.claims.get(&key).filter(|c| c.metadata.deletion_timestamp.is_none());
            let missing = || Reason::Claim(format!("persistentvolumeclaim \"{name}\" not found"));
            let claim = claim.ok_or_else(missing)?;
            let others = |users: &HashSet<PodKey>| users.iter().any(|user| user != pod);
            if storage::is_for_one_pod(claim) && self.users.get(&key).is_some_and(others) {
                return Err(Reason::ClaimInUse);
            }
            rules.extend(self.of_volume(claim)?);
            if storage::volume_of(claim).is_none() {
                let chosen = node_of(claim).or_else(|| self.chosen.get(&key));
                rules.extend(chosen.cloned().map(Rule::Node));
            }
        }
        Ok(rules)
    }

    /// What the claim's volume asks, or the way in which it will come about.
    fn of_volume(&self, claim: &PersistentVolumeClaim) -> Result<Option<Rule>, Reason> {
        if let Some(name) = storage::volume_of(claim) {
            let missing = || Reason::Claim(format!("persistentvolume \"{name}\" not found"));
            let volume = self.volumes.get(name).ok_or_else(missing)?;
            return Ok(storage::node_affinity(volume).cloned().map(Rule::Affinity));
        }
        let immediate =
            || Reason::Claim("pod has unbound immediate PersistentVolumeClaims".to_owned());
        let name = storage::class_of(claim).filter(|name| !name.is_empty());
        let name = name.ok_or_else(immediate)?;
        let Some(class) = self.classes.get(name) else {
            let text = format!("storageclass.storage.k8s.io \"{name}\" not found");
            return Err(Reason::Claim(text));
        };
        if let Some(why) = storage::impossible(claim, class) {
            return Err(Reason::Claim(why));
        }
        if !storage::waits_for_pod(class) {
            return Err(immediate());
        }
        if class.provisioner != storage::NO_PROVISIONER {
            return Ok(None);
        }
        let free = |volume: &&PersistentVolume| {
            storage::suits(volume, claim) && storage::is_free_for(volume, claim)
        };
        let free = self.volumes.values().filter(free);
        let places: Vec<_> = free.map(|v| storage::node_affinity(v).cloned()).collect();
        if places.is_empty() { Err(Reason::NoVolume) } else { Ok(Some(Rule::OneOf(places))) }
    }

    /// The pod's claims that no node has been chosen for.
    pub fn without_node(&self, needs: &Needs) -> Vec<String> {
        let open = |name: &&String| {
            let key = (needs.namespace.clone(), (*name).clone());
            let unbound = |claim: &PersistentVolumeClaim| {
                node_of(claim).is_none() && storage::volume_of(claim).is_none()
            };
            !self.chosen.contains_key(&key) && self.claims.get(&key).is_some_and(unbound)
        };
        needs.claims.iter().filter(open).cloned().collect()
    }

    /// The pod goes to this node, so its claims do.
    pub fn choose(&mut self, needs: &Needs, node: &str) {
        let open: HashSet<String> = self.without_node(needs).into_iter().collect();
        for name in open {
            self.chosen.insert((needs.namespace.clone(), name), node.to_owned());
        }
    }

    /// The choice could not be written.
    pub fn forget(&mut self, needs: &Needs) {
        for name in &needs.claims {
            self.chosen.remove(&(needs.namespace.clone(), name.clone()));
        }
    }
}
