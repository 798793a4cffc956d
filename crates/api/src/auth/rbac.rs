//! Roles and bindings.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use quorate_objects::{Selector, kinds};
use quorate_registry::{Registry, View};

use super::{Attributes, Decision, SERVICE_ACCOUNT_PREFIX, User};

/// What gave a rule to a user.
struct Source<'a> {
    /// `RoleBinding`
    kind: &'static str,
    /// Of the binding; "" for those of the whole cluster.
    namespace: &'a str,
    name: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
}

/// In Kubernetes' words: `RoleBinding "x/ns" of ClusterRole "y" to User "z"`
impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, role, subject } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{kind} \"{name}{slash}{namespace}\" of {} {:?}", role.kind, role.name)?;
        write!(f, " to {} {:?}", subject.kind, subject.name)
    }
}

/// Takes rules until it breaks.
type Take<'a> = &'a mut dyn FnMut(&PolicyRule, &Source<'_>) -> ControlFlow<()>;

/// Does any role that is bound to the user allow this?
pub(crate) fn decide(registry: &Registry, user: &User, wanted: &Attributes) -> Decision {
    let mut reason = None;
    let _ = registry.cache().read(|view| {
        visit(view, user, &wanted.namespace, &mut |rule, source| {
            if !allows(rule, wanted) {
                return ControlFlow::Continue(());
            }
            reason = Some(format!("RBAC: allowed by {source}"));
            ControlFlow::Break(())
        })
    });
    Decision { allowed: reason.is_some(), reason: reason.unwrap_or_default() }
}

/// Everything that a user may do in a namespace (or in none).
pub(crate) fn rules_of(view: &View, user: &User, namespace: &str) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    let _ = visit(view, user, namespace, &mut |rule, _| {
        rules.push(rule.clone());
        ControlFlow::Continue(())
    });
    rules
}

fn visit(view: &View, user: &User, namespace: &str, take: Take<'_>) -> ControlFlow<()> {
    for object in view.iter(&kinds::CLUSTER_ROLE_BINDING, None) {
        let Ok(binding) = object.typed::<ClusterRoleBinding>() else { continue };
        let subjects = binding.subjects.iter().flatten();
        for subject in subjects.filter(|subject| is_subject(user, subject, "")).take(1) {
            let (kind, namespace, name) = ("ClusterRoleBinding", "", object.name());
            let source = Source { kind, namespace, name, role: &binding.role_ref, subject };
            visit_role(view, &binding.role_ref, "", &mut |rule| take(rule, &source))?;
        }
    }
    if namespace.is_empty() {
        return ControlFlow::Continue(());
    }
    for object in view.iter(&kinds::ROLE_BINDING, Some(namespace)) {
        let Ok(binding) = object.typed::<RoleBinding>() else { continue };
        let subjects = binding.subjects.iter().flatten();
        for subject in subjects.filter(|subject| is_subject(user, subject, namespace)).take(1) {
            let (kind, name) = ("RoleBinding", object.name());
            let source = Source { kind, namespace, name, role: &binding.role_ref, subject };
            visit_role(view, &binding.role_ref, namespace, &mut |rule| take(rule, &source))?;
        }
    }
    ControlFlow::Continue(())
}

/// The rules of the role that a binding names; `None` when it is not there.
pub(crate) fn rules_of_role(
    view: &View,
    role: &RoleRef,
    namespace: &str,
) -> Option<Vec<PolicyRule>> {
    let (kind, place) = match role.kind.as_str() {
        "Role" => (&kinds::ROLE, namespace),
        _ => (&kinds::CLUSTER_ROLE, ""),
    };
    view.get(kind, place, &role.name)?;
    let mut rules = Vec::new();
    let _ = visit_role(view, role, namespace, &mut |rule| {
        rules.push(rule.clone());
        ControlFlow::Continue(())
    });
    Some(rules)
}

/// A role that is not there gives nothing.
fn visit_role(
    view: &View,
    role: &RoleRef,
    namespace: &str,
    take: &mut dyn FnMut(&PolicyRule) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if role.kind != "Role" {
        return visit_cluster_role(view, &role.name, &mut BTreeSet::new(), take);
    }
    let Some(object) = view.get(&kinds::ROLE, namespace, &role.name) else {
        return ControlFlow::Continue(());
    };
    let Ok(role) = object.typed::<Role>() else { return ControlFlow::Continue(()) };
    role.rules.iter().flatten().try_for_each(take)
}

/// A cluster role's own rules, and those of the roles that it aggregates: they are looked up when
/// they are asked for, so no controller has to copy them.
fn visit_cluster_role(
    view: &View,
    name: &str,
    seen: &mut BTreeSet<String>,
    take: &mut dyn FnMut(&PolicyRule) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if !seen.insert(name.to_owned()) {
        return ControlFlow::Continue(());
    }
    let Some(object) = view.get(&kinds::CLUSTER_ROLE, "", name) else {
        return ControlFlow::Continue(());
    };
    let Ok(role) = object.typed::<ClusterRole>() else { return ControlFlow::Continue(()) };
    role.rules.iter().flatten().try_for_each(&mut *take)?;
    let selectors = role.aggregation_rule.iter().flat_map(|a| a.cluster_role_selectors.iter());
    for selector in selectors.flatten() {
        let Ok(selector) = Selector::from_label_selector(selector) else { continue };
        for other in view.iter(&kinds::CLUSTER_ROLE, None) {
            if selector.matches(other.labels()) {
                visit_cluster_role(view, other.name(), seen, take)?;
            }
        }
    }
    ControlFlow::Continue(())
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
