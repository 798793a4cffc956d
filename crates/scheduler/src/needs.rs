//! What a pod asks of a node, worked out once per pod and not once per pod and node.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::{NodeSelector, Pod, PreferredSchedulingTerm, Toleration};
use quorate_objects::pod::{self, Resources};

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

/// What a pod asks of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Processor, memory, one pod.
    pub requests: Resources,
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
    /// Whom to be spread with.
    pub group: Option<Group>,
    /// Higher goes first.
    pub priority: i32,
}

impl Needs {
    /// Reads them from a pod.
    #[must_use]
    pub fn of(object: &Pod) -> Self {
        let mut needs =
            Self { requests: pod::requests(object), group: group_of(object), ..Self::default() };
        let Some(spec) = object.spec.as_ref() else { return needs };
        needs.node_name = pod::node_name(object).map(str::to_owned);
        needs.node_selector = spec.node_selector.clone().unwrap_or_default();
        needs.tolerations = spec.tolerations.clone().unwrap_or_default();
        needs.priority = spec.priority.unwrap_or_default();
        needs.host_ports = host_ports(object);
        if let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
            needs.required = affinity.required_during_scheduling_ignored_during_execution.clone();
            needs.preferred = affinity
                .preferred_during_scheduling_ignored_during_execution
                .clone()
                .unwrap_or_default();
        }
        needs
    }
}

fn host_ports(object: &Pod) -> Vec<HostPort> {
    let Some(spec) = object.spec.as_ref() else { return Vec::new() };
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
