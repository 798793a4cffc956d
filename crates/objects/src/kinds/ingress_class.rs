//! IngressClass.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, template, time};

/// IngressClass.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CONTROLLER"),
        Column::new("PARAMETERS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<IngressClass>(),
};

impl Typed for IngressClass {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        if let Some(parameters) = self.spec.as_mut().and_then(|spec| spec.parameters.as_mut()) {
            template::default_text(&mut parameters.scope, "Cluster");
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let controller = spec.controller.as_deref().unwrap_or_default();
        if controller.len() > 250 {
            errors.invalid("spec.controller", controller, "must be no more than 250 characters");
        } else if !controller.is_empty() {
            let rule = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            let domain = controller.split_once('/').filter(|(_, path)| !path.is_empty());
            match domain {
                Some((domain, _)) if names::dns1123_subdomain(domain).is_ok() => {}
                _ => errors.invalid("spec.controller", controller, rule),
            }
        }
        let Some(parameters) = spec.parameters else { return };
        let path = "spec.parameters";
        for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
            if value.is_empty() {
                errors.required(format!("{path}.{field}"), "");
            }
        }
        let scope = parameters.scope.as_deref();
        errors.one_of(format!("{path}.scope"), scope, &["Cluster", "Namespace"]);
        if scope == Some("Namespace") && parameters.namespace.is_none() {
            let text = "`parameters.scope` is set to 'Namespace'";
            errors.required(format!("{path}.namespace"), text);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let controller = |class: &Self| class.spec.as_ref().and_then(|s| s.controller.clone());
        errors.immutable("spec.controller", &controller(self), &controller(old));
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let shown = spec.parameters.map_or_else(
            || "<none>".into(),
            |p| match p.api_group.filter(|group| !group.is_empty()) {
                Some(group) => format!("{}.{group}/{}", p.kind, p.name),
                None => format!("{}/{}", p.kind, p.name),
            },
        );
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            spec.controller.unwrap_or_default(),
            shown,
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
