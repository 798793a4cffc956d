//! Node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

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

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
