//! Nobody gives away what they do not have: whoever writes a role must hold all that is in it, or
//! may `escalate`; whoever writes a binding must hold the role's rules, or may `bind` it. The rules
//! of a role that is not there yet are not known, so that takes `bind`.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use quorate_objects::rbac::GROUP;
use quorate_registry::RegistryError;
use serde_json::Value;

use super::{Attributes, Auth, User, rbac};

/// Checks an object of RBAC's group that is about to be written.
///
/// # Errors
/// [`RegistryError::Forbidden`]; [`RegistryError::NotFound`] for the role of a binding.
pub(crate) fn check(auth: &Arc<Auth>, user: &User, new: &Value) -> Result<(), RegistryError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&new["kind"]);
    let namespace = text(&new["metadata"]["namespace"]);
    let name = text(&new["metadata"]["name"]);
    let (verb, resource, target, rules) = match kind.as_str() {
        "Role" | "ClusterRole" => {
            let rules: Vec<PolicyRule> = parse(&new["rules"])?;
            let aggregates = new.get("aggregationRule").is_some_and(|rule| !rule.is_null());
            // What is aggregated later cannot be known now.
            let everything = aggregates.then(|| PolicyRule {
                api_groups: Some(vec!["*".into()]),
                resources: Some(vec!["*".into()]),
                verbs: vec!["*".into()],
                ..PolicyRule::default()
            });
            let rules: Vec<_> = rules.into_iter().chain(everything).collect();
            let resource = if kind == "Role" { "roles" } else { "clusterroles" };
            ("escalate", resource, name.clone(), Some(rules))
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role: RoleRef = parse(&new["roleRef"])?;
            let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
            let view = |view: &quorate_registry::View| rbac::rules_of_role(view, &role, &namespace);
            let rules = auth.registry.cache().read(view);
            ("bind", resource, role.name, rules)
        }
        _ => return Ok(()),
    };
    let wanted = Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        resource: resource.into(),
        namespace: namespace.clone(),
        name: target,
        ..Attributes::default()
    };
    if auth.authorize(user, &wanted).allowed {
        return Ok(());
    }
    let rules = rules.ok_or_else(|| RegistryError::NotFound {
        resource: wanted.resource_and_group(),
        name: wanted.name,
    })?;
    let own = auth.registry.cache().read(|view| rbac::rules_of(view, user, &namespace));
    let missing: Vec<&PolicyRule> = rules.iter().filter(|rule| !rbac::covers(&own, rule)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.into_iter().map(shown).collect();
    let plural = format!("{}s.{GROUP}", kind.to_ascii_lowercase());
    Err(RegistryError::Forbidden(format!(
        "{plural} {name:?} is forbidden: user {:?} (groups={:?}) is attempting to grant RBAC \
         permissions not currently held:\n{}",
        user.name,
        user.groups,
        missing.join("\n")
    )))
}

fn parse<T: serde::de::DeserializeOwned + Default>(value: &Value) -> Result<T, RegistryError> {
    if value.is_null() {
        return Ok(T::default());
    }
    serde_json::from_str(&value.to_string())
        .map_err(|error| RegistryError::BadRequest(error.to_string()))
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`
fn shown(rule: &PolicyRule) -> String {
    let lists = [
        ("APIGroups", rule.api_groups.as_ref()),
        ("Resources", rule.resources.as_ref()),
        ("ResourceNames", rule.resource_names.as_ref()),
        ("NonResourceURLs", rule.non_resource_urls.as_ref()),
        ("Verbs", Some(&rule.verbs)),
    ];
    let given = lists.into_iter().filter_map(|(name, list)| {
        let list = list.filter(|list| !list.is_empty())?;
        Some(format!("{name}:{list:?}"))
    });
    format!("{{{}}}", given.collect::<Vec<_>>().join(", "))
}
