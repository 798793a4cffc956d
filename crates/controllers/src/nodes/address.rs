//! Every node gets its own part of the pods' addresses.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use quorate_objects::kinds;
use quorate_objects::net::Ipv4Net;
use quorate_registry::{EventKind, EventType, ObjectEvent};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// Length of the prefix of a node's part.
const NODE_PREFIX: u8 = 24;

/// The controller of `spec.podCIDR`.
///
/// Invariant: no two nodes have the same part. One worker assigns them, from a cache that shows
/// all it has assigned before; the fence keeps an earlier leader from assigning more.
pub struct NodeAddresses {
    context: Arc<Context>,
    pods: Ipv4Net,
}

impl NodeAddresses {
    /// The controller; `pods`: the addresses of all pods.
    #[must_use]
    pub fn new(context: Arc<Context>, pods: Ipv4Net) -> Self {
        Self { context, pods }
    }
}

/// Pods of a hollow node have no network, and thousands of them would use all addresses up.
fn is_hollow(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get("quorate.dev/hollow")).is_some_and(|value| value == "true")
}

/// The first part of `pods` that none of `taken` is.
pub(crate) fn first_free(pods: &Ipv4Net, taken: &HashSet<String>) -> Option<String> {
    let parts = (0..).map_while(|index| pods.subnet(NODE_PREFIX, index));
    parts.map(|part| part.to_string()).find(|part| !taken.contains(part))
}

#[async_trait]
impl Controller for NodeAddresses {
    fn name(&self) -> &'static str {
        "node-addresses"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let node = event.object.as_ref().filter(|object| *object.kind == kinds::NODE);
        let exists = event.kind != EventKind::Deleted;
        node.filter(|_| exists).map(|object| key_of(object)).into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::NODE)
    }

    fn workers(&self) -> Option<usize> {
        Some(1)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let cidr = |node: &Node| {
            node.spec.as_ref().and_then(|s| s.pod_cidr.clone()).filter(|cidr| !cidr.is_empty())
        };
        let this = self.context.get::<Node>("", &key.name);
        let Some(this) = this.filter(|node| cidr(node).is_none() && !is_hollow(node)) else {
            return Ok(Requeue::Done);
        };
        let nodes = self.context.list::<Node>(None);
        let taken = nodes.iter().filter_map(|node| cidr(node)).collect();
        let Some(part) = first_free(&self.pods, &taken) else {
            let message = format!("no addresses are left in {}", self.pods);
            self.context.event(&*this, EventType::Warning, "CIDRNotAvailable", &message);
            return Err(ControllerError::Other(message));
        };
        let mut node = Node::clone(&this);
        let spec = node.spec.get_or_insert_default();
        spec.pod_cidr = Some(part.clone());
        spec.pod_cidrs = Some(vec![part]);
        self.context.update(&node).await?;
        Ok(Requeue::Done)
    }
}
