//! PriorityClass.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{template, time};

/// Above this only the system's own classes are.
const HIGHEST: i32 = 1_000_000_000;
const SYSTEM: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// PriorityClass.
pub static KIND: Kind = Kind {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    categories: &[],
    namespaced: false,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("VALUE"),
        Column::new("GLOBAL-DEFAULT"),
        Column::new("AGE"),
        Column::new("PREEMPTIONPOLICY"),
    ],
    ops: Ops::of::<PriorityClass>(),
};

impl Typed for PriorityClass {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        template::default_text(&mut self.preemption_policy, "PreemptLowerPriority");
    }

    fn validate(&self, errors: &mut Errors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with("system-") {
            if !SYSTEM.contains(&name) {
                let text = "priority class names with 'system-' prefix are reserved for system \
                            use only. error: unknown system priority class";
                errors.push(FieldError::forbidden("metadata.name", text));
            }
        } else if self.value.unwrap_or(0) > HIGHEST {
            let text = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(FieldError::forbidden("value", text));
        }
        errors.one_of(
            "preemptionPolicy",
            self.preemption_policy.as_deref(),
            &["Never", "PreemptLowerPriority"],
        );
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.value != old.value {
            let text = "may not be changed in an update";
            errors.push(FieldError::forbidden("value", text));
        }
        errors.immutable("preemptionPolicy", &self.preemption_policy, &old.preemption_policy);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            self.value.unwrap_or(0).to_string(),
            self.global_default.unwrap_or(false).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            self.preemption_policy.clone().unwrap_or_default(),
        ]
    }
}
