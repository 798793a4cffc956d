//! From Services and EndpointSlices to what the node listens on. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Kubernetes' default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

/// One address that the node listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// "namespace/name" of the service, for messages.
    pub service: String,
    /// An address of the cluster, served by every agent of the host; otherwise a node port.
    pub cluster_address: bool,
    /// Ready endpoints.
    pub backends: Vec<SocketAddr>,
    /// A client stays with its endpoint for this long.
    pub affinity: Option<Duration>,
}

/// All addresses to listen on.
pub type Table = BTreeMap<SocketAddr, Frontend>;

/// Builds the table. TCP only.
#[must_use]
pub fn build(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: IpAddr) -> Table {
    let mut table = Table::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        if spec.type_.as_deref() == Some("ExternalName") {
            continue;
        }
        let cluster_ip: Option<IpAddr> = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
        for port in spec.ports.iter().flatten() {
            if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
                continue;
            }
            let frontend = frontend(service, port, slices);
            if let (Some(ip), Ok(number)) = (cluster_ip, u16::try_from(port.port)) {
                let cluster = Frontend { cluster_address: true, ..frontend.clone() };
                table.insert(SocketAddr::new(ip, number), cluster);
            }
            let node_port = port.node_port.and_then(|p| u16::try_from(p).ok());
            if let Some(number) = node_port.filter(|p| *p != 0) {
                table.insert(SocketAddr::new(node, number), frontend);
            }
        }
    }
    table
}

fn frontend(service: &Service, port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> Frontend {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let mine = slices.iter().filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        slice.metadata.namespace.as_deref() == Some(namespace)
            && labels.and_then(|l| l.get(SERVICE_NAME)).is_some_and(|n| n == name)
    });
    let mut backends: Vec<SocketAddr> =
        mine.flat_map(|slice| ready_endpoints(slice, port.name.as_deref())).collect();
    backends.sort_unstable();
    backends.dedup();
    let spec = service.spec.as_ref();
    let sticky = spec.and_then(|s| s.session_affinity.as_deref()) == Some("ClientIP");
    let seconds = spec
        .and_then(|s| s.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds)
        .unwrap_or(AFFINITY_SECONDS);
    Frontend {
        service: format!("{namespace}/{name}"),
        cluster_address: false,
        backends,
        affinity: sticky.then(|| Duration::from_secs(u64::from(seconds.unsigned_abs()))),
    }
}

fn ready_endpoints(slice: &EndpointSlice, port_name: Option<&str>) -> Vec<SocketAddr> {
    let wanted = port_name.unwrap_or_default();
    let port = slice.ports.iter().flatten().find(|port| {
        port.name.as_deref().unwrap_or_default() == wanted
            && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
    });
    let Some(port) = port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else {
        return Vec::new();
    };
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    ready
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, port)))
        .collect()
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
