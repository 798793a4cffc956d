//! Deployment.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// Deployment.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("READY"),
        Column::new("UP-TO-DATE"),
        Column::new("AVAILABLE"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<Deployment>(),
};

impl Typed for Deployment {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
