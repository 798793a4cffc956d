//! CustomResourceDefinition: makes a kind. Its names are accepted, and the kind established, with
//! the definition itself: it is refused when they cannot be.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionVersion,
};

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, rbac};

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// CustomResourceDefinition.
pub static KIND: Kind = Kind {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    has_status: true,
    selectable: &[],
    columns: &[Column::new("NAME"), Column::new("CREATED AT")],
    ops: Ops::of::<CustomResourceDefinition>(),
};

impl Typed for CustomResourceDefinition {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let names = &mut self.spec.names;
        let lower = names.kind.to_lowercase();
        crate::template::default_text(&mut names.singular, &lower);
        let list = format!("{}List", names.kind);
        crate::template::default_text(&mut names.list_kind, &list);
        let conversion = self.spec.conversion.get_or_insert_default();
        if conversion.strategy.is_empty() {
            conversion.strategy = "None".into();
        }
        if self.metadata.deletion_timestamp.is_none() {
            let finalizers = self.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
                finalizers.push(CLEANUP_FINALIZER.into());
            }
        }
        set_status(self);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        if let Err(message) = names::dns1123_subdomain(&spec.group) {
            errors.invalid("spec.group", &spec.group, message);
        } else if !spec.group.contains('.') {
            errors.invalid("spec.group", &spec.group, "should be a domain with at least one dot");
        }
        errors.one_of("spec.scope", Some(&spec.scope), &["Cluster", "Namespaced"]);
        if spec.preserve_unknown_fields == Some(true) {
            let text = "must be false";
            errors.invalid("spec.preserveUnknownFields", true, text);
        }
        let strategy = spec.conversion.as_ref().map(|conversion| conversion.strategy.as_str());
        errors.one_of("spec.conversion.strategy", strategy, &["None"]);
        let want = format!("{}.{}", spec.names.plural, spec.group);
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name != want {
            let text = "must be spec.names.plural+\".\"+spec.group";
            errors.invalid("metadata.name", name, text);
        }
        validate_names(&spec.names, errors);
        validate_taken(self, errors);
        validate_versions(&spec.versions, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("spec.group", &self.spec.group, &old.spec.group);
        errors.immutable("spec.scope", &self.spec.scope, &old.spec.scope);
        errors.immutable("spec.names.plural", &self.spec.names.plural, &old.spec.names.plural);
        errors.immutable("spec.names.kind", &self.spec.names.kind, &old.spec.names.kind);
        let stored = old.status.as_ref().and_then(|status| status.stored_versions.as_ref());
        for version in stored.into_iter().flatten() {
            if !self.spec.versions.iter().any(|known| known.name == *version) {
                let text = format!("must appear in spec.versions: {version}");
                errors.invalid("status.storedVersions[0]", version, text);
            }
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        rbac::created_cells(&self.metadata)
    }
}

/// What a definition that is accepted says of itself.
fn set_status(definition: &mut CustomResourceDefinition) {
    let created = definition.metadata.creation_timestamp.clone();
        let stored = definition.spec.versions.iter().find(|version| version.storage);
        let stored = stored.map(|version| version.name.clone());
        let status = definition.status.get_or_insert_default();
        status.accepted_names = Some(definition.spec.names.clone());
        let versions = status.stored_versions.get_or_insert_default();
        if let Some(stored) = stored
            && !versions.contains(&stored)
        {
            versions.push(stored);
        }
        let conditions = status.conditions.get_or_insert_default();
        for (type_, reason, message) in [
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ] {
            if conditions.iter().all(|condition| condition.type_ != type_) {
                conditions.push(CustomResourceDefinitionCondition {
                    type_: type_.into(),
                    status: "True".into(),
                    reason: Some(reason.into()),
                    message: Some(message.into()),
                    last_transition_time: created.clone(),
                    ..CustomResourceDefinitionCondition::default()
                });
            }
        }
}

fn validate_names(given: &CustomResourceDefinitionNames, errors: &mut Errors) {
    for (field, text) in [
        ("plural", Some(&given.plural)),
        ("singular", given.singular.as_ref()),
        ("kind", Some(&given.kind)),
        ("listKind", given.list_kind.as_ref()),
    ] {
        let path = format!("spec.names.{field}");
        let text = text.map(String::as_str).unwrap_or_default();
        if text.is_empty() {
            errors.required(path, "");
        } else if let Err(message) = names::dns1035_label(&text.to_lowercase()) {
            errors.invalid(path, text, message);
        }
    }
    if given.plural != given.plural.to_lowercase() {
        errors.invalid("spec.names.plural", &given.plural, "must be lower case");
    }
    for (index, short) in given.short_names.iter().flatten().enumerate() {
        if let Err(message) = names::dns1035_label(short) {
            errors.invalid(format!("spec.names.shortNames[{index}]"), short, message);
        }
    }
}

/// Another kind of the same group must not have its names.
fn validate_taken(definition: &CustomResourceDefinition, errors: &mut Errors) {
    let spec = &definition.spec;
    let other = crate::kinds::find(|kind| {
        kind.group == spec.group
            && ((kind.kind == spec.names.kind) != (kind.plural == spec.names.plural)
                || (kind.plural == spec.names.plural && !kind.is_custom()))
    });
    if let Some(other) = other {
        let text = format!("is already in use by {}", other.resource());
        errors.invalid("spec.names.kind", &spec.names.kind, text);
    }
}

fn validate_versions(versions: &[CustomResourceDefinitionVersion], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        if let Err(message) = names::dns1035_label(&version.name) {
            errors.invalid(format!("{path}.name"), &version.name, message);
        } else if !seen.insert(&version.name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &version.name));
        }
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let place = format!("{path}.schema.openAPIV3Schema");
        match schema {
            None => errors.required(place, "schemas are required"),
            Some(schema) => {
                if schema.type_.as_deref() != Some("object") {
                    let text = "must be object at the root";
                    errors.invalid(format!("{place}.type"), &schema.type_, text);
                }
                let root = serde_json::to_value(schema).unwrap_or_default();
                if let Err((below, message)) = crate::custom::check_schema(root) {
                    errors.invalid(format!("{place}{below}"), "", message);
                }
            }
        }
        for (at, column) in version.additional_printer_columns.iter().flatten().enumerate() {
            let place = format!("{path}.additionalPrinterColumns[{at}]");
            errors.one_of(
                format!("{place}.type"),
                Some(&column.type_),
                &["integer", "number", "string", "boolean", "date"],
            );
            let parsed: Result<crate::jsonpath::JsonPath, _> =
                format!("{{{}}}", column.json_path).parse();
            if let Err(message) = parsed {
                errors.invalid(format!("{place}.jsonPath"), &column.json_path, message);
            }
        }
    }
    let storing = versions.iter().filter(|version| version.storage).count();
    if storing != 1 {
        let text = "must have exactly one version marked as storage version";
        errors.invalid("spec.versions", storing, text);
    }
    if versions.iter().all(|version| !version.served) {
        errors.invalid("spec.versions", "", "must have at least one version that is served");
    }
}
