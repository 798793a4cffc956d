//! What names of services stand for: a pure function of Services and EndpointSlices, as the
//! specification of Kubernetes' service discovery by DNS has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The domain of every cluster.
pub const DOMAIN: &str = "cluster.local";

/// One place where a service's port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Port.
    pub port: u16,
    /// Name that has the address.
    pub target: String,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// These ports.
    Ports(Vec<Srv>),
    /// Another name.
    Alias(String),
    /// It exists, and has neither.
    Nothing,
    /// There is no such name.
    Missing,
    /// It is not the cluster's: others know it.
    Foreign,
}

/// A port of a service or an endpoint: name, protocol in small letters, number.
type Port = (String, String, u16);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Endpoint {
    address: Option<Ipv4Addr>,
    hostname: String,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// One address of its own.
    Cluster(Ipv4Addr),
    /// Those of its endpoints.
    Headless(Vec<Endpoint>),
    /// A name elsewhere.
    External(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    ports: Vec<Port>,
}

/// All names of the cluster.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Zone {
    services: BTreeMap<(String, String), Entry>,
    namespaces: BTreeSet<String>,
}

/// Builds the zone.
#[must_use]
pub fn build(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Zone {
    let mut zone = Zone::default();
    for service in services {
        let meta = &service.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let Some(spec) = &service.spec else { continue };
        let number = |port: i32| u16::try_from(port).unwrap_or(0);
        let ports = spec.ports.iter().flatten().map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            (port.name.clone().unwrap_or_default(), protocol, number(port.port))
        });
        let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
            (Some("ExternalName"), _) => {
                Kind::External(spec.external_name.clone().unwrap_or_default())
            }
            (_, Some("None")) => {
                let unready = spec.publish_not_ready_addresses == Some(true);
                Kind::Headless(endpoints(&namespace, &name, slices, unready))
            }
            (_, Some(ip)) => match ip.parse() {
                Ok(ip) => Kind::Cluster(ip),
                Err(_) => continue,
            },
            _ => continue,
        };
        zone.namespaces.insert(namespace.clone());
        zone.services.insert((namespace, name), Entry { kind, ports: ports.collect() });
    }
    zone
}

fn endpoints(
    namespace: &str,
    service: &str,
    slices: &[Arc<EndpointSlice>],
    unready: bool,
) -> Vec<Endpoint> {
    let of = |slice: &&Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
        slice.metadata.namespace.as_deref() == Some(namespace)
            && label.map(String::as_str) == Some(service)
    };
    let mut found = Vec::new();
    for slice in slices.iter().filter(of) {
        let ports: Vec<Port> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                let number = port.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
                (port.name.clone().unwrap_or_default(), protocol, number)
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false);
            if !ready && !unready {
                continue;
            }
            for address in endpoint.addresses.iter() {
                found.push(Endpoint {
                    address: address.parse().ok(),
                    hostname: endpoint.hostname.clone().unwrap_or_default(),
                    ports: ports.clone(),
                });
            }
        }
    }
    found
}

impl Endpoint {
    /// Its name below the service: the pod's host name, or its address with dashes.
    fn label(&self) -> Option<String> {
        if self.hostname.is_empty() {
            self.address.map(|ip| ip.to_string().replace('.', "-"))
        } else {
            Some(self.hostname.to_lowercase())
        }
    }
}

impl Zone {
    /// What a name stands for, without a dot at its end.
    #[must_use]
    pub fn look_up(&self, name: &str) -> Answer {
        let name = name.to_lowercase();
        let Some(rest) = name.strip_suffix(DOMAIN) else { return Answer::Foreign };
        let labels: Vec<&str> = match rest.strip_suffix('.') {
            Some(rest) => rest.split('.').collect(),
            None if rest.is_empty() => return Answer::Nothing,
            None => return Answer::Foreign,
        };
        match labels.as_slice() {
            ["svc" | "pod"] => Answer::Nothing,
            [namespace, "svc"] if self.namespaces.contains(*namespace) => Answer::Nothing,
            [service, namespace, "svc"] => self.service(namespace, service),
            [port, protocol, service, namespace, "svc"] => {
                let name = format!("{service}.{namespace}.svc.{DOMAIN}");
                match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                    (Some(port), Some(protocol)) => {
                        self.ports(namespace, service, port, protocol, &name)
                    }
                    _ => Answer::Missing,
                }
            }
            [host, service, namespace, "svc"] => self.host(namespace, service, host),
            [address, _, "pod"] => match address.replace('-', ".").parse() {
                Ok(ip) => Answer::Addresses(vec![ip]),
                Err(_) => Answer::Missing,
            },
            _ => Answer::Missing,
        }
    }

    fn entry(&self, namespace: &str, service: &str) -> Option<&Entry> {
        self.services.get(&(namespace.to_owned(), service.to_owned()))
    }

    fn service(&self, namespace: &str, service: &str) -> Answer {
        match self.entry(namespace, service).map(|entry| &entry.kind) {
            None => Answer::Missing,
            Some(Kind::Cluster(ip)) => Answer::Addresses(vec![*ip]),
            Some(Kind::External(name)) => Answer::Alias(name.clone()),
            Some(Kind::Headless(endpoints)) => {
                let all: Vec<Ipv4Addr> = endpoints.iter().filter_map(|e| e.address).collect();
                if all.is_empty() { Answer::Nothing } else { Answer::Addresses(all) }
            }
        }
    }

    fn host(&self, namespace: &str, service: &str, host: &str) -> Answer {
        let Some(Entry { kind: Kind::Headless(endpoints), .. }) = self.entry(namespace, service)
        else {
            return Answer::Missing;
        };
        let named = endpoints.iter().filter(|e| e.label().as_deref() == Some(host));
        let all: Vec<Ipv4Addr> = named.filter_map(|endpoint| endpoint.address).collect();
        if all.is_empty() { Answer::Missing } else { Answer::Addresses(all) }
    }

    fn ports(
        &self,
        namespace: &str,
        service: &str,
        port: &str,
        protocol: &str,
        name: &str,
    ) -> Answer {
        let Some(entry) = self.entry(namespace, service) else { return Answer::Missing };
        let wanted = |p: &&Port| p.0 == port && p.1 == protocol;
        let found: Vec<Srv> = match &entry.kind {
            Kind::Headless(endpoints) => endpoints
                .iter()
                .filter_map(|endpoint| {
                    let (.., port) = endpoint.ports.iter().find(wanted)?;
                    Some(Srv { port: *port, target: format!("{}.{name}", endpoint.label()?) })
                })
                .collect(),
            _ => {
                let ports = entry.ports.iter().filter(wanted);
                ports.map(|p| Srv { port: p.2, target: name.to_owned() }).collect()
            }
        };
        if found.is_empty() { Answer::Missing } else { Answer::Ports(found) }
    }
}

#[cfg(test)]
#[path = "zone_test.rs"]
mod tests;
