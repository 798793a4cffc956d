//! [`decide`]: from a snapshot and a pod to a node, or to the reasons why there is none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::filter::{self, Filter, FilterSet, NodeView, PodRules, Reason};
use crate::needs::Needs;
use crate::preempt::{self, Preemption};
use crate::score::{self, NodeScore, Weights};
use crate::snapshot::{Class, ClusterSnapshot, Memory, PodKey, Rule};

/// Names of nodes that a trace keeps per filter.
const EXAMPLES: usize = 5;
/// Scores that a trace keeps, best first.
const SCORES: usize = 10;

/// By what is decided; the same on all masters.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Decides ties, and where the search begins.
    pub seed: u64,
    /// How much each part of a score counts.
    pub weights: Weights,
    /// Nodes that would do among which the best is chosen. In a larger cluster the search starts
    /// at another node for each pod and stops here, so that a decision does not cost O(nodes).
    pub enough_nodes: usize,
    /// Nodes that are thought through for a preemption.
    pub preemption_candidates: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { seed: 0, weights: Weights::default(), enough_nodes: 100, preemption_candidates: 100 }
    }
}

/// What one filter has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many nodes.
    pub nodes: usize,
    /// Names of a few of them.
    pub examples: Vec<Arc<str>>,
}

/// How the decision came about; bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Nodes that were looked at.
    pub examined: usize,
    /// Nodes that would do.
    pub feasible: usize,
    /// What each filter removed.
    pub removed: BTreeMap<Filter, Removed>,
    /// Number of removed nodes by reason, in words.
    pub reasons: BTreeMap<String, usize>,
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
    /// Pods that are to leave so that the pod fits later.
    pub preemption: Option<Preemption>,
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

    /// The filters that refused nodes.
    #[must_use]
    pub fn refused_by(&self) -> FilterSet {
        let filters = self.trace.removed.keys();
        filters.fold(FilterSet::default(), |set, filter| set | FilterSet::from([*filter]))
    }
}

/// Decides where a pod shall run. The same snapshot, policy and pod give the same decision. (The
/// snapshot is changed only in what it remembers of earlier decisions.)
pub fn decide(snapshot: &mut ClusterSnapshot, policy: &Policy, pod: &Pod) -> Decision {
    let class = snapshot.class_of(pod);
    decide_class(snapshot, policy, &PodKey::of(pod), &class)
}

/// [`decide`] with what the pod needs already worked out.
pub fn decide_class(
    snapshot: &mut ClusterSnapshot,
    policy: &Policy,
    key: &PodKey,
    class: &Class,
) -> Decision {
    let mut memory = snapshot.topology_mut().take_memory(class);
    let decision = Search::new(snapshot, policy, key, class, &mut memory).run();
    snapshot.topology_mut().put_memory(class, memory);
    decision
}

/// Why a node will not do.
enum Refused {
    /// By the number of the remembered reason.
    Known(usize),
    Other(Reason),
}

/// A decision in the making.
struct Search<'a> {
    snapshot: &'a ClusterSnapshot,
    policy: &'a Policy,
    key: &'a PodKey,
    class: &'a Class,
    memory: &'a mut Memory,
    rules: PodRules<'a>,
    volumes: Result<Vec<Rule>, Reason>,
    ticket: u64,
    /// Nodes by the number of the reason that is remembered.
    known: Vec<Removed>,
    /// Nodes by reasons that are not: those that depend on other nodes.
    refused: Vec<(Reason, Removed)>,
    /// Nodes that could do if pods left them.
    preemptible: Option<Vec<usize>>,
    trace: Trace,
}

impl<'a> Search<'a> {
    fn new(
        snapshot: &'a ClusterSnapshot,
        policy: &'a Policy,
        key: &'a PodKey,
        class: &'a Class,
        memory: &'a mut Memory,
    ) -> Self {
        let needs = class.needs();
        memory.make_room();
        let lower = snapshot.lowest_priority().is_some_and(|lowest| lowest < needs.priority);
        Self {
            snapshot,
            policy,
            key,
            class,
            rules: PodRules::new(snapshot, class, memory),
            memory,
            volumes: snapshot.claims.rules(key, needs),
            ticket: score::ticket(policy.seed, &key.uid),
            known: Vec::new(),
            refused: Vec::new(),
            preemptible: (lower && !needs.never_preempts).then(Vec::new),
            trace: Trace { nodes: snapshot.node_count(), ..Trace::default() },
        }
    }

    fn run(mut self) -> Decision {
        let feasible = match self.snapshot.nomination(self.key) {
            // Others have left this node for the pod.
            Some(slot) if self.judge(slot).is_ok() => vec![slot],
            _ => self.search(),
        };
        self.trace.feasible = feasible.len();
        let mut refused = std::mem::take(&mut self.refused);
        let known = std::mem::take(&mut self.known).into_iter().enumerate();
        refused.extend(
            known.filter(|(_, removed)| removed.nodes > 0).filter_map(|(number, removed)| {
                Some((self.memory.reason(number)?.clone(), removed))
            }),
        );
        for (reason, removed) in refused {
            for words in reason.words() {
                *self.trace.reasons.entry(words).or_default() += removed.nodes;
            }
            let of_filter = self.trace.removed.entry(reason.filter()).or_default();
            of_filter.nodes += removed.nodes;
            let room = EXAMPLES.saturating_sub(of_filter.examples.len());
            of_filter.examples.extend(removed.examples.into_iter().take(room));
        }
        let best = self.best(&feasible);
        let (outcome, preemption) = match best {
            Some(node) => (Outcome::Node(node), None),
            None => {
                let reasons = self.trace.reasons.clone();
                let why = Unschedulable { nodes: self.trace.nodes, reasons };
                (Outcome::Unschedulable(why), self.preempt())
            }
        };
        Decision { outcome, preemption, trace: self.trace }
    }

