//! Checks of roles and bindings, which occur with a namespace and without.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::error::{Errors, FieldError};
use crate::template::default_text;
use crate::time;

/// The group of roles and of the names of users and groups.
pub const GROUP: &str = "rbac.authorization.k8s.io";

fn empty(list: Option<&Vec<String>>) -> bool {
    list.is_none_or(Vec::is_empty)
}

/// Checks the rules of a role.
pub(crate) fn validate_rules(rules: Option<&[PolicyRule]>, namespaced: bool, errors: &mut Errors) {
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let path = format!("rules[{index}]");
        if rule.verbs.is_empty() {
            errors.required(format!("{path}.verbs"), "verbs must contain at least one value");
        }
        if !empty(rule.non_resource_urls.as_ref()) {
            let field = format!("{path}.nonResourceURLs");
            let others = [&rule.api_groups, &rule.resources, &rule.resource_names];
            if namespaced {
                let text = "namespaced rules cannot apply to non-resource URLs";
                errors.invalid(field, &rule.non_resource_urls, text);
            } else if others.into_iter().any(|list| !empty(list.as_ref())) {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(field, &rule.non_resource_urls, text);
            }
            continue;
        }
        if empty(rule.api_groups.as_ref()) {
            let text = "resource rules must supply at least one api group";
            errors.required(format!("{path}.apiGroups"), text);
        }
        if empty(rule.resources.as_ref()) {
            let text = "resource rules must supply at least one resource";
            errors.required(format!("{path}.resources"), text);
        }
    }
}

/// What Kubernetes fills in when a binding names no groups.
pub(crate) fn default_binding(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    default_text(&mut role.api_group, GROUP);
    for subject in subjects.into_iter().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            default_text(&mut subject.api_group, GROUP);
        }
    }
}

/// Checks a binding; `roles` are the kinds that it may bind.
pub(crate) fn validate_binding(
    role: &RoleRef,
    subjects: Option<&[Subject]>,
    roles: &[&str],
    errors: &mut Errors,
) {
    errors.one_of("roleRef.apiGroup", role.api_group.as_deref(), &[GROUP]);
    errors.one_of("roleRef.kind", Some(&role.kind), roles);
    if role.name.is_empty() {
        errors.required("roleRef.name", "");
    } else if let Err(message) = crate::names::path_segment(&role.name) {
        errors.invalid("roleRef.name", &role.name, message);
    }
    for (index, subject) in subjects.into_iter().flatten().enumerate() {
        validate_subject(subject, &format!("subjects[{index}]"), errors);
    }
}

fn validate_subject(subject: &Subject, path: &str, errors: &mut Errors) {
    if subject.name.is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty()
                && let Err(message) = crate::names::dns1123_subdomain(&subject.name)
            {
                errors.invalid(format!("{path}.name"), &subject.name, message);
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[""]));
            }
            if subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.required(format!("{path}.namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                let path = format!("{path}.apiGroup");
                errors.push(FieldError::not_supported(path, group, &[GROUP]));
            }
        }
        other => {
            let kinds = ["Group", "ServiceAccount", "User"];
            errors.push(FieldError::not_supported(format!("{path}.kind"), other, &kinds));
        }
    }
}

/// What a binding binds is what it is: Kubernetes wants it deleted and made again.
pub(crate) fn validate_role_ref(new: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if new != old {
        errors.invalid("roleRef", new, "cannot change roleRef");
    }
}

/// The cells of a role: NAME, CREATED AT.
pub(crate) fn created_cells(meta: &ObjectMeta) -> Vec<String> {
    let created = meta.creation_timestamp.as_ref().map(|at| time::format(at.0));
    vec![meta.name.clone().unwrap_or_default(), created.unwrap_or_default()]
}

/// The cells of a binding: NAME, ROLE, AGE, USERS, GROUPS, SERVICEACCOUNTS.
pub(crate) fn binding_cells(
    meta: &ObjectMeta,
    role: &RoleRef,
    subjects: Option<&[Subject]>,
    now: Timestamp,
) -> Vec<String> {
    let named = |kind: &str| {
        let of_kind = subjects.into_iter().flatten().filter(|subject| subject.kind == kind);
        let names = of_kind.map(|subject| match &subject.namespace {
            Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{}", subject.name),
            _ => subject.name.clone(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    vec![
        meta.name.clone().unwrap_or_default(),
        format!("{}/{}", role.kind, role.name),
        time::age_of(meta.creation_timestamp.as_ref(), now),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}

#[cfg(test)]
#[path = "rbac_test.rs"]
mod tests;
