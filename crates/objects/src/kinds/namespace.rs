//! Namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// Namespace.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<Namespace>(),
};

impl Typed for Namespace {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
