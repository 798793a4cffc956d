//! What several parts ask of nodes.

use k8s_openapi::api::core::v1::{Node, NodeCondition};

/// The condition that says whether a node takes part; the leader writes it.
pub const READY: &str = "Ready";
/// The condition by which an agent says that its container engine answers.
pub const RUNTIME_READY: &str = "RuntimeReady";
/// The condition by which an agent says that it has no network for pods.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// A condition by its type.
#[must_use]
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Is the condition Ready true?
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    condition(node, READY).is_some_and(|condition| condition.status == "True")
}
