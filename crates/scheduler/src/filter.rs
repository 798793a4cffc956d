//! Filters: may this pod run on that node? In Kubernetes' words where it refuses.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use quorate_objects::pod::tolerates;

use crate::needs::Needs;
use crate::snapshot::NodeInfo;

/// The taint of a node that does not answer, and of one that says it is not ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// A filter, by the name that `quorate why` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// `spec.unschedulable`.
    NodeUnschedulable,
    /// `spec.nodeName` of the pod.
    NodeName,
    /// Taints with NoSchedule or NoExecute.
    TaintToleration,
    /// The node's Ready condition.
    NodeReady,
    /// `nodeSelector` and required node affinity.
    NodeAffinity,
    /// Ports on the node.
    NodePorts,
    /// Processor, memory, number of pods.
    NodeResourcesFit,
}

/// A refusal: the filter, and the reasons in words (several when several resources lack).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which filter refused.
    pub filter: Filter,
    /// Why, each as Kubernetes says it behind the number of nodes.
    pub reasons: Vec<String>,
}

/// Applies all filters, cheapest first; stops at the first that refuses.
///
/// # Errors
/// The first refusal.
pub fn check(needs: &Needs, node: &NodeInfo) -> Result<(), Refusal> {
    let refuse = |filter, reason: String| Err(Refusal { filter, reasons: vec![reason] });
    if needs.node_name.as_ref().is_some_and(|name| *name != node.name) {
        return refuse(Filter::NodeName, "node(s) didn't match the requested node name".into());
    }
    if node.unschedulable && !tolerated(&needs.tolerations, &no_schedule(CORDONED)) {
        return refuse(Filter::NodeUnschedulable, "node(s) were unschedulable".into());
    }
    if let Some(taint) = untolerated(&needs.tolerations, &node.taints) {
        let value = taint.value.as_deref().unwrap_or_default();
        return refuse(
            Filter::TaintToleration,
            format!("node(s) had untolerated taint {{{}: {value}}}", taint.key),
        );
    }
    if !node.ready && !tolerated(&needs.tolerations, &no_schedule(NOT_READY)) {
        return refuse(Filter::NodeReady, "node(s) were not ready".into());
    }
    if !matches_affinity(needs, node) {
        return refuse(
            Filter::NodeAffinity,
            "node(s) didn't match Pod's node affinity/selector".into(),
        );
    }
    let taken = |port: &_| node.host_ports.iter().any(|other| other.clashes(port));
    if needs.host_ports.iter().any(taken) {
        return refuse(
            Filter::NodePorts,
            "node(s) didn't have free ports for the requested pod ports".into(),
        );
    }
    fits(needs, node)
}

fn fits(needs: &Needs, node: &NodeInfo) -> Result<(), Refusal> {
    let free = node.free();
    let mut reasons = Vec::new();
    if needs.requests.pods > free.pods {
        reasons.push("Too many pods".to_owned());
    }
    // A pod that asks for nothing fits even on a node that is full.
    if needs.requests.cpu_millis > 0 && needs.requests.cpu_millis > free.cpu_millis {
        reasons.push("Insufficient cpu".to_owned());
    }
    if needs.requests.memory_bytes > 0 && needs.requests.memory_bytes > free.memory_bytes {
        reasons.push("Insufficient memory".to_owned());
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Refusal { filter: Filter::NodeResourcesFit, reasons })
}

fn no_schedule(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn untolerated<'a>(tolerations: &[Toleration], taints: &'a [Taint]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerated(tolerations, taint))
}

fn matches_affinity(needs: &Needs, node: &NodeInfo) -> bool {
    let selected =
        needs.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = needs.required.as_ref().is_none_or(|selector| {
        selector.node_selector_terms.iter().any(|term| matches_term(term, node))
    });
    selected && required
}

/// Does the node match the term? A term without requirements matches nothing.
pub(crate) fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_label = |r: &NodeSelectorRequirement| {
        matches_requirement(r, node.labels.get(&r.key).map(String::as_str))
    };
    // metadata.name is the only field there is.
    let by_field = |r: &NodeSelectorRequirement| {
        matches_requirement(r, (r.key == "metadata.name").then_some(node.name.as_str()))
    };
    expressions.iter().all(by_label) && fields.iter().all(by_field)
}

fn matches_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    let compare = |greater: bool| {
        let bound = values.first().and_then(|v| v.parse::<i64>().ok());
        let number = value.and_then(|v| v.parse::<i64>().ok());
        match (number, bound) {
            (Some(number), Some(bound)) if greater => number > bound,
            (Some(number), Some(bound)) => number < bound,
            _ => false,
        }
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;
