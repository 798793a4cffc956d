//! ClusterRole.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::rbac;

/// ClusterRole.
pub static KIND: Kind = Kind {
    group: rbac::GROUP,
    version: "v1",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    short_names: &[],
    categories: &[],
    namespaced: false,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CREATED AT"),
    ],
    ops: Ops::of::<ClusterRole>(),
};

impl Typed for ClusterRole {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        rbac::validate_rules(self.rules.as_deref(), KIND.namespaced, errors);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let path = "aggregationRule.clusterRoleSelectors";
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            let text = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.required(path, text);
        }
        for (index, selector) in selectors.iter().enumerate() {
            crate::selector::validate(selector, &format!("{path}[{index}]"), errors);
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        rbac::created_cells(&self.metadata)
    }
}
