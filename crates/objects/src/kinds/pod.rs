//! Pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// Pod.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.podIP"],
    columns: &[
        Column::new("NAME"),
        Column::new("READY"),
        Column::new("STATUS"),
        Column::new("RESTARTS"),
        Column::new("AGE"),
        Column::wide("IP"),
        Column::wide("NODE"),
        Column::wide("NOMINATED NODE"),
        Column::wide("READINESS GATES"),
    ],
    ops: Ops::of::<Pod>(),
};

impl Typed for Pod {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
