//! What a pod asks of the cluster, worked out once per pod and not once per pod and node.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, Pod, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use quorate_objects::pod::{self, Resources};
use quorate_objects::{Selector, storage};

/// A port that a pod takes on its node's own addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The port.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// One address of the node, or all of them (`0.0.0.0`).
    pub ip: String,
}

impl HostPort {
    /// Can both be on one node?
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// Pods that are to be spread over nodes share a group: those of one controller, or, for pods
/// without one, those with the same labels in the same namespace.
pub type Group = u64;

/// Some pods, counted per value of a label of their nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodTerm {
    /// Pods of these namespaces …
    pub namespaces: BTreeSet<String>,
    /// … and of namespaces with these labels …
    pub namespace_selector: Option<Selector>,
    /// … that have these labels.
    pub selector: Selector,
    /// The label of nodes.
    pub topology_key: String,
}

impl PodTerm {
    /// Does it mean pods with these labels, in this namespace with its labels?
    #[must_use]
    pub fn matches(
        &self,
        namespace: &str,
        namespace_labels: Option<&BTreeMap<String, String>>,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let here = self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                selector.is_everything() || selector.matches_labels(namespace_labels)
            });
        here && self.selector.matches(labels)
    }
}

/// One of `topologySpreadConstraints`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// The pods to be spread, and the label of nodes over whose values.
    pub term: Arc<PodTerm>,
    /// The number of pods in a domain may be this much above the smallest.
    pub max_skew: i64,
    /// `DoNotSchedule`; else it is a wish.
    pub required: bool,
    /// With fewer domains than this the smallest number counts as 0.
    pub min_domains: Option<usize>,
    /// Only domains of nodes that the pod's node affinity allows count.
    pub honor_affinity: bool,
    /// Only domains of nodes whose taints the pod tolerates count.
    pub honor_taints: bool,
}

/// What a pod asks of the cluster. Pods of one owner have the same needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// The pod's namespace, for the terms of others.
    pub namespace: String,
    /// The pod's labels, for the terms of others.
    pub labels: BTreeMap<String, String>,
    /// Processor, memory, disk, one pod.
    pub requests: Resources,
    /// Extended resources.
    pub extended: BTreeMap<String, i64>,
    /// Ports on the node.
    pub host_ports: Vec<HostPort>,
    /// `spec.nodeName`, when the user has chosen.
    pub node_name: Option<String>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity.
    pub required: Option<NodeSelector>,
    /// Preferred node affinity.
    pub preferred: Vec<PreferredSchedulingTerm>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Required pod affinity.
    pub affinity: Vec<Arc<PodTerm>>,
    /// Required pod anti-affinity.
    pub anti_affinity: Vec<Arc<PodTerm>>,
    /// Preferred pod affinity with its weight; anti-affinity has negative weights.
    pub preferred_pods: Vec<(i64, Arc<PodTerm>)>,
    /// Topology spread.
    pub spread: Vec<Spread>,
    /// Names of claims that it mounts.
    pub claims: Vec<String>,
    /// Its images, with their tags.
    pub images: Vec<String>,
    /// Whom to be spread with.
    pub group: Option<Group>,
    /// Higher goes first.
    pub priority: i32,
    /// `preemptionPolicy: Never`
    pub never_preempts: bool,
}

// No field is a floating-point number, so equality is reflexive.
impl Eq for Needs {}

impl Hash for Needs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not all fields: Kubernetes' types cannot be hashed, and these tell nearly all apart.
        self.namespace.hash(state);
        self.labels.hash(state);
        self.requests.hash(state);
        self.group.hash(state);
        self.priority.hash(state);
        self.node_name.hash(state);
        self.claims.hash(state);
        self.named_nodes().hash(state);
    }
}

