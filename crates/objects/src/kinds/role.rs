//! Role.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::Role;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::rbac;

/// Role.
pub static KIND: Kind = Kind {
    group: rbac::GROUP,
    version: "v1",
    kind: "Role",
    plural: "roles",
    singular: "role",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CREATED AT"),
    ],
    ops: Ops::of::<Role>(),
};

impl Typed for Role {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        rbac::validate_rules(self.rules.as_deref(), KIND.namespaced, errors);
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        rbac::created_cells(&self.metadata)
    }
}
