//! CustomResourceDefinition: makes a kind, when the controller has accepted its names.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionVersion,
};

use crate::error::{Errors, FieldError, FieldErrorKind};
use crate::jsonpath::JsonPath;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, rbac};

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What definitions in Kubernetes' own groups have to carry.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Versions of one kind.
const MAX_VERSIONS: usize = 32;

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
        // With the definition itself: from now on objects may be stored in this version.
        let stored = self.spec.versions.iter().find(|version| version.storage);
        if let Some(stored) = stored {
            let status = self.status.get_or_insert_default();
            let versions = status.stored_versions.get_or_insert_default();
            if !versions.contains(&stored.name) {
                versions.push(stored.name.clone());
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        if let Err(message) = names::dns1123_subdomain(&spec.group) {
            errors.invalid("spec.group", &spec.group, message);
        } else if !spec.group.contains('.') {
            errors.invalid("spec.group", &spec.group, "should be a domain with at least one dot");
        }
        let annotations = self.metadata.annotations.as_ref();
        let approved = annotations.is_some_and(|all| all.contains_key(APPROVED));
        if is_protected(&spec.group) && !approved {
            let text = "protected groups must have approval annotation \
                        \"api-approved.kubernetes.io\", see \
                        https://github.com/kubernetes/enhancements/pull/1111";
            errors.required(format!("metadata.annotations[{APPROVED}]"), text);
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
        validate_versions(&spec.versions, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("spec.group", &self.spec.group, &old.spec.group);
        errors.immutable("spec.scope", &self.spec.scope, &old.spec.scope);
        // Kubernetes lets these two change before the names are accepted.
        errors.immutable("spec.names.plural", &self.spec.names.plural, &old.spec.names.plural);
        errors.immutable("spec.names.kind", &self.spec.names.kind, &old.spec.names.kind);
        let stored = old.status.as_ref().and_then(|status| status.stored_versions.as_ref());
        for (index, version) in stored.into_iter().flatten().enumerate() {
            if !self.spec.versions.iter().any(|known| known.name == *version) {
                let path = format!("status.storedVersions[{index}]");
                errors.invalid(path, version, "must appear in spec.versions");
            }
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        rbac::created_cells(&self.metadata)
    }
}

/// Is it one of Kubernetes' own groups?
fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| {
        group.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
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

fn validate_versions(versions: &[CustomResourceDefinitionVersion], errors: &mut Errors) {
    if versions.len() > MAX_VERSIONS {
        let text = format!("must have at most {MAX_VERSIONS} items");
        errors.push(FieldError::new(FieldErrorKind::TooLong, "spec.versions", None, text));
        return;
    }
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
                let root = serde_json::to_value(schema).unwrap_or_default();
                crate::custom::check(&root, &place, errors);
            }
        }
        validate_columns(version, &path, errors);
        validate_subresources(version, &path, errors);
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

fn validate_columns(version: &CustomResourceDefinitionVersion, path: &str, errors: &mut Errors) {
    for (at, column) in version.additional_printer_columns.iter().flatten().enumerate() {
        let place = format!("{path}.additionalPrinterColumns[{at}]");
        if column.name.is_empty() {
            errors.required(format!("{place}.name"), "");
        }
        errors.one_of(
            format!("{place}.type"),
            Some(&column.type_),
            &["integer", "number", "string", "boolean", "date"],
        );
        let parsed: Result<JsonPath, _> = format!("{{{}}}", column.json_path).parse();
        if let Err(message) = parsed {
            errors.invalid(format!("{place}.jsonPath"), &column.json_path, message);
        }
    }
}

/// Where replicas and the selector are: dotted paths, without lists.
fn validate_subresources(
    version: &CustomResourceDefinitionVersion,
    path: &str,
    errors: &mut Errors,
) {
    let scale = version.subresources.as_ref().and_then(|parts| parts.scale.as_ref());
    let Some(scale) = scale else { return };
    let mut check = |field: &str, given: &str, below: &[&str]| {
        let place = format!("{path}.subresources.scale.{field}");
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if given.is_empty() {
            errors.required(place, "");
        } else if !given.strip_prefix('.').is_some_and(|rest| rest.split('.').all(plain)) {
            errors.invalid(place, given, "should be a simple json path");
        } else if !below.iter().any(|start| given.starts_with(start)) {
            let text = format!("should be a json path under {}", below.join(" or "));
            errors.invalid(place, given, text);
        }
    };
    check("specReplicasPath", &scale.spec_replicas_path, &[".spec."]);
    check("statusReplicasPath", &scale.status_replicas_path, &[".status."]);
    if let Some(selector) = scale.label_selector_path.as_deref().filter(|path| !path.is_empty()) {
        check("labelSelectorPath", selector, &[".spec.", ".status."]);
    }
}
