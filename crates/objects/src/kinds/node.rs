//! Node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, node, time};

/// Node.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    has_status: true,
    selectable: &["spec.unschedulable"],
    columns: &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("ROLES"),
        Column::new("AGE"),
        Column::new("VERSION"),
        Column::wide("INTERNAL-IP"),
        Column::wide("EXTERNAL-IP"),
        Column::wide("OS-IMAGE"),
        Column::wide("KERNEL-VERSION"),
        Column::wide("CONTAINER-RUNTIME"),
    ],
    ops: Ops::of::<Node>(),
};

impl Typed for Node {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        let taints = self.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        for (index, taint) in taints.enumerate() {
            let path = format!("spec.taints[{index}]");
            if let Err(message) = names::label_key(&taint.key) {
                errors.invalid(format!("{path}.key"), &taint.key, message);
            }
            errors.one_of(
                format!("{path}.effect"),
                Some(&taint.effect),
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let cidr = |node: &Self| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        // Set once.
        if cidr(old).is_some() {
            errors.immutable("spec.podCIDR", &cidr(self), &cidr(old));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let info = self.status.as_ref().and_then(|status| status.node_info.clone());
        let info = info.unwrap_or_default();
        let unknown = |text: String| if text.is_empty() { "<unknown>".into() } else { text };
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            shown_status(self),
            roles(self),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            info.kubelet_version,
            address(self, "InternalIP"),
            address(self, "ExternalIP"),
            unknown(info.os_image),
            unknown(info.kernel_version),
            unknown(info.container_runtime_version),
        ]
    }
}

fn shown_status(node: &Node) -> String {
    let mut shown = match node::condition(node, node::READY).map(|condition| condition.status.as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        shown.push_str(",SchedulingDisabled");
    }
    shown
}

fn roles(node: &Node) -> String {
    const PREFIX: &str = "node-role.kubernetes.io/";
    let labels = node.metadata.labels.iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix(PREFIX)).collect();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address(node: &Node, address_type: &str) -> String {
    let mut addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let found = addresses.find(|address| address.type_ == address_type);
    found.map_or_else(|| "<none>".into(), |address| address.address.clone())
}
