//! EndpointSlice.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// EndpointSlice.
pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("ADDRESSTYPE"),
        Column::new("PORTS"),
        Column::new("ENDPOINTS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<EndpointSlice>(),
};

impl Typed for EndpointSlice {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