impl Needs {
    /// Reads them from a pod.
    #[must_use]
    pub fn of(object: &Pod) -> Self {
        let mut needs = Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            requests: pod::requests(object),
            extended: pod::extended_requests(object),
            group: group_of(object),
            ..Self::default()
        };
        let Some(spec) = object.spec.as_ref() else { return needs };
        needs.node_name = pod::node_name(object).map(str::to_owned);
        needs.node_selector = spec.node_selector.clone().unwrap_or_default();
        needs.tolerations = spec.tolerations.clone().unwrap_or_default();
        needs.priority = spec.priority.unwrap_or_default();
        needs.never_preempts = spec.preemption_policy.as_deref() == Some("Never");
        needs.host_ports = host_ports(spec);
        needs.claims = storage::claims_of(object).map(|(_, claim)| claim).collect();
        needs.images =
            spec.containers.iter().filter_map(|c| c.image.as_deref()).map(tagged).collect();
        if let Some(affinity) = &spec.affinity {
            needs.read_affinity(affinity);
        }
        let constraints = spec.topology_spread_constraints.iter().flatten();
        needs.spread = constraints.map(|constraint| needs.spread(constraint)).collect();
        needs
    }

    /// The names of the nodes of which the required affinity wants one, when that is all it can
    /// be: so the pods of a DaemonSet name their nodes.
    #[must_use]
    pub fn named_nodes(&self) -> Option<Vec<&str>> {
        let terms = &self.required.as_ref()?.node_selector_terms;
        let mut names = Vec::new();
        for term in terms {
            let mut fields = term.match_fields.iter().flatten();
            let named = fields.find(|f| f.key == "metadata.name" && f.operator == "In")?;
            names.extend(named.values.iter().flatten().map(String::as_str));
        }
        Some(names)
    }

    fn read_affinity(&mut self, affinity: &Affinity) {
        if let Some(nodes) = &affinity.node_affinity {
            self.required = nodes.required_during_scheduling_ignored_during_execution.clone();
            self.preferred = nodes
                .preferred_during_scheduling_ignored_during_execution
                .clone()
                .unwrap_or_default();
        }
        if let Some(pods) = &affinity.pod_affinity {
            self.affinity =
                self.terms(pods.required_during_scheduling_ignored_during_execution.as_deref());
            self.prefer(pods.preferred_during_scheduling_ignored_during_execution.as_deref(), 1);
        }
        if let Some(pods) = &affinity.pod_anti_affinity {
            self.anti_affinity =
                self.terms(pods.required_during_scheduling_ignored_during_execution.as_deref());
            self.prefer(pods.preferred_during_scheduling_ignored_during_execution.as_deref(), -1);
        }
    }

    fn terms(&self, terms: Option<&[PodAffinityTerm]>) -> Vec<Arc<PodTerm>> {
        terms.unwrap_or_default().iter().map(|term| Arc::new(self.term(term))).collect()
    }

    fn prefer(&mut self, terms: Option<&[WeightedPodAffinityTerm]>, sign: i64) {
        for weighted in terms.unwrap_or_default() {
            let term = Arc::new(self.term(&weighted.pod_affinity_term));
            self.preferred_pods.push((sign * i64::from(weighted.weight), term));
        }
    }

    fn term(&self, term: &PodAffinityTerm) -> PodTerm {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(self.namespace.clone());
        }
        let keys = term.match_label_keys.as_deref().unwrap_or_default();
        let others = term.mismatch_label_keys.as_deref().unwrap_or_default();
        PodTerm {
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(selector),
            selector: self.selector(term.label_selector.as_ref(), keys, others),
            topology_key: term.topology_key.clone(),
        }
    }

    fn spread(&self, constraint: &TopologySpreadConstraint) -> Spread {
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        let term = PodTerm {
            namespaces: BTreeSet::from([self.namespace.clone()]),
            namespace_selector: None,
            selector: self.selector(constraint.label_selector.as_ref(), keys, &[]),
            topology_key: constraint.topology_key.clone(),
        };
        let min_domains = constraint.min_domains.and_then(|count| usize::try_from(count).ok());
        Spread {
            term: Arc::new(term),
            max_skew: i64::from(constraint.max_skew.max(1)),
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
            min_domains: min_domains.filter(|count| *count > 1),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// A selector, with the pod's own values of `keys` required and those of `others` excluded.
    /// Without a selector no pod is meant.
    fn selector(
        &self,
        base: Option<&LabelSelector>,
        keys: &[String],
        others: &[String],
    ) -> Selector {
        let Some(base) = base else { return Selector::nothing() };
        let mut extended = base.clone();
        let expressions = extended.match_expressions.get_or_insert_default();
        for (keys, operator) in [(keys, "In"), (others, "NotIn")] {
            for key in keys {
                let Some(value) = self.labels.get(key) else { continue };
                expressions.push(LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                });
            }
        }
        selector(&extended)
    }
}

/// Validation has refused what is no selector.
fn selector(object: &LabelSelector) -> Selector {
    Selector::from_label_selector(object).unwrap_or_else(|_| Selector::nothing())
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let shares_node_network = spec.host_network == Some(true);
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let on_node = match port.host_port.filter(|p| *p > 0) {
                Some(host_port) => host_port,
                None if shares_node_network => port.container_port,
                None => return None,
            };
            let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
            Some(HostPort {
                port: on_node,
                protocol: filled(&port.protocol).unwrap_or_else(|| "TCP".into()),
                ip: filled(&port.host_ip).unwrap_or_else(|| "0.0.0.0".into()),
            })
        })
        .collect()
}

/// The image's name with its tag: `latest` when there is none.
#[must_use]
pub fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

fn group_of(object: &Pod) -> Option<Group> {
    // DefaultHasher::new() has fixed keys: the same pods make the same groups everywhere.
    let mut hasher = DefaultHasher::new();
    if let Some(owner) = pod::controller_of(&object.metadata) {
        owner.uid.hash(&mut hasher);
        return Some(hasher.finish());
    }
    let labels = object.metadata.labels.as_ref().filter(|labels| !labels.is_empty())?;
    object.metadata.namespace.hash(&mut hasher);
    labels.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
#[path = "needs_test.rs"]
mod tests;
