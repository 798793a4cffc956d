//! RoleBinding.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::rbac;

/// RoleBinding.
pub static KIND: Kind = Kind {
    group: rbac::GROUP,
    version: "v1",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("ROLE"),
        Column::new("AGE"),
        Column::wide("USERS"),
        Column::wide("GROUPS"),
        Column::wide("SERVICEACCOUNTS"),
    ],
    ops: Ops::of::<RoleBinding>(),
};

impl Typed for RoleBinding {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        rbac::default_binding(&mut self.role_ref, self.subjects.as_mut());
    }

    fn validate(&self, errors: &mut Errors) {
        rbac::validate_binding(&self.role_ref, self.subjects.as_deref(), &["Role", "ClusterRole"], errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rbac::validate_role_ref(&self.role_ref, &old.role_ref, errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        rbac::binding_cells(&self.metadata, &self.role_ref, self.subjects.as_deref(), now)
    }
}
