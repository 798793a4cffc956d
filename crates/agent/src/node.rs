//! The Node object: what the agent knows of its machine.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
    Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use quorate_objects::{node, quantity};

use crate::AgentOptions;
use crate::error::AgentError;
use crate::runtime::RuntimeInfo;

/// As in Kubernetes.
const PODS: i64 = 110;

/// The Node as the agent registers it.
#[must_use]
pub fn object(options: &AgentOptions, runtime: &RuntimeInfo) -> Node {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", options.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    labels.extend(options.labels.clone());
    let capacity = capacity(options);
    let address = |kind: &str, value: String| NodeAddress { type_: kind.into(), address: value };
    Node {
        metadata: ObjectMeta {
            name: Some(options.node_name.clone()),
            labels: Some(labels),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            taints: (!options.taints.is_empty()).then(|| options.taints.clone()),
            ..Default::default()
        }),
        status: Some(NodeStatus {
            addresses: Some(vec![
                address("InternalIP", options.node_address.to_string()),
                address("Hostname", options.node_name.clone()),
            ]),
            allocatable: Some(capacity.clone()),
            capacity: Some(capacity),
            daemon_endpoints: Some(NodeDaemonEndpoints::default()),
            node_info: Some(info(architecture, runtime)),
            ..Default::default()
        }),
    }
}

fn capacity(options: &AgentOptions) -> BTreeMap<String, Quantity> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let millis = options.cpu_millis.unwrap_or(i64::try_from(cores).unwrap_or(1) * 1000);
    let memory = options.memory_bytes.unwrap_or_else(total_memory);
    BTreeMap::from([
        ("cpu".to_owned(), quantity::from_millis(millis)),
        ("memory".to_owned(), quantity::from_bytes(memory)),
        ("pods".to_owned(), Quantity(options.pods.unwrap_or(PODS).to_string())),
    ])
}

/// Bytes of main memory.
fn total_memory() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<i64>().ok());
    kib.unwrap_or(1 << 20) * 1024
}

fn info(architecture: &str, runtime: &RuntimeInfo) -> NodeSystemInfo {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os_image = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned());
    NodeSystemInfo {
        architecture: architecture.to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        kubelet_version: format!("quorate-{}", env!("CARGO_PKG_VERSION")),
        machine_id: line("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image,
        ..Default::default()
    }
}

/// What the node is troubled by, apart from being heard or not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Troubles {
    /// The container engine does not answer.
    pub runtime: Option<String>,
    /// There is no pod network.
    pub network: Option<String>,
    /// Addresses of services that cannot be served.
    pub services: Vec<String>,
}

/// The node's conditions. One that stays keeps its time.
#[must_use]
pub fn conditions(
    troubles: &Troubles,
    previous: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let services = (!troubles.services.is_empty()).then(|| troubles.services.join("; "));
    let rows = [
        (
            node::RUNTIME_READY,
            "True",
            "False",
            "DockerReachable",
            "DockerUnreachable",
            &troubles.runtime,
        ),
        (
            node::NETWORK_UNAVAILABLE,
            "False",
            "True",
            "PodNetworkReady",
            "NoPodNetwork",
            &troubles.network,
        ),
        ("ServicesServed", "True", "False", "AllAddressesServed", "AddressNotServed", &services),
    ];
    rows.map(|(kind, good, bad, good_reason, bad_reason, trouble)| {
        let status = if trouble.is_none() { good } else { bad };
        let same = previous.iter().find(|c| c.type_ == kind && c.status == status);
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some((if trouble.is_none() { good_reason } else { bad_reason }).to_owned()),
            message: trouble.clone(),
            last_transition_time: same
                .and_then(|c| c.last_transition_time.clone())
                .or(Some(Time(now))),
            ..Default::default()
        }
    })
    .to_vec()
}

/// Reads "key=value:Effect" or "key:Effect".
///
/// # Errors
/// When it is neither.
pub fn parse_taint(text: &str) -> Result<Taint, AgentError> {
    let wrong = || {
        AgentError::Options(format!(
            "taint \"{text}\": write key=value:Effect, with NoSchedule, PreferNoSchedule or \
             NoExecute for Effect"
        ))
    };
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) || rest.is_empty() {
        return Err(wrong());
    }
    let (key, value) = rest.split_once('=').map_or((rest, None), |(k, v)| (k, Some(v)));
    Ok(Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.to_owned(),
        ..Default::default()
    })
}

#[cfg(test)]
#[path = "node_test.rs"]
mod tests;
