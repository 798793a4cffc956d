//! From our words to Docker's and back. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HostConfig, HostConfigLogConfig, Ipam,
    IpamConfig, Mount, MountType, MountVolumeOptions, NetworkCreateRequest, PortBinding,
    VolumeCreateRequest,
};
use jiff::Timestamp;

use crate::runtime::{
    Bind, ContainerSpec, PidNamespace, Place, PodRef, Record, Role, RunState, SandboxSpec,
    VolumeSpec,
};

/// Labels that we write; adoption reads them.
pub mod label {
    /// Id of the cluster.
    pub const CLUSTER: &str = "quorate.dev/cluster";
    /// Name of the node.
    pub const NODE: &str = "quorate.dev/node";
    /// metadata.namespace of the pod.
    pub const NAMESPACE: &str = "quorate.dev/pod-namespace";
    /// metadata.name of the pod.
    pub const POD: &str = "quorate.dev/pod-name";
    /// metadata.uid of the pod.
    pub const UID: &str = "quorate.dev/pod-uid";
    /// "sandbox", "init" or "app".
    pub const ROLE: &str = "quorate.dev/role";
    /// Name of the container in the pod.
    pub const CONTAINER: &str = "quorate.dev/container";
    /// How often it was started before.
    pub const ATTEMPT: &str = "quorate.dev/attempt";
    /// Quick failures in a row before it.
    pub const FAILURES: &str = "quorate.dev/failures";
    /// Id of the sandbox that it joined.
    pub const SANDBOX: &str = "quorate.dev/sandbox";
    /// Seconds that it gets to stop.
    pub const GRACE: &str = "quorate.dev/grace-seconds";
    /// Namespace and name of the claim that has a volume.
    pub const CLAIM: &str = "quorate.dev/claim";
    /// Hash of what it was made from.
    pub const HASH: &str = "quorate.dev/spec-hash";
}

/// Image of the sandbox; the agent builds it.
pub const PAUSE_IMAGE: &str = "quorate/pause:1";
/// Each log file of a container, and how many of them.
const LOG_SIZE: (&str, &str) = ("16m", "3");
/// Docker's period for processor quotas, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// Which node of which cluster this is.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Id of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
}

impl Owner {
    /// Filters for exactly this node's containers.
    #[must_use]
    pub fn filters(&self, pod_uid: Option<&str>) -> Vec<String> {
        let mut all = vec![
            format!("{}={}", label::CLUSTER, self.cluster),
            format!("{}={}", label::NODE, self.node),
        ];
        if let Some(uid) = pod_uid {
            all.push(format!("{}={uid}", label::UID));
        }
        all
    }

    /// Name of the node's network.
    #[must_use]
    pub fn network(&self) -> String {
        let short: String = self.cluster.chars().take(8).collect();
        format!("quorate-{short}-{}", self.node)
    }

    /// Name of its bridge: the kernel allows 15 bytes.
    #[must_use]
    pub fn bridge(&self) -> String {
        let hash = fnv(&[self.cluster.as_bytes(), b"/", self.node.as_bytes()].concat());
        format!("qr{:012x}", hash & 0xffff_ffff_ffff)
    }

    fn labels(&self, pod: &PodRef, role: Role, attempt: u32) -> HashMap<String, String> {
        [
            (label::CLUSTER, self.cluster.clone()),
            (label::NODE, self.node.clone()),
            (label::NAMESPACE, pod.namespace.clone()),
            (label::POD, pod.name.clone()),
            (label::UID, pod.uid.clone()),
            (label::ROLE, role.as_str().to_owned()),
            (label::ATTEMPT, attempt.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// FNV-1a, 64 bits: names and hashes that stay the same between builds.
#[must_use]
pub fn fnv(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Name of a container, for people; labels say the same for us.
#[must_use]
pub fn container_name(pod: &PodRef, container: &str, attempt: u32) -> String {
    format!("qr_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

/// The node's network, with the subnet that the cluster gave the node.
#[must_use]
pub fn network(owner: &Owner, cidr: &str) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: owner.network(),
        driver: Some("bridge".into()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig { subnet: Some(cidr.to_owned()), ..Default::default() }]),
            ..Default::default()
        }),
        options: Some(HashMap::from([(
            "com.docker.network.bridge.name".to_owned(),
            owner.bridge(),
        )])),
        labels: Some(HashMap::from([
            (label::CLUSTER.to_owned(), owner.cluster.clone()),
            (label::NODE.to_owned(), owner.node.clone()),
        ])),
        ..Default::default()
    }
}

/// A volume in Docker's words.
#[must_use]
pub fn volume(owner: &Owner, spec: &VolumeSpec) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(spec.name.clone()),
        labels: Some(HashMap::from([
            (label::CLUSTER.to_owned(), owner.cluster.clone()),
            (label::NODE.to_owned(), owner.node.clone()),
            (label::CLAIM.to_owned(), spec.claim.clone()),
        ])),
        ..Default::default()
    }
}

