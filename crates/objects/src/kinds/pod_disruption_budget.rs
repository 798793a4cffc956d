//! PodDisruptionBudget.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{template, time};

/// PodDisruptionBudget.
pub static KIND: Kind = Kind {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    categories: &[],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("MIN AVAILABLE"),
        Column::new("MAX UNAVAILABLE"),
        Column::new("ALLOWED DISRUPTIONS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<PodDisruptionBudget>(),
};

impl Typed for PodDisruptionBudget {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else {
            errors.required("spec", "");
            return;
        };
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let text = "minAvailable and maxUnavailable cannot be both set";
            errors.invalid("spec", "", text);
        }
        template::validate_amount(spec.min_available.as_ref(), "spec.minAvailable", errors);
        template::validate_amount(spec.max_unavailable.as_ref(), "spec.maxUnavailable", errors);
        if let Some(selector) = &spec.selector {
            crate::selector::validate(selector, "spec.selector", errors);
        }
        errors.one_of(
            "spec.unhealthyPodEvictionPolicy",
            spec.unhealthy_pod_eviction_policy.as_deref(),
            &["AlwaysAllow", "IfHealthyBudget"],
        );
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let amount = |amount: Option<IntOrString>| match amount {
            Some(IntOrString::Int(number)) => number.to_string(),
            Some(IntOrString::String(text)) => text,
            None => "N/A".into(),
        };
        let allowed = self.status.as_ref().and_then(|status| status.disruptions_allowed);
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            amount(spec.min_available),
            amount(spec.max_unavailable),
            allowed.unwrap_or(0).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
