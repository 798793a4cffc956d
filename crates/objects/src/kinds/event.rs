//! Event.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};

/// Event.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &["involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.fieldPath", "reason", "type", "source", "reportingComponent"],
    columns: &[
        Column::new("LAST SEEN"),
        Column::new("TYPE"),
        Column::new("REASON"),
        Column::new("OBJECT"),
        Column::wide("SUBOBJECT"),
        Column::wide("SOURCE"),
        Column::new("MESSAGE"),
        Column::wide("FIRST SEEN"),
        Column::wide("COUNT"),
        Column::wide("NAME"),
    ],
    ops: Ops::of::<Event>(),
};

impl Typed for Event {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, _errors: &mut Errors) {}

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![String::new(); KIND.columns.len()]
    }
}
