//! From a pod to what the runtime needs: every reference resolved, every default applied.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, PodSpec, SecurityContext};
use quorate_objects::quantity;

use super::env::{Lookup, NodeValues, expand, variables};
use super::{access, plan, termination, volumes};
use crate::dns::zone;
use crate::runtime::{
    Bind, ContainerSpec, Cpu, Dns, HostPort, PidNamespace, Place, PodRef, PullPolicy, Role,
    SandboxSpec, Security,
};

/// Kubernetes' default.
const DEFAULT_GRACE: u32 = 30;
/// The kernel allows 64 with the end.
const HOSTNAME: usize = 63;

/// Who a pod is.
#[must_use]
pub fn pod_ref(pod: &Pod) -> PodRef {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PodRef {
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
    }
}

/// Seconds that the pod's containers get to stop.
#[must_use]
pub fn grace(pod: &Pod) -> u32 {
    let deleting = pod.metadata.deletion_grace_period_seconds;
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    deleting.or(own).and_then(|s| u32::try_from(s).ok()).unwrap_or(DEFAULT_GRACE)
}

/// The pod's resolver: the cluster's names first, unless the pod wants the node's resolver or
/// none at all; then what the pod adds itself.
fn dns(spec: &PodSpec, namespace: &str, server: Option<Ipv4Addr>) -> Dns {
    let own = spec.dns_config.clone().unwrap_or_default();
    let cluster = match spec.dns_policy.as_deref() {
        Some("Default" | "None") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => spec.host_network != Some(true),
    };
    let mut dns = Dns::default();
    if let Some(server) = server.filter(|_| cluster) {
        dns.servers.push(server.to_string());
        let domains = [format!("{namespace}.svc."), "svc.".to_owned(), String::new()];
        dns.searches.extend(domains.map(|domain| format!("{domain}{}", zone::DOMAIN)));
        dns.options.push("ndots:5".to_owned());
    }
    dns.servers.extend(own.nameservers.unwrap_or_default());
    dns.searches.extend(own.searches.unwrap_or_default());
    for option in own.options.unwrap_or_default() {
        let Some(name) = option.name else { continue };
        dns.options.retain(|known| known.split(':').next() != Some(&name));
        dns.options.push(option.value.map_or_else(|| name.clone(), |v| format!("{name}:{v}")));
    }
    dns
}

/// The pod's sandbox. `server` is the node's name server for the cluster's names.
#[must_use]
pub fn sandbox(pod: &Pod, attempt: u32, host_ip: IpAddr, server: Option<Ipv4Addr>) -> SandboxSpec {
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let mut ports = Vec::new();
    for port in spec.containers.iter().flat_map(|c| c.ports.iter().flatten()) {
        let (Some(host_port), false) = (port.host_port, host_network) else { continue };
        let number = |n: i32| u16::try_from(n).unwrap_or_default();
        ports.push(HostPort {
            // The node's own address: several nodes may share a host.
            host_ip: port.host_ip.clone().unwrap_or_else(|| host_ip.to_string()),
            host_port: number(host_port),
            container_port: number(port.container_port),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
        });
    }
    let aliases = spec.host_aliases.iter().flatten();
    let extra_hosts = aliases
        .flat_map(|a| a.hostnames.iter().flatten().map(move |name| format!("{name}:{}", a.ip)))
        .collect();
    let dns = dns(&spec, pod.metadata.namespace.as_deref().unwrap_or_default(), server);
    let mut hostname = spec.hostname.or(pod.metadata.name.clone()).unwrap_or_default();
    hostname.truncate(HOSTNAME);
    SandboxSpec {
        pod: pod_ref(pod),
        attempt,
        hostname: hostname.trim_end_matches(['-', '.']).to_owned(),
        host_network,
        ports,
        extra_hosts,
        dns,
        sysctls: spec
            .security_context
            .and_then(|s| s.sysctls)
            .unwrap_or_default()
            .into_iter()
            .map(|s| (s.name, s.value))
            .collect(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
    }
}

/// When to pull a container's image: what it says, or Kubernetes' rule by the tag.
#[must_use]
pub fn pull_policy(container: &Container) -> PullPolicy {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) => PullPolicy::IfNotPresent,
        None if last.ends_with(":latest") || !last.contains([':', '@']) => PullPolicy::Always,
        None => PullPolicy::IfNotPresent,
    }
}

