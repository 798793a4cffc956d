//! ResourceQuota.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::quantity::Quantity;
use crate::time;

/// ResourceQuota.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    categories: &[],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("REQUEST"),
        Column::new("LIMIT"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<ResourceQuota>(),
};

impl Typed for ResourceQuota {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        const SCOPES: [&str; 6] = [
            "BestEffort",
            "CrossNamespacePodAffinity",
            "NotBestEffort",
            "NotTerminating",
            "PriorityClass",
            "Terminating",
        ];
        let spec = self.spec.clone().unwrap_or_default();
        for (name, quantity) in spec.hard.iter().flatten() {
            let path = format!("spec.hard[{name}]");
            match Quantity::parse(&quantity.0) {
                Err(error) => errors.invalid(path, &quantity.0, error.to_string()),
                Ok(parsed) if parsed.is_negative() => {
                    errors.invalid(path, &quantity.0, "must be greater than or equal to 0");
                }
                Ok(_) => {}
            }
        }
        for (index, scope) in spec.scopes.iter().flatten().enumerate() {
            errors.one_of(format!("spec.scopes[{index}]"), Some(scope), &SCOPES);
        }
        let expressions = spec.scope_selector.and_then(|selector| selector.match_expressions);
        for (index, one) in expressions.iter().flatten().enumerate() {
            let path = format!("spec.scopeSelector.matchExpressions[{index}]");
            errors.one_of(format!("{path}.scopeName"), Some(&one.scope_name), &SCOPES);
            let known = ["DoesNotExist", "Exists", "In", "NotIn"];
            errors.one_of(format!("{path}.operator"), Some(&one.operator), &known);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let scopes = |quota: &Self| quota.spec.as_ref().and_then(|spec| spec.scopes.clone());
        errors.immutable("spec.scopes", &scopes(self), &scopes(old));
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let hard = self.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let used = self.status.as_ref().and_then(|status| status.used.clone()).unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, limit) in &hard {
            let used = used.get(name).map_or("0", |used| used.0.as_str());
            let text = format!("{name}: {used}/{}", limit.0);
            if name.starts_with("limits.") {
                limits.push(text);
            } else {
                requests.push(text);
            }
        }
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            requests.join(", "),
            limits.join(", "),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
