//! Lease (coordination): what controllers of users elect their leaders by.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, time};

/// Lease.
pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("HOLDER"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<Lease>(),
};

impl Typed for Lease {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0");
        }
        errors.non_negative("spec.leaseTransitions", spec.lease_transitions.map(i64::from));
        // An empty holder is how one releases it.
        if let Some(strategy) = spec.strategy.as_deref() {
            if !strategy.contains('/') {
                errors.one_of("spec.strategy", Some(strategy), &["OldestEmulationVersion"]);
            } else if let Err(message) = names::label_key(strategy) {
                errors.invalid("spec.strategy", strategy, message);
            }
        } else if spec.preferred_holder.as_deref().is_some_and(|holder| !holder.is_empty()) {
            let text = "must be empty when strategy is not set";
            errors.push(crate::FieldError::forbidden("spec.preferredHolder", text));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let holder = self.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            holder.unwrap_or_default(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