/// Numbers of a container to be made.
#[derive(Debug, Clone)]
pub struct Making<'a> {
    /// Init or app.
    pub role: Role,
    /// See `Record::attempt`.
    pub attempt: u32,
    /// See `Record::failures`.
    pub failures: u32,
    /// Id of the sandbox.
    pub sandbox: &'a str,
}

/// What volumes are made with.
pub struct Volumes<'a> {
    /// The agent's data directory.
    pub folder: &'a Path,
    /// Where those of claims are.
    pub claimed: BTreeMap<String, Place>,
    /// Tokens of the pod's service account.
    pub tokens: access::Files,
}

/// A container of the pod. Makes or refreshes the pod's volumes on the way; a node that keeps
/// nothing has none. `image_user`: as whom the image's program runs, where that counts.
///
/// # Errors
/// What is missing or wrong, in words: the reason is CreateContainerConfigError.
pub fn container(
    volumes: Option<Volumes<'_>>,
    pod: &Pod,
    container: &Container,
    making: &Making<'_>,
    lookup: &dyn Lookup,
    node: &NodeValues,
    image_user: &str,
) -> Result<ContainerSpec, String> {
    let pod_spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let env = variables(pod, container, lookup, node)?;
    let binds = match volumes {
        Some(Volumes { folder, claimed, tokens }) => {
            let mut places = volumes::prepare(folder, pod, lookup, node, &tokens)?;
            places.extend(claimed);
            let mut binds = binds(pod, container, &places, &env)?;
            binds.push(last_words(folder, pod, container, making.attempt)?);
            binds
        }
        None => Vec::new(),
    };
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand(word, &env)).collect()
    };
    Ok(ContainerSpec {
        pod: pod_ref(pod),
        role: making.role,
        sidecar: making.role == Role::Init && plan::is_sidecar(container),
        name: container.name.clone(),
        attempt: making.attempt,
        failures: making.failures,
        sandbox: making.sandbox.to_owned(),
        host_network: pod_spec.host_network == Some(true),
        pid: match (pod_spec.host_pid, pod_spec.share_process_namespace) {
            (Some(true), _) => PidNamespace::Host,
            (_, Some(true)) => PidNamespace::Of(making.sandbox.to_owned()),
            _ => PidNamespace::Own,
        },
        grace: grace(pod),
        image: container.image.clone().unwrap_or_default(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        env: env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        binds,
        cpu: cpu(container),
        memory_limit: limit(container, "memory").map(quantity::bytes),
        security: security(
            pod_spec.security_context.as_ref(),
            container.security_context.as_ref(),
            image_user,
        )?,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
    })
}

/// The file for a container's last words.
fn last_words(
    folder: &Path,
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> Result<Bind, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let file = termination::prepare(folder, uid, &container.name, attempt);
    let file = file.map_err(|e| format!("terminationMessagePath: {e}"))?;
    let path = container.termination_message_path.clone().filter(|path| !path.is_empty());
    Ok(Bind {
        source: Place::Path(file),
        target: path.unwrap_or_else(|| termination::PATH.to_owned()),
        read_only: false,
    })
}

/// What a container mounts.
fn binds(
    pod: &Pod,
    container: &Container,
    places: &BTreeMap<String, Place>,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Bind>, String> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let place = places
            .get(&mount.name)
            .ok_or_else(|| format!("no volume \"{}\" in the pod", mount.name))?;
        let path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(path)) if !path.is_empty() => Some(expand(path, env)),
            _ => None,
        };
        let source = match path {
            Some(path) => Place::Path(sub_path(place.path(), &path)?),
            None => place.clone(),
        };
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let claim = volumes.find(|volume| volume.name == mount.name);
        let claim = claim.and_then(|volume| volume.persistent_volume_claim.as_ref());
        let read_only = claim.and_then(|claim| claim.read_only) == Some(true);
        binds.push(Bind {
            source,
            target: mount.mount_path.clone(),
            read_only: read_only || mount.read_only == Some(true),
        });
    }
    Ok(binds)
}

/// A path inside of a volume, with links followed so that the runtime need not, and never
/// outside of it.
fn sub_path(place: &Path, path: &str) -> Result<PathBuf, String> {
    let wanted = place.join(path);
    let inside = !Path::new(path).is_absolute() && !path.split('/').any(|part| part == "..");
    if !inside {
        return Err(format!("subPath \"{path}\" must stay inside of its volume"));
    }
    if !wanted.exists() {
        std::fs::create_dir_all(&wanted).map_err(|e| format!("subPath \"{path}\": {e}"))?;
    }
    let real = wanted.canonicalize().map_err(|e| format!("subPath \"{path}\": {e}"))?;
    let root = place.canonicalize().map_err(|e| format!("subPath \"{path}\": {e}"))?;
    if real.starts_with(&root) {
        Ok(real)
    } else {
        Err(format!("subPath \"{path}\" must stay inside of its volume"))
    }
}

type Quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn limit<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(name)
}

/// Shares by the request (1024 a core, as Kubernetes has it), quota by the limit.
fn cpu(container: &Container) -> Cpu {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let limit = limit(container, "cpu").map(quantity::cpu_millis);
    let request = requests.and_then(|r| r.get("cpu")).map(quantity::cpu_millis).or(limit);
    Cpu {
        shares: request.map(|m| (m * 1024 / 1000).clamp(2, 262_144)),
        quota: limit.map(|m| (m * 100).max(1000)),
    }
}

/// Does only its image say as whom the container runs, and does that count: because it must not
/// be root, or because it runs as a member of another group?
#[must_use]
pub fn leaves_user_to_image(pod: &Pod, container: &Container) -> bool {
    let pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let identity = Identity::of(pod, container.security_context.as_ref());
    identity.user.is_none() && (identity.non_root || identity.group.is_some())
}

/// As whom a container is to run. The container's word goes before the pod's.
struct Identity {
    user: Option<i64>,
    group: Option<i64>,
    non_root: bool,
}

impl Identity {
    fn of(pod: Option<&PodSecurityContext>, container: Option<&SecurityContext>) -> Self {
        let non_root = container.and_then(|c| c.run_as_non_root);
        Self {
            user: container.and_then(|c| c.run_as_user).or(pod.and_then(|p| p.run_as_user)),
            group: container.and_then(|c| c.run_as_group).or(pod.and_then(|p| p.run_as_group)),
            non_root: non_root.or(pod.and_then(|p| p.run_as_non_root)) == Some(true),
        }
    }

    /// In Docker's form: "uid" or "uid:gid"; empty: the image's.
    ///
    /// # Errors
    /// When it would be root and must not be.
    fn resolve(&self, image_user: &str) -> Result<String, String> {
        match (self.user, self.non_root) {
            (Some(0), true) => return Err("runAsNonRoot is set and runAsUser is 0".into()),
            (None, true) => check_non_root(image_user)?,
            _ => {}
        }
        // With only a group it stays the image's user, whose own group counts no more.
        let image_user = image_user.split(':').next().filter(|user| !user.is_empty());
        Ok(match (self.user, self.group) {
            (Some(user), Some(group)) => format!("{user}:{group}"),
            (Some(user), None) => user.to_string(),
            (None, Some(group)) => format!("{}:{group}", image_user.unwrap_or("0")),
            (None, None) => String::new(),
        })
    }
}

/// Is the user of an image, for all one can see, another one than root?
///
/// # Errors
/// When it is root, or a name, behind which root may be; in Kubernetes' words, and what to do.
fn check_non_root(user: &str) -> Result<(), String> {
    let name = user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(number) if number > 0 => Ok(()),
        Err(_) if !name.is_empty() && name != "root" => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user \
             is non-root; set runAsUser"
        )),
        _ => Err("container has runAsNonRoot and image will run as root; set runAsUser".into()),
    }
}

fn security(
    pod: Option<&PodSecurityContext>,
    container: Option<&SecurityContext>,
    image_user: &str,
) -> Result<Security, String> {
    let user = Identity::of(pod, container).resolve(image_user)?;
    let groups = pod.into_iter().flat_map(|p| {
        p.supplemental_groups.iter().flatten().copied().chain(p.fs_group).map(|g| g.to_string())
    });
    let capabilities = container.and_then(|c| c.capabilities.clone()).unwrap_or_default();
    let seccomp = container.and_then(|c| c.seccomp_profile.as_ref());
    let seccomp = seccomp.or(pod.and_then(|p| p.seccomp_profile.as_ref()));
    if seccomp.is_some_and(|profile| profile.type_ == "Localhost") {
        return Err("seccompProfile of type Localhost is not supported; use RuntimeDefault".into());
    }
    Ok(Security {
        unconfined: seccomp.is_some_and(|profile| profile.type_ == "Unconfined"),
        user,
        groups: groups.collect(),
        privileged: container.and_then(|c| c.privileged) == Some(true),
        read_only: container.and_then(|c| c.read_only_root_filesystem) == Some(true),
        no_new_privileges: container.and_then(|c| c.allow_privilege_escalation) == Some(false),
        cap_add: capabilities.add.unwrap_or_default(),
        cap_drop: capabilities.drop.unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
