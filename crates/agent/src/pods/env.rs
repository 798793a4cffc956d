//! A container's environment: Kubernetes' variables for services, `envFrom`, `env` with its
//! references, and `$(NAME)` in values, command and arguments. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
    Service,
};

/// What references lead to.
pub trait Lookup {
    /// A ConfigMap of the pod's namespace.
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap>;
    /// A Secret of the pod's namespace.
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret>;
    /// A PersistentVolumeClaim of the pod's namespace.
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    /// The PersistentVolume that a claim is bound to.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    /// All services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Service>;
}

/// Values that are known only on the node.
#[derive(Debug, Clone, Default)]
pub struct NodeValues {
    /// spec.nodeName
    pub node_name: String,
    /// status.hostIP
    pub host_ip: String,
    /// status.podIP
    pub pod_ip: String,
}

/// The variables, in the order in which later ones replace earlier ones.
///
/// # Errors
/// When a reference leads nowhere and is not optional; the message names it.
pub fn variables(
    pod: &Pod,
    container: &Container,
    lookup: &dyn Lookup,
    node: &NodeValues,
) -> Result<BTreeMap<String, String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut all = BTreeMap::new();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    service_variables(&mut all, namespace, links, lookup);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let data = config_map(lookup, namespace, &reference.name, reference.optional)?;
            all.extend(data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)));
        }
        if let Some(reference) = &source.secret_ref {
            let data = secret(lookup, namespace, &reference.name, reference.optional)?;
            all.extend(data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)));
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &all)),
            (None, Some(source)) => from_source(pod, source, lookup, node)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            all.insert(variable.name.clone(), value);
        }
    }
    Ok(all)
}

fn from_source(
    pod: &Pod,
    source: &EnvVarSource,
    lookup: &dyn Lookup,
    node: &NodeValues,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let data = config_map(lookup, namespace, &reference.name, reference.optional)?;
        let value = data.get(&reference.key).cloned();
        if value.is_none() && !optional {
            return Err(format!(
                "no key \"{}\" in configmap \"{}\"",
                reference.key, reference.name
            ));
        }
        return Ok(value);
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let data = secret(lookup, namespace, &reference.name, reference.optional)?;
        let value = data.get(&reference.key).cloned();
        if value.is_none() && !optional {
            return Err(format!("no key \"{}\" in secret \"{}\"", reference.key, reference.name));
        }
        return Ok(value);
    }
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, node).map(Some);
    }
    if source.resource_field_ref.is_some() {
        return Err("env.valueFrom.resourceFieldRef is not supported".into());
    }
    Ok(Some(String::new()))
}

/// A field of the pod, as `fieldRef` and the downward API name it.
///
/// # Errors
/// When there is no such field.
pub fn field(pod: &Pod, path: &str, node: &NodeValues) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let values = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unknown field \"{path}\"")),
        };
        return Ok(values.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let lines = |values: &Option<BTreeMap<String, String>>| {
        let lines = values.iter().flatten().map(|(k, v)| format!("{k}={v:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => node.node_name.clone(),
        "spec.serviceAccountName" => pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_else(|| "default".into()),
        "status.hostIP" | "status.hostIPs" => node.host_ip.clone(),
        "status.podIP" | "status.podIPs" => node.pod_ip.clone(),
        _ => return Err(format!("unknown field \"{path}\"")),
    })
}

/// A ConfigMap's text values.
fn config_map(
    lookup: &dyn Lookup,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, String> {
    match lookup.config_map(namespace, name) {
        Some(found) => Ok(found.data.unwrap_or_default()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

fn secret(
    lookup: &dyn Lookup,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, String> {
    match lookup.secret(namespace, name) {
        Some(found) => Ok(found
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

/// FOO_SERVICE_HOST, FOO_SERVICE_PORT and, for named ports, FOO_SERVICE_PORT_NAME.
fn service_variables(
    all: &mut BTreeMap<String, String>,
    namespace: &str,
    links: bool,
    lookup: &dyn Lookup,
) {
    // The API's own service is named in every pod, as clients in clusters expect.
    let mut services = lookup.services("default");
    services.retain(|s| s.metadata.name.as_deref() == Some("kubernetes"));
    if links {
        services.extend(lookup.services(namespace));
    }
    for service in services {
        let Some(spec) = service.spec.as_ref() else { continue };
        let address = spec.cluster_ip.as_deref().filter(|a| !a.is_empty() && *a != "None");
        let (Some(address), Some(name)) = (address, service.metadata.name.as_deref()) else {
            continue;
        };
        let word = |text: &str| text.to_uppercase().replace(['-', '.'], "_");
        let prefix = word(name);
        all.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let number = port.port.to_string();
            if index == 0 {
                all.insert(format!("{prefix}_SERVICE_PORT"), number.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                all.insert(format!("{prefix}_SERVICE_PORT_{}", word(port_name)), number);
            }
        }
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar sign; an unknown name stays as it is.
#[must_use]
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        result.push_str(&rest[..position]);
        let tail = &rest[position + 1..];
        if let Some(tail) = tail.strip_prefix('$') {
            result.push('$');
            rest = tail;
        } else if let Some((name, after)) =
            tail.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
            rest = tail;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
#[path = "env_test.rs"]
mod tests;
