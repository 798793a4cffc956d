//! Event.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::time;

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

    fn validate(&self, errors: &mut Errors) {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        match self.involved_object.namespace.as_deref().filter(|ns| !ns.is_empty()) {
            Some(involved) if involved != namespace => errors.invalid(
                "involvedObject.namespace",
                involved,
                "does not match event.namespace",
            ),
            _ => {}
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let created = self.metadata.creation_timestamp.as_ref();
        let first = self.first_timestamp.as_ref().or(created);
        let last = self.last_timestamp.as_ref().or(first);
        let object = &self.involved_object;
        let source = self.source.clone().unwrap_or_default();
        let component = text(&source.component);
        let source = match source.host.filter(|host| !host.is_empty()) {
            Some(host) => format!("{component}, {host}"),
            None => component,
        };
        vec![
            time::age_of(last, now),
            text(&self.type_),
            text(&self.reason),
            format!("{}/{}", text(&object.kind).to_lowercase(), text(&object.name)),
            text(&object.field_path),
            source,
            text(&self.message).trim().to_owned(),
            time::age_of(first, now),
            self.count.unwrap_or(1).to_string(),
            text(&self.metadata.name),
        ]
    }
}