    /// Looks for nodes that would do.
    fn search(&mut self) -> Vec<usize> {
        let snapshot = self.snapshot;
        let mut feasible = Vec::new();
        for slot in candidates(snapshot, self.class.needs(), self.ticket) {
            if let Some(number) = self.memory.refusal(slot, snapshot.changed(slot)) {
                self.trace.examined += 1;
                self.refuse(slot, Refused::Known(number));
                continue;
            }
            if !snapshot.nodes()[slot].exists {
                continue;
            }
            self.trace.examined += 1;
            match self.judge(slot) {
                Ok(()) => feasible.push(slot),
                Err(refused) => self.refuse(slot, refused),
            }
            if feasible.len() >= self.policy.enough_nodes.max(1) {
                break;
            }
        }
        feasible
    }

    fn judge(&mut self, slot: usize) -> Result<(), Refused> {
        let view = NodeView::of(self.snapshot, slot);
        if let Err(reason) = filter::check(self.class.needs(), view, Some(self.key)) {
            // What holds for this pod holds for all of its class: only its own nomination is
            // left out, and that node is tried without regard to what is remembered.
            let remembered = self.memory.refuse(slot, self.snapshot.changed(slot), reason);
            return Err(remembered.map_or_else(Refused::Other, Refused::Known));
        }
        match &self.volumes {
            Ok(rules) => filter::check_volumes(rules, view.node()).map_err(Refused::Other)?,
            Err(reason) => return Err(Refused::Other(reason.clone())),
        }
        self.rules.check(view).map_err(Refused::Other)
    }

    /// Counts a refusal.
    fn refuse(&mut self, slot: usize, refused: Refused) {
        let (removed, preemptible) = match refused {
            Refused::Known(number) => {
                if self.known.len() <= number {
                    self.known.resize_with(number + 1, Removed::default);
                }
                let reason = self.memory.reason(number);
                (&mut self.known[number], reason.is_some_and(Reason::may_be_preempted))
            }
            Refused::Other(reason) => {
                let preemptible = reason.may_be_preempted();
                let at = self.refused.iter().position(|(known, _)| *known == reason);
                let at = at.unwrap_or_else(|| {
                    self.refused.push((reason, Removed::default()));
                    self.refused.len() - 1
                });
                (&mut self.refused[at].1, preemptible)
            }
        };
        removed.nodes += 1;
        if removed.examples.len() < EXAMPLES {
            removed.examples.push(Arc::clone(&self.snapshot.nodes()[slot].name));
        }
        if preemptible && let Some(slots) = &mut self.preemptible {
            slots.push(slot);
        }
    }

    fn best(&mut self, feasible: &[usize]) -> Option<String> {
        let scores = score::score(self.snapshot, self.class, &self.policy.weights, feasible);
        let mut ranked: Vec<(i64, u64, NodeScore)> = feasible
            .iter()
            .zip(scores)
            .map(|(slot, points)| {
                let hash = self.snapshot.nodes()[*slot].hash;
                (points.total(), score::tie_break(self.ticket, hash), points)
            })
            .collect();
        let order = |a: &(i64, u64, NodeScore), b: &(i64, u64, NodeScore)| {
            (b.0, b.1, &a.2.node).cmp(&(a.0, a.1, &b.2.node))
        };
        if ranked.len() > SCORES {
            ranked.select_nth_unstable_by(SCORES, order);
            ranked.truncate(SCORES);
        }
        ranked.sort_by(order);
        self.trace.scores = ranked.into_iter().map(|(_, _, points)| points).collect();
        // Made in the place of `ranked`, with room for all nodes; and it is kept.
        self.trace.scores.shrink_to_fit();
        self.trace.scores.first().map(|points| points.node.to_string())
    }

    fn preempt(&self) -> Option<Preemption> {
        let volumes = self.volumes.as_ref().ok()?;
        let attempt = preempt::Attempt {
            snapshot: self.snapshot,
            key: self.key,
            class: self.class,
            rules: &self.rules,
            volumes,
            ticket: self.ticket,
        };
        attempt.run(self.preemptible.as_ref()?, self.policy.preemption_candidates)
    }
}

/// The slots of nodes in the order in which they are tried: from a start that differs from pod to
/// pod, in steps so wide that neighbours (which are often alike: one zone, one size) do not follow
/// each other. A pod that names nodes is tried on those only (and the filters tell why, if it does
/// not fit).
fn candidates(
    snapshot: &ClusterSnapshot,
    needs: &Needs,
    ticket: u64,
) -> impl Iterator<Item = usize> {
    let named = match &needs.node_name {
        Some(name) => Some(vec![name.as_str()]),
        None => needs.named_nodes(),
    };
    let named: Option<Vec<usize>> =
        named.map(|names| names.into_iter().filter_map(|name| snapshot.slot_of(name)).collect());
    // When none of them is there, all nodes tell so.
    let named = named.filter(|slots| !slots.is_empty());
    let count = if named.is_none() { snapshot.nodes().len() } else { 0 };
    let start = usize::try_from(ticket % (count.max(1) as u64)).unwrap_or_default();
    let step = stride(count);
    let next = move |slot: &usize| {
        let next = slot + step;
        Some(if next >= count { next - count } else { next })
    };
    let all = std::iter::successors(Some(start), next).take(count);
    named.into_iter().flatten().chain(all)
}

/// A step that visits every one of `count` places, and that is far from every simple fraction
/// of it (the golden section).
fn stride(count: usize) -> usize {
    let mut step = (count * 618 / 1_000).max(1);
    while greatest_common_divisor(step, count) > 1 {
        step += 1;
    }
    step
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
#[path = "decide_test.rs"]
mod tests;
