//! Controllers of nodes: who lives, who gets which addresses, whose pods have to go.

mod address;
mod eviction;
mod lifecycle;
mod pod_gc;

pub use address::NodeAddresses;
pub use eviction::TaintEviction;
pub use lifecycle::NodeLifecycle;
pub use pod_gc::PodCollector;

use k8s_openapi::api::core::v1::Node;

/// The taint of a node that does not answer.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taint of a node that answers and says it is not ready.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node that has no network for pods.
pub(crate) const NO_NETWORK: &str = "node.kubernetes.io/network-unavailable";
/// The taint by which an administrator says that a node is off for certain.
pub(crate) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Does the node have this taint with this effect?
pub(crate) fn has_taint(node: &Node, key: &str, effect: &str) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == key && taint.effect == effect)
}
