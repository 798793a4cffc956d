//! The Node object of an agent that has registered.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use quorate_objects::{kinds, node};
use quorate_proto::v1;
use quorate_registry::{Consistency, Registry, RegistryError, WriteOptions};
use quorate_store::Term;
use tonic::Status;

use crate::convert::json;
use crate::error::bad_request;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What an agent said of its node. Remembered by every master, written by the ready leader.
pub(crate) struct Registration {
    node: Node,
}

impl Registration {
    pub fn decode(register: &v1::Register) -> Result<Self, Status> {
        let value = if register.node_json.is_empty() {
            serde_json::json!({})
        } else {
            json(&register.node_json, "node_json")?
        };
        let mut node: Node = serde_json::from_slice(value.to_string().as_bytes())
            .map_err(|e| bad_request(format!("node_json is no Node: {e}")))?;
        node.metadata.name = Some(register.node_name.clone());
        Ok(Self { node })
    }

    /// Creates or updates the Node; tries until it is written or the caller drops this. The
    /// cache has everything that this term begins with.
    pub async fn write(&self, registry: &Registry, term: Term) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.write_once(registry, term).await {
                Ok(()) => return,
                Err(RegistryError::Invalid(invalid)) => {
                    // Trying again would not help; the session goes on for the node's pods.
                    tracing::error!(%invalid, "the agent describes a node that cannot be");
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot write the Node yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Is the Node as the agent says?
    pub fn is_written(&self, registry: &Registry) -> bool {
        let name = self.node.metadata.name.as_deref().unwrap_or_default();
        let Some(object) = registry.cache().get(&kinds::NODE, "", name) else { return false };
        let Ok(node) = object.typed::<Node>() else { return false };
        let labels = self.node.metadata.labels.iter().flatten();
        let none = NodeStatus::default();
        let old = node.status.as_ref().unwrap_or(&none);
        let mut labels = labels.map(|(key, value)| object.labels().get(key) == Some(value));
        labels.all(|same| same)
            && self.node.status.as_ref().is_none_or(|status| merged(old, status) == *old)
    }

    async fn write_once(&self, registry: &Registry, term: Term) -> Result<(), RegistryError> {
        let name = self.node.metadata.name.as_deref().unwrap_or_default();
        let options = WriteOptions::fenced(term);
        match registry.get(&kinds::NODE, "", name, Consistency::Linearizable).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                registry.create_typed(&self.node, &options).await?;
            }
            Err(error) => return Err(error),
        }
        let metadata = |node: &mut Node| self.merge_labels(node);
        registry.modify::<Node>(&kinds::NODE, "", name, &options, metadata).await?;
        let Some(status) = &self.node.status else { return Ok(()) };
        write_status(registry, name, status, term).await
    }

    /// The agent's labels win; labels, taints and settings that users made stay.
    fn merge_labels(&self, node: &mut Node) -> bool {
        let mut changed = false;
        for (key, value) in self.node.metadata.labels.iter().flatten() {
            let labels = node.metadata.labels.get_or_insert_default();
            changed |= labels.insert(key.clone(), value.clone()).as_ref() != Some(value);
        }
        changed
    }
}

/// Writes what an agent says of its node's status. Conditions are merged: `Ready` is the node
/// monitor's and stays as it is.
pub(crate) async fn write_status(
    registry: &Registry,
    name: &str,
    status: &NodeStatus,
    term: Term,
) -> Result<(), RegistryError> {
    let options = WriteOptions::fenced(term);
    let merge = |node: &mut Node| {
        let old = node.status.take().unwrap_or_default();
        let new = merged(&old, status);
        let changed = new != old;
        node.status = Some(new);
        changed
    };
    registry.modify_status::<Node>(&kinds::NODE, "", name, &options, merge).await?;
    Ok(())
}

fn merged(old: &NodeStatus, given: &NodeStatus) -> NodeStatus {
    let mut new = given.clone();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    for condition in given.conditions.iter().flatten().filter(|c| c.type_ != node::READY) {
        match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
            // The time of a heartbeat alone is no reason to write.
            Some(c) if c.status == condition.status && c.reason == condition.reason => {}
            Some(present) => *present = condition.clone(),
            None => conditions.push(condition.clone()),
        }
    }
    new.conditions = (!conditions.is_empty()).then_some(conditions);
    new.addresses = new.addresses.or_else(|| old.addresses.clone());
    new.capacity = new.capacity.or_else(|| old.capacity.clone());
    new.allocatable = new.allocatable.or_else(|| old.allocatable.clone());
    new.node_info = new.node_info.or_else(|| old.node_info.clone());
    new.images = new.images.or_else(|| old.images.clone());
    new.daemon_endpoints = new.daemon_endpoints.or_else(|| old.daemon_endpoints.clone());
    new
}

#[cfg(test)]
#[path = "registration_test.rs"]
mod tests;