fn none_if_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn log_config() -> HostConfigLogConfig {
    let (size, files) = LOG_SIZE;
    HostConfigLogConfig {
        typ: Some("json-file".into()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), size.to_owned()),
            ("max-file".to_owned(), files.to_owned()),
        ])),
    }
}

/// A sandbox in Docker's words.
#[must_use]
pub fn sandbox(owner: &Owner, spec: &SandboxSpec) -> ContainerCreateBody {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let key = format!("{}/{}", port.container_port, port.protocol);
        bindings.entry(key).or_default().get_or_insert_default().push(PortBinding {
            host_ip: Some(port.host_ip.clone()),
            host_port: Some(port.host_port.to_string()),
        });
    }
    let host = HostConfig {
        network_mode: Some(if spec.host_network { "host".into() } else { owner.network() }),
        port_bindings: (!bindings.is_empty()).then(|| bindings.clone()),
        extra_hosts: none_if_empty(spec.extra_hosts.clone()),
        dns: none_if_empty(spec.dns.servers.clone()),
        dns_search: none_if_empty(spec.dns.searches.clone()),
        dns_options: none_if_empty(spec.dns.options.clone()),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        ipc_mode: Some("shareable".into()),
        log_config: Some(log_config()),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(PAUSE_IMAGE.into()),
        hostname: (!spec.host_network).then(|| spec.hostname.clone()),
        exposed_ports: none_if_empty(bindings.into_keys().collect()),
        labels: Some(owner.labels(&spec.pod, Role::Sandbox, spec.attempt)),
        stop_timeout: Some(2),
        host_config: Some(host),
        ..Default::default()
    }
}

