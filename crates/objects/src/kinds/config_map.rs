//! ConfigMap.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// ConfigMap.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("DATA"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<ConfigMap>(),
};

impl Typed for ConfigMap {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
