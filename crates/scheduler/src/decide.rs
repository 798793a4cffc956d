//! [`decide`]: from a snapshot and a pod to a node, or to the reasons why there is none.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::filter::{self, Filter};
use crate::needs::Needs;
use crate::score::{self, NodeScore};
use crate::snapshot::{ClusterSnapshot, NodeInfo, PodKey};

/// Names of nodes that a trace keeps per filter.
const EXAMPLES: usize = 5;
/// Scores that a trace keeps, best first.
const SCORES: usize = 10;
/// Nodes that would do among which the best is chosen. In a larger cluster the search starts
/// at another node for each pod and stops here, so that a decision does not cost O(nodes).
const ENOUGH_NODES: usize = 100;

/// What one filter has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many nodes.
    pub nodes: usize,
    /// Names of a few of them.
    pub examples: Vec<String>,
}

/// How the decision came about; bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Nodes that were looked at.
    pub examined: usize,
    /// What each filter removed.
    pub removed: BTreeMap<Filter, Removed>,
    /// Points of the best nodes, best first.
    pub scores: Vec<NodeScore>,
}

/// Why no node would do: how many nodes gave each reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Number of nodes by reason.
    pub reasons: BTreeMap<String, usize>,
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Run it there.
    Node(String),
    /// Nowhere for now.
    Unschedulable(Unschedulable),
}

/// What was decided, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The decision.
    pub outcome: Outcome,
    /// How it came about.
    pub trace: Trace,
}

impl Decision {
    /// The node, when there is one.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Node(node) => Some(node),
            Outcome::Unschedulable(_) => None,
        }
    }
}

/// Decides where a pod shall run. The same snapshot, seed and pod give the same decision.
#[must_use]
pub fn decide(snapshot: &ClusterSnapshot, pod: &Pod) -> Decision {
    decide_needs(snapshot, &PodKey::of(pod), &Needs::of(pod))
}

/// [`decide`] with what the pod needs already worked out.
#[must_use]
pub fn decide_needs(snapshot: &ClusterSnapshot, key: &PodKey, needs: &Needs) -> Decision {
    let mut trace = Trace { nodes: snapshot.node_count(), ..Trace::default() };
    let mut reasons = BTreeMap::new();
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    for node in candidates(snapshot, key, needs) {
        trace.examined += 1;
        match filter::check(needs, node) {
            Ok(()) => feasible.push(node),
            Err(refusal) => {
                let removed = trace.removed.entry(refusal.filter).or_default();
                removed.nodes += 1;
                if removed.examples.len() < EXAMPLES {
                    removed.examples.push(node.name.clone());
                }
                for reason in refusal.reasons {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if feasible.len() >= ENOUGH_NODES {
            break;
        }
    }
    let outcome = match best(snapshot, key, needs, &feasible, &mut trace) {
        Some(node) => Outcome::Node(node),
        None => Outcome::Unschedulable(Unschedulable { nodes: trace.nodes, reasons }),
    };
    Decision { outcome, trace }
}

/// Every node that exists, from a start that differs from pod to pod.
fn candidates<'a>(
    snapshot: &'a ClusterSnapshot,
    key: &PodKey,
    needs: &Needs,
) -> impl Iterator<Item = &'a NodeInfo> + use<'a> {
    let nodes = snapshot.nodes();
    let named = needs.node_name.as_deref().and_then(|name| snapshot.node(name));
    let (before, after) = match nodes.len() {
        0 => (nodes, nodes),
        count => {
            let start = score::tie_break(snapshot.seed, &key.uid, "") % count as u64;
            nodes.split_at(usize::try_from(start).unwrap_or_default())
        }
    };
    // A pod that names its node needs no search (and the filters tell why, if it does not fit).
    let all = named.is_none();
    let rotated = after.iter().chain(before).filter(move |_| all);
    named.into_iter().chain(rotated).filter(|node| node.exists)
}

fn best(
    snapshot: &ClusterSnapshot,
    key: &PodKey,
    needs: &Needs,
    feasible: &[&NodeInfo],
    trace: &mut Trace,
) -> Option<String> {
    let mut ranked: Vec<(i64, u64, NodeScore)> = feasible
        .iter()
        .map(|node| {
            let points = score::score(needs, node);
            (points.total(), score::tie_break(snapshot.seed, &key.uid, &node.name), points)
        })
        .collect();
    ranked.sort_by(|a, b| (b.0, b.1, &a.2.node).cmp(&(a.0, a.1, &b.2.node)));
    let winner = ranked.first().map(|(_, _, points)| points.node.clone());
    trace.scores = ranked.into_iter().take(SCORES).map(|(_, _, points)| points).collect();
    winner
}

#[cfg(test)]
#[path = "decide_test.rs"]
mod tests;