/// A volume of the engine, mounted by its name. It is not filled with what the image has there: a
/// pod's volume is empty at first.
fn mount(bind: &Bind) -> Option<Mount> {
    let Place::Volume { name, .. } = &bind.source else { return None };
    Some(Mount {
        target: Some(bind.target.clone()),
        source: Some(name.clone()),
        typ: Some(MountType::VOLUME),
        read_only: Some(bind.read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
        ..Default::default()
    })
}

/// A container in Docker's words.
#[must_use]
pub fn container(owner: &Owner, spec: &ContainerSpec) -> ContainerCreateBody {
    let mut labels = owner.labels(&spec.pod, spec.role, spec.attempt);
    for (key, value) in [
        (label::CONTAINER, spec.name.clone()),
        (label::FAILURES, spec.failures.to_string()),
        (label::SANDBOX, spec.sandbox.clone()),
        (label::GRACE, spec.grace.to_string()),
        (label::HASH, format!("{:016x}", fnv(format!("{spec:?}").as_bytes()))),
    ] {
        labels.insert(key.to_owned(), value);
    }
    let binds = spec.binds.iter().filter_map(|bind| match &bind.source {
        Place::Path(path) => {
            let mode = if bind.read_only { "ro" } else { "rw" };
            Some(format!("{}:{}:{mode}", path.display(), bind.target))
        }
        Place::Volume { .. } => None,
    });
    let security = &spec.security;
    let options = [
        (security.no_new_privileges, "no-new-privileges"),
        (security.unconfined, "seccomp=unconfined"),
    ];
    let options = options.into_iter().filter(|(wanted, _)| *wanted).map(|(_, o)| o.to_owned());
    let host = HostConfig {
        network_mode: Some(format!("container:{}", spec.sandbox)),
        ipc_mode: Some(format!("container:{}", spec.sandbox)),
        pid_mode: match &spec.pid {
            PidNamespace::Own => None,
            PidNamespace::Host => Some("host".to_owned()),
            PidNamespace::Of(id) => Some(format!("container:{id}")),
        },
        binds: none_if_empty(binds.collect()),
        mounts: none_if_empty(spec.binds.iter().filter_map(mount).collect()),
        cpu_shares: spec.cpu.shares,
        cpu_period: spec.cpu.quota.map(|_| CPU_PERIOD),
        cpu_quota: spec.cpu.quota,
        memory: spec.memory_limit,
        // The same as the limit: no swap on top of it.
        memory_swap: spec.memory_limit,
        group_add: none_if_empty(security.groups.clone()),
        privileged: Some(security.privileged),
        readonly_rootfs: Some(security.read_only),
        security_opt: none_if_empty(options.collect()),
        cap_add: none_if_empty(security.cap_add.clone()),
        cap_drop: none_if_empty(security.cap_drop.clone()),
        log_config: Some(log_config()),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        user: (!security.user.is_empty()).then(|| security.user.clone()),
        env: none_if_empty(spec.env.clone()),
        entrypoint: none_if_empty(spec.command.clone()),
        // A command without arguments must not inherit the image's arguments.
        cmd: if spec.command.is_empty() {
            none_if_empty(spec.args.clone())
        } else {
            Some(spec.args.clone())
        },
        working_dir: (!spec.working_dir.is_empty()).then(|| spec.working_dir.clone()),
        labels: Some(labels),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        // Else Docker ends an attached stream with its input, and the process reads on for ever.
        stdin_once: Some(spec.stdin_once),
        stop_timeout: Some(i64::from(spec.grace)),
        host_config: Some(host),
        ..Default::default()
    }
}

/// What Docker tells of one of our containers; none when the labels are not ours.
#[must_use]
pub fn record(owner: &Owner, inspected: ContainerInspectResponse) -> Option<Record> {
    let config = inspected.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let number = |key: &str| labels.get(key).and_then(|v| v.parse().ok()).unwrap_or(0);
    let state = inspected.state.unwrap_or_default();
    let running = state.running.unwrap_or(false);
    let started_at = time(state.started_at.as_deref());
    let run_state = match (running, started_at) {
        (true, _) => RunState::Running,
        (false, None) => RunState::Created,
        (false, Some(_)) => RunState::Exited,
    };
    let networks = inspected.network_settings.and_then(|n| n.networks).unwrap_or_default();
    let ip = networks.get(&owner.network()).and_then(|n| n.ip_address.as_deref());
    Some(Record {
        id: inspected.id?,
        pod: PodRef {
            namespace: text(label::NAMESPACE),
            name: text(label::POD),
            uid: text(label::UID),
        },
        role: Role::parse(&text(label::ROLE))?,
        container: text(label::CONTAINER),
        attempt: number(label::ATTEMPT),
        failures: number(label::FAILURES),
        sandbox: text(label::SANDBOX),
        grace: number(label::GRACE),
        image: config.image.unwrap_or_default(),
        image_id: inspected.image.unwrap_or_default(),
        state: run_state,
        created_at: time(inspected.created.as_deref()).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at,
        finished_at: if running { None } else { time(state.finished_at.as_deref()) },
        exit_code: state.exit_code.and_then(|c| i32::try_from(c).ok()).unwrap_or(-1),
        oom_killed: state.oom_killed.unwrap_or(false),
        error: state.error.unwrap_or_default(),
        ip: ip.and_then(|text| text.parse().ok()),
        unready: false,
    })
}

/// Docker writes the year 1 for "never".
fn time(text: Option<&str>) -> Option<Timestamp> {
    let time: Timestamp = text?.parse().ok()?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

#[cfg(test)]
#[path = "spec_test.rs"]
pub(super) mod tests;
