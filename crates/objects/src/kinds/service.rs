//! Service.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// Service.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["spec.clusterIP", "spec.type"],
    columns: &[
        Column::new("NAME"),
        Column::new("TYPE"),
        Column::new("CLUSTER-IP"),
        Column::new("EXTERNAL-IP"),
        Column::new("PORT(S)"),
        Column::new("AGE"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<Service>(),
};

impl Typed for Service {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
