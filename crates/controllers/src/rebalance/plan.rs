//! Which pod to move next: pure.
//!
//! A pod is moved only when another node, which the pod allows, has at least two pods of its
//! owner fewer; or one fewer and clearly fewer pods altogether. Each move so makes the cluster
//! more even, and none can be followed by its reverse.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use quorate_objects::{affinity, pod};

/// Pods with this annotation set to `false` stay where they are.
pub(super) const ANNOTATION: &str = "quorate.dev/rebalance";
/// A node counts as clearly emptier with so many pods fewer …
const FEWER: usize = 4;
/// … and at least this share of the other's pods fewer.
const FEWER_PERCENT: usize = 25;

/// A cluster at one moment.
pub(super) struct State {
    /// Nodes that are ready, schedulable, and have been so for a while.
    pub nodes: Vec<Arc<Node>>,
    /// All pods that are bound and active.
    pub pods: Vec<Arc<Pod>>,
}

/// A pod that had better be elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub pod: Arc<Pod>,
    /// A node that is better; the scheduler decides.
    pub towards: String,
    gain: (usize, usize),
}

fn owner_of(object: &Pod) -> Option<&str> {
    pod::controller_of(&object.metadata).map(|owner| owner.uid.as_str())
}

/// Only pods that a ReplicaSet replaces, and that lose nothing by it.
fn may_move(object: &Pod) -> bool {
    let replaced = pod::controller_of(&object.metadata).is_some_and(|o| o.kind == "ReplicaSet");
    let annotations = object.metadata.annotations.as_ref();
    let wants = annotations.and_then(|a| a.get(ANNOTATION)).is_none_or(|value| value != "false");
    let mut volumes = object.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let free = volumes.all(|v| v.persistent_volume_claim.is_none() && v.host_path.is_none());
    replaced && wants && free && pod::is_ready(object)
}

fn accepts(node: &Node, object: &Pod) -> bool {
    // What it asked for itself, not what it got.
    let Some(spec) = object.spec.as_ref() else { return false };
    let spec = PodSpec { node_name: None, ..spec.clone() };
    let taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    affinity::allows(&spec, node)
        && pod::untolerated(object, &taints, &["NoSchedule", "NoExecute"]).is_none()
}

/// The moves that help, the best first; at most one per owner.
pub(super) fn moves(state: &State) -> Vec<Move> {
    let mut total: HashMap<&str, usize> = HashMap::new();
    let mut owned: HashMap<(&str, &str), usize> = HashMap::new();
    for object in &state.pods {
        let Some(node) = pod::node_name(object) else { continue };
        *total.entry(node).or_default() += 1;
        if let Some(owner) = owner_of(object) {
            *owned.entry((owner, node)).or_default() += 1;
        }
    }
    let mut best: HashMap<&str, Move> = HashMap::new();
    for object in state.pods.iter().filter(|object| may_move(object)) {
        let (Some(owner), Some(here)) = (owner_of(object), pod::node_name(object)) else {
            continue;
        };
        let mine = owned.get(&(owner, here)).copied().unwrap_or_default();
        let all = total.get(here).copied().unwrap_or_default();
        for node in &state.nodes {
            let there = node.metadata.name.as_deref().unwrap_or_default();
            let theirs = owned.get(&(owner, there)).copied().unwrap_or_default();
            let others = total.get(there).copied().unwrap_or_default();
            let (spread, load) = (mine.saturating_sub(theirs), all.saturating_sub(others));
            let emptier = load >= FEWER && load * 100 >= all * FEWER_PERCENT;
            if there == here || !(spread >= 2 || spread >= 1 && emptier) {
                continue;
            }
            let gain = (spread, load);
            let better = best.get(owner).is_none_or(|known| gain > known.gain);
            if better && accepts(node, object) {
                let pod = Arc::clone(object);
                best.insert(owner, Move { pod, towards: there.to_owned(), gain });
            }
        }
    }
    let mut moves: Vec<Move> = best.into_values().collect();
    moves.sort_by(|a, b| {
        let name = |one: &Move| one.pod.metadata.name.clone();
        b.gain.cmp(&a.gain).then_with(|| name(a).cmp(&name(b)))
    });
    moves
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
