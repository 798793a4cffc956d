//! Metadata is checked alike for every kind.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::error::Errors;
use crate::kind::Kind;
use crate::names;

/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

pub(crate) fn validate(kind: &Kind, meta: &ObjectMeta, errors: &mut Errors) {
    validate_name(kind, meta, errors);
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if kind.namespaced && namespace.is_empty() {
        errors.required("metadata.namespace", "");
    } else if kind.namespaced {
        if let Err(message) = names::dns1123_label(namespace) {
            errors.invalid("metadata.namespace", namespace, message);
        }
    } else if !namespace.is_empty() {
        errors.push(crate::FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    validate_labels(meta.labels.as_ref(), "metadata.labels", errors);
    validate_annotations(meta.annotations.as_ref(), errors);
    for (index, owner) in meta.owner_references.iter().flatten().enumerate() {
        let path = |field: &str| format!("metadata.ownerReferences[{index}].{field}");
        for (field, value) in [
            ("apiVersion", &owner.api_version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ] {
            if value.is_empty() {
                errors.required(path(field), "must not be empty");
            }
        }
    }
    let controllers = meta.owner_references.iter().flatten();
    if controllers.filter(|owner| owner.controller == Some(true)).count() > 1 {
        errors.invalid(
            "metadata.ownerReferences",
            "",
            "Only one reference can have Controller set to true",
        );
    }
    for (index, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        if let Err(message) = names::label_key(finalizer) {
            errors.invalid(format!("metadata.finalizers[{index}]"), finalizer, message);
        }
    }
}

fn validate_name(kind: &Kind, meta: &ObjectMeta, errors: &mut Errors) {
    let Some(name) = meta.name.as_deref().filter(|name| !name.is_empty()) else {
        errors.required("metadata.name", "name or generateName is required");
        return;
    };
    let check = match kind.kind {
        "Namespace" => names::dns1123_label(name),
        "Service" => names::dns1035_label(name),
        _ if kind.group == crate::rbac::GROUP => names::path_segment(name),
        _ => names::dns1123_subdomain(name),
    };
    if let Err(message) = check {
        errors.invalid("metadata.name", name, message);
    }
}

/// Checks label keys and values.
pub(crate) fn validate_labels(
    labels: Option<&BTreeMap<String, String>>,
    path: &str,
    errors: &mut Errors,
) {
    for (key, value) in labels.into_iter().flatten() {
        if let Err(message) = names::label_key(key) {
            errors.invalid(path, key, message);
        }
        if let Err(message) = names::label_value(value) {
            errors.invalid(path, value, message);
        }
    }
}

fn validate_annotations(annotations: Option<&BTreeMap<String, String>>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.len();
        // Keys of annotations may have capitals in the prefix.
        if let Err(message) = names::label_key(&key.to_ascii_lowercase()) {
            errors.invalid("metadata.annotations", key, message);
        }
    }
    if size > ANNOTATIONS_MAX {
        let message = format!("must have at most {ANNOTATIONS_MAX} bytes");
        errors.push(crate::FieldError::new(
            crate::FieldErrorKind::TooLong,
            "metadata.annotations",
            None,
            message,
        ));
    }
}

pub(crate) fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    errors.immutable("metadata.name", &new.name, &old.name);
    errors.immutable("metadata.namespace", &new.namespace, &old.namespace);
    errors.immutable("metadata.uid", &new.uid, &old.uid);
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let added = new.finalizers.iter().flatten().any(|f| !known.contains(f));
        if added {
            errors.push(crate::FieldError::forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted",
            ));
        }
    }
}
