//! [`Claims`]: on which nodes the volumes of persistent volume claims can be.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim};

use crate::filter::Reason;
use crate::needs::Needs;

/// The annotation by which the node of a claim's first pod is told to whoever makes the volume.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

#[derive(Clone, Debug, Default)]
struct Claim {
    /// The PersistentVolume that it is bound to.
    volume: Option<String>,
    /// The node chosen for it.
    node: Option<String>,
    deleting: bool,
}

/// What a claim asks of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    /// It is this one.
    Node(String),
    /// It satisfies the volume's node affinity.
    Affinity(NodeSelector),
}

/// Claims and volumes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    /// Are claims served at all? Else pods with claims are not looked at more closely.
    pub served: bool,
    claims: HashMap<(String, String), Claim>,
    volumes: HashMap<String, Option<NodeSelector>>,
    /// Claims whose node was chosen by us and is not shown by the cache yet.
    chosen: HashMap<(String, String), String>,
}

impl Claims {
    /// A claim is new or changed.
    pub fn set_claim(&mut self, object: &PersistentVolumeClaim) {
        let meta = &object.metadata;
        let key =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let filled = |text: Option<&String>| text.filter(|t| !t.is_empty()).cloned();
        let node = filled(meta.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE)));
        let volume = filled(object.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()));
        if node.is_some() || volume.is_some() {
            self.chosen.remove(&key);
        }
        self.claims
            .insert(key, Claim { volume, node, deleting: meta.deletion_timestamp.is_some() });
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
        let affinity = object.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        self.volumes.insert(name, affinity.and_then(|affinity| affinity.required.clone()));
    }

    /// A volume is gone.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// What the pod's claims ask of its node.
    ///
    /// # Errors
    /// When a claim does not exist: then no node will do.
    pub fn rules(&self, needs: &Needs) -> Result<Vec<Rule>, Reason> {
        let mut rules = Vec::new();
        if !self.served {
            return Ok(rules);
        }
        for name in &needs.claims {
            let key = (needs.namespace.clone(), name.clone());
            let claim = self.claims.get(&key).filter(|claim| !claim.deleting);
            let claim = claim.ok_or_else(|| Reason::NoClaim(name.clone()))?;
            rules.extend(claim.node.clone().map(Rule::Node));
            rules.extend(self.chosen.get(&key).cloned().map(Rule::Node));
            let volume = claim.volume.as_ref().and_then(|volume| self.volumes.get(volume));
            rules.extend(volume.cloned().flatten().map(Rule::Affinity));
        }
        Ok(rules)
    }

    /// The pod's claims that no node has been chosen for.
    pub fn without_node(&self, needs: &Needs) -> Vec<String> {
        let open = |name: &&String| {
            let key = (needs.namespace.clone(), (*name).clone());
            !self.chosen.contains_key(&key)
                && self.claims.get(&key).is_some_and(|c| c.node.is_none() && c.volume.is_none())
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
