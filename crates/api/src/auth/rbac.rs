//! Roles and bindings.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use quorate_objects::{Selector, kinds};
use quorate_registry::{Registry, View};

use super::{Attributes, Decision, SERVICE_ACCOUNT_PREFIX, User};

/// A rule that applies to a user, and what gave it to them.
pub(crate) struct Granted {
    pub rule: PolicyRule,
    /// `ClusterRoleBinding "x" of ClusterRole "y" to User "z"`
    pub by: String,
}

/// Does any role that is bound to the user allow this?
pub(crate) fn decide(registry: &Registry, user: &User, wanted: &Attributes) -> Decision {
    let found = registry.cache().read(|view| {
        let rules = rules_of(view, user, &wanted.namespace);
        rules.into_iter().find(|granted| allows(&granted.rule, wanted))
    });
    match found {
        Some(granted) => {
            Decision { allowed: true, reason: format!("RBAC: allowed by {}", granted.by) }
        }
        None => Decision { allowed: false, reason: String::new() },
    }
}

/// Everything that a user may do in a namespace (or in none).
pub(crate) fn rules_of(view: &View, user: &User, namespace: &str) -> Vec<Granted> {
    let mut granted = Vec::new();
    for object in view.iter(&kinds::CLUSTER_ROLE_BINDING, None) {
        let Ok(binding) = object.typed::<ClusterRoleBinding>() else { continue };
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        if let Some(subject) = subjects.iter().find(|subject| is_subject(user, subject, "")) {
            let by = by("ClusterRoleBinding", object.name(), &binding.role_ref, subject);
            let rules = rules_of_role(view, &binding.role_ref, "");
            granted.extend(rules.into_iter().map(|rule| Granted { rule, by: by.clone() }));
        }
    }
    if namespace.is_empty() {
        return granted;
    }
    for object in view.iter(&kinds::ROLE_BINDING, Some(namespace)) {
        let Ok(binding) = object.typed::<RoleBinding>() else { continue };
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        if let Some(subject) = subjects.iter().find(|subject| is_subject(user, subject, namespace))
        {
            let name = format!("{}/{namespace}", object.name());
            let by = by("RoleBinding", &name, &binding.role_ref, subject);
            let rules = rules_of_role(view, &binding.role_ref, namespace);
            granted.extend(rules.into_iter().map(|rule| Granted { rule, by: by.clone() }));
        }
    }
    granted
}

fn by(kind: &str, name: &str, role: &RoleRef, subject: &Subject) -> String {
    format!(
        "{kind} {name:?} of {} {:?} to {} {:?}",
        role.kind, role.name, subject.kind, subject.name
    )
}

/// The rules of the role that a binding names; a role that is not there gives nothing.
pub(crate) fn rules_of_role(view: &View, role: &RoleRef, namespace: &str) -> Vec<PolicyRule> {
    if role.kind == "Role" {
        let object = view.get(&kinds::ROLE, namespace, &role.name);
        let role = object.and_then(|object| object.typed::<Role>().ok());
        return role.and_then(|role| role.rules.clone()).unwrap_or_default();
    }
    let mut rules = Vec::new();
    let mut seen = BTreeSet::new();
    cluster_rules(view, &role.name, &mut seen, &mut rules);
    rules
}

/// A cluster role's own rules, and those of the roles that it aggregates: they are looked up when
/// they are asked for, so no controller has to copy them.
fn cluster_rules(
    view: &View,
    name: &str,
    seen: &mut BTreeSet<String>,
    rules: &mut Vec<PolicyRule>,
) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let Some(object) = view.get(&kinds::CLUSTER_ROLE, "", name) else { return };
    let Ok(role) = object.typed::<ClusterRole>() else { return };
    rules.extend(role.rules.iter().flatten().cloned());
    let selectors = role.aggregation_rule.iter().flat_map(|a| a.cluster_role_selectors.iter());
    for selector in selectors.flatten() {
        let Ok(selector) = Selector::from_label_selector(selector) else { continue };
        for other in view.iter(&kinds::CLUSTER_ROLE, None) {
            if selector.matches(other.labels()) {
                cluster_rules(view, other.name(), seen, rules);
            }
        }
    }
}

fn is_subject(user: &User, subject: &Subject, namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.is_in(&subject.name),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
            let namespace = own.unwrap_or(namespace);
            let account = user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX);
            account.and_then(|rest| rest.split_once(':')) == Some((namespace, &subject.name))
        }
        _ => false,
    }
}

fn any(list: Option<&Vec<String>>, fits: impl Fn(&str) -> bool) -> bool {
    list.into_iter().flatten().any(|one| fits(one))
}

/// Does the rule allow this?
pub(crate) fn allows(rule: &PolicyRule, wanted: &Attributes) -> bool {
    let verb = rule.verbs.iter().any(|verb| verb == "*" || *verb == wanted.verb);
    if !verb {
        return false;
    }
    if wanted.resource.is_empty() {
        return any(rule.non_resource_urls.as_ref(), |url| match url.strip_suffix('*') {
            Some(prefix) => wanted.path.starts_with(prefix),
            None => url == wanted.path,
        });
    }
    let full = wanted.full_resource();
    let fits = |resource: &str| {
        resource == "*"
            || resource == full
            || (!wanted.subresource.is_empty()
                && resource.strip_prefix("*/") == Some(wanted.subresource.as_str()))
    };
    any(rule.api_groups.as_ref(), |group| group == "*" || group == wanted.group)
        && any(rule.resources.as_ref(), fits)
        && (rule.resource_names.as_ref().is_none_or(Vec::is_empty)
            || any(rule.resource_names.as_ref(), |name| name == wanted.name))
}

/// Is everything that `rule` allows allowed by `own` as well? Each combination is looked at on
/// its own, as Kubernetes does.
pub(crate) fn covers(own: &[PolicyRule], rule: &PolicyRule) -> bool {
    let empty = Vec::new();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let covered = |wanted: &Attributes| own.iter().any(|own| allows(own, wanted));
    for verb in &rule.verbs {
        for path in rule.non_resource_urls.as_ref().unwrap_or(&empty) {
            if !covered(&Attributes::path(verb, path)) {
                return false;
            }
        }
        let mut names = list(&rule.resource_names);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                for name in &names {
                    let wanted = Attributes {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.into(),
                        subresource: subresource.into(),
                        name: name.clone(),
                        ..Attributes::default()
                    };
                    if !covered(&wanted) {
                        return false;
                    }
                }
            }
        }
    }
    true
}
