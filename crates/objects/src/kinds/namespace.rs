//! Namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;

use crate::kind::{Column, Kind, Ops, Typed};
use crate::time;

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

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        // Removed when everything in the namespace is gone.
        if self.metadata.deletion_timestamp.is_none() {
            spec.finalizers.get_or_insert_with(|| vec!["kubernetes".into()]);
        }
        let name = self.metadata.name.clone().unwrap_or_default();
        if !name.is_empty() {
            let labels = self.metadata.labels.get_or_insert_default();
            labels.insert("kubernetes.io/metadata.name".into(), name);
        }
        let status = self.status.get_or_insert_default();
        status.phase.get_or_insert_with(|| "Active".into());
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let phase = self.status.as_ref().and_then(|status| status.phase.clone());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            phase.unwrap_or_default(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
