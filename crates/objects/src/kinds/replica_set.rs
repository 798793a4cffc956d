//! ReplicaSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// ReplicaSet.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["status.replicas"],
    columns: &[
        Column::new("NAME"),
        Column::new("DESIRED"),
        Column::new("CURRENT"),
        Column::new("READY"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<ReplicaSet>(),
};

impl Typed for ReplicaSet {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
