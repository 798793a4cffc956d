//! What the agent of a node may do: read what its pods need, and nothing of others' secrets. Its
//! statuses come over its session, which is the node's own.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use quorate_registry::{DEFAULT_SERVICE_ACCOUNT, Registry};

use super::Attributes;

const READ: &[&str] = &["get", "list", "watch"];
/// What every agent may read: services and their endpoints, for its proxy; nodes; classes.
const SHARED: &[(&str, &str)] = &[
    ("", "services"),
    ("", "nodes"),
    ("", "namespaces"),
    ("discovery.k8s.io", "endpointslices"),
    ("storage.k8s.io", "storageclasses"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
];

pub(crate) fn allows(registry: &Registry, node: &str, wanted: &Attributes) -> bool {
    let Attributes { verb, group, resource, subresource, name, .. } = wanted;
    let read = READ.contains(&verb.as_str());
    if read && subresource.is_empty() && SHARED.contains(&(group.as_str(), resource.as_str())) {
        return true;
    }
    match (group.as_str(), resource.as_str(), subresource.as_str()) {
        ("", "secrets" | "configmaps", "") => {
            verb == "get" && uses(registry, node, wanted, |pod| names(pod, resource, name))
        }
        ("", "serviceaccounts", "token") => {
            verb == "create" && uses(registry, node, wanted, |pod| account(pod) == *name)
        }
        ("", "serviceaccounts", "") => {
            verb == "get" && uses(registry, node, wanted, |pod| account(pod) == *name)
        }
        ("", "pods", "") if verb == "get" => registry
            .cache()
            .pods_on(node)
            .iter()
            .any(|pod| is_at(pod, wanted) && pod.name() == name),
        ("", "events", "") => ["create", "patch"].contains(&verb.as_str()),
        _ => false,
    }
}

fn is_at(pod: &quorate_registry::Object, wanted: &Attributes) -> bool {
    pod.namespace() == wanted.namespace
}

/// Is there a pod on the node for which this is true?
fn uses(
    registry: &Registry,
    node: &str,
    wanted: &Attributes,
    fits: impl Fn(&PodSpec) -> bool,
) -> bool {
    registry.cache().pods_on(node).iter().filter(|pod| is_at(pod, wanted)).any(|object| {
        let pod = object.typed::<Pod>();
        pod.is_ok_and(|pod| pod.spec.as_ref().is_some_and(&fits))
    })
}

fn account(spec: &PodSpec) -> String {
    spec.service_account_name.clone().unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned())
}

/// Does the pod name this ConfigMap or Secret anywhere?
fn names(spec: &PodSpec, resource: &str, name: &str) -> bool {
    let secrets = resource == "secrets";
    let init = spec.init_containers.iter().flatten();
    let in_containers = spec.containers.iter().chain(init).any(|container| {
        let from = container.env_from.iter().flatten().any(|source| match secrets {
            true => source.secret_ref.as_ref().is_some_and(|r| r.name == name),
            false => source.config_map_ref.as_ref().is_some_and(|r| r.name == name),
        });
        let sources = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());
        let mut keys = sources.map(|source| match secrets {
            true => source.secret_key_ref.as_ref().map(|r| &r.name),
            false => source.config_map_key_ref.as_ref().map(|r| &r.name),
        });
        from || keys.any(|key| key.is_some_and(|key| key == name))
    });
    let in_volumes = spec.volumes.iter().flatten().any(|volume| {
        let plain = match secrets {
            true => volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()) == Some(name),
            false => volume.config_map.as_ref().is_some_and(|s| s.name == name),
        };
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let mut projected = sources.map(|source| match secrets {
            true => source.secret.as_ref().map(|s| &s.name),
            false => source.config_map.as_ref().map(|s| &s.name),
        });
        plain || projected.any(|source| source.is_some_and(|source| source == name))
    });
    let pulls = spec.image_pull_secrets.iter().flatten();
    in_containers || in_volumes || (secrets && pulls.into_iter().any(|r| r.name == name))
}
