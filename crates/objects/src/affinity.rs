//! Which nodes a pod spec allows: node selector and required node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Do the node's name and labels satisfy the pod's node selector and its required node affinity?
#[must_use]
pub fn allows(spec: &PodSpec, node: &Node) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref().unwrap_or(&NONE);
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|selector| {
            selector.node_selector_terms.iter().any(|term| matches_term(term, name, labels))
        })
}

/// Does a node match the term? A term without requirements matches nothing.
#[must_use]
pub fn matches_term(
    term: &NodeSelectorTerm,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_label = |r: &NodeSelectorRequirement| matches(r, labels.get(&r.key).map(String::as_str));
    // metadata.name is the only field there is.
    let by_field =
        |r: &NodeSelectorRequirement| matches(r, (r.key == "metadata.name").then_some(name));
    expressions.iter().all(by_label) && fields.iter().all(by_field)
}

/// Does a value, when there is one, satisfy the requirement?
fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
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
