//! Secret.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// Secret.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &["type"],
    columns: &[
        Column::new("NAME"),
        Column::new("TYPE"),
        Column::new("DATA"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<Secret>(),
};

impl Typed for Secret {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
