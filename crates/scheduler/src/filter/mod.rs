//! Filters: may this pod run on that node? In Kubernetes' words where it refuses.

mod pods;
mod reason;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorTerm, Taint, Toleration};
use quorate_objects::affinity;
use quorate_objects::pod::{Resources, tolerates};

pub(crate) use self::pods::{PodRules, staying};
pub use self::reason::{Filter, FilterSet, Lack, Reason};
use crate::needs::Needs;
use crate::snapshot::{ClusterSnapshot, NodeInfo, PodId, PodKey, Rule};

/// The taint of a node that does not answer, and of one that says it is not ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// A node, as it would be without some of its pods.
#[derive(Clone, Copy)]
pub(crate) struct NodeView<'a> {
    pub snapshot: &'a ClusterSnapshot,
    pub slot: usize,
    pub without: &'a [PodId],
}

impl<'a> NodeView<'a> {
    /// The node as it is.
    pub fn of(snapshot: &'a ClusterSnapshot, slot: usize) -> Self {
        Self { snapshot, slot, without: &[] }
    }

    pub fn node(&self) -> &'a NodeInfo {
        &self.snapshot.nodes()[self.slot]
    }

    /// The needs of the pods that are not there.
    fn gone(&self) -> impl Iterator<Item = &'a Needs> + use<'a> {
        let snapshot = self.snapshot;
        self.without.iter().filter_map(|id| snapshot.pod(*id)).map(|pod| pod.class.needs())
    }

    /// The needs of pods for which others leave the node, and that go before a pod like this.
    fn nominated<'b>(
        &self,
        needs: &'b Needs,
        own: Option<&'b PodKey>,
    ) -> impl Iterator<Item = &'a Needs> + use<'a, 'b> {
        let nominated = self.node().nominated.iter();
        nominated
            .filter(move |n| n.class.needs().priority >= needs.priority && Some(&n.key) != own)
            .map(|n| n.class.needs())
    }

    fn free(&self, needs: &Needs, own: Option<&PodKey>) -> Resources {
        let kept = self.node().free();
        let kept = self.nominated(needs, own).fold(kept, |free, n| free.minus(n.requests));
        self.gone().fold(kept, |free, n| free.plus(n.requests))
    }

    fn free_extended(&self, name: &str, needs: &Needs, own: Option<&PodKey>) -> i64 {
        let node = self.node();
        let of = |list: &std::collections::BTreeMap<String, i64>| {
            list.get(name).copied().unwrap_or_default()
        };
        let kept: i64 = self.nominated(needs, own).map(|n| of(&n.extended)).sum();
        let back: i64 = self.gone().map(|n| of(&n.extended)).sum();
        of(&node.allocatable_extended) - of(&node.allocated_extended) - kept + back
    }
}

/// Applies all filters that look at this node only, cheapest first; stops at the first that
/// refuses. `own` is the pod whose own nomination does not count.
///
/// # Errors
/// The first refusal.
pub(crate) fn check(needs: &Needs, view: NodeView<'_>, own: Option<&PodKey>) -> Result<(), Reason> {
    let node = view.node();
    if needs.node_name.as_deref().is_some_and(|name| *name != *node.name) {
        return Err(Reason::NodeName);
    }
    if node.unschedulable && !tolerated(&needs.tolerations, &no_schedule(CORDONED)) {
        return Err(Reason::Unschedulable);
    }
    if let Some(taint) = untolerated(&needs.tolerations, &node.taints) {
        let value = taint.value.clone().unwrap_or_default();
        return Err(Reason::Taint { key: taint.key.clone(), value });
    }
    if !node.ready && !tolerated(&needs.tolerations, &no_schedule(NOT_READY)) {
        return Err(Reason::NotReady);
    }
    if !matches_affinity(needs, node) {
        return Err(Reason::NodeAffinity);
    }
    if !needs.host_ports.is_empty() && !ports_free(needs, view, own) {
        return Err(Reason::Ports);
    }
    fits(needs, view, own)
}

/// May the pod's volumes be on the node?
pub(crate) fn check_volumes(rules: &[Rule], node: &NodeInfo) -> Result<(), Reason> {
    let possible = |rule: &Rule| match rule {
        Rule::Node(name) => **name == *node.name,
        Rule::Affinity(selector) => matches_selector(selector, node),
        Rule::OneOf(volumes) => volumes
            .iter()
            .any(|place| place.as_ref().is_none_or(|selector| matches_selector(selector, node))),
    };
    match rules.iter().find(|rule| !possible(rule)) {
        None => Ok(()),
        Some(Rule::OneOf(_)) => Err(Reason::NoVolume),
        Some(_) => Err(Reason::VolumeAffinity),
    }
}

fn ports_free(needs: &Needs, view: NodeView<'_>, own: Option<&PodKey>) -> bool {
    let there = view.node().host_ports.iter();
    let there = there.filter(|(owner, _)| !view.without.contains(owner)).map(|(_, port)| port);
    let kept = view.nominated(needs, own).flat_map(|n| &n.host_ports);
    there.chain(kept).all(|taken| !needs.host_ports.iter().any(|port| taken.clashes(port)))
}

fn fits(needs: &Needs, view: NodeView<'_>, own: Option<&PodKey>) -> Result<(), Reason> {
    let free = view.free(needs, own);
    let wanted = needs.requests;
    // A pod that asks for nothing fits even on a node that is full.
    let lacks = |wanted: i64, free: i64| wanted > 0 && wanted > free;
    let extended = needs.extended.iter();
    let lack = Lack {
        pods: wanted.pods > free.pods,
        cpu: lacks(wanted.cpu_millis, free.cpu_millis),
        memory: lacks(wanted.memory_bytes, free.memory_bytes),
        ephemeral: lacks(wanted.ephemeral_bytes, free.ephemeral_bytes),
        extended: extended
            .filter(|(name, amount)| lacks(**amount, view.free_extended(name, needs, own)))
            .map(|(name, _)| name.clone())
            .collect(),
    };
    if lack == Lack::default() { Ok(()) } else { Err(Reason::Resources(lack)) }
}

fn no_schedule(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint that keeps such pods away.
pub(crate) fn untolerated<'a>(
    tolerations: &[Toleration],
    taints: &'a [Taint],
) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerated(tolerations, taint))
}

/// Does the node satisfy node selector and required node affinity?
pub(crate) fn matches_affinity(needs: &Needs, node: &NodeInfo) -> bool {
    let selected =
        needs.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    selected && needs.required.as_ref().is_none_or(|selector| matches_selector(selector, node))
}

fn matches_selector(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node))
}

/// Does the node match the term?
pub(crate) fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    affinity::matches_term(term, &node.name, &node.labels)
}

#[cfg(test)]
#[path = "../filter_test.rs"]
mod tests;
