//! ControllerRevision.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{pod, time};

/// ControllerRevision.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CONTROLLER"),
        Column::new("REVISION"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<ControllerRevision>(),
};

impl Typed for ControllerRevision {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        errors.non_negative("revision", self.revision);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("data", &self.data, &old.data);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let owner = pod::controller_of(&self.metadata);
        let owner = owner.map(|owner| format!("{}/{}", owner.kind.to_lowercase(), owner.name));
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            owner.unwrap_or_else(|| "<none>".into()),
            self.revision.unwrap_or_default().to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
