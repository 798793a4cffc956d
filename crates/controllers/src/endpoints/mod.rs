//! EndpointSlices: which pods stand behind a Service. Endpoints, their older form, are written
//! from them; those that users write for Services without a selector become slices.

mod mirror;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Endpoints as Addresses, Node, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use quorate_objects::{Selector, kinds, pod};
use quorate_registry::{ObjectEvent, Propagation};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::nodes::{UNREACHABLE, has_taint};
use crate::queue::Key;

/// The label by which readers find a Service's slices.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.quorate.dev";
/// Endpoints in one slice (Kubernetes' default).
const SLICE_MAX: usize = 100;

/// The controller of EndpointSlices.
pub struct Endpoints {
    context: Arc<Context>,
    /// Pods that were behind a Service when it was last looked at: a pod that no longer matches
    /// still concerns it.
    behind: Mutex<HashMap<Key, HashSet<String>>>,
}

impl Endpoints {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, behind: Mutex::default() }
    }

    fn services_of(
        &self,
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<Key> {
        let services = self.context.list::<Service>(Some(namespace));
        let matching = services
            .iter()
            .filter(|service| selector_of(service).is_some_and(|s| s.matches(labels)))
            .map(|service| key(service));
        let mut keys: HashSet<Key> = matching.collect();
        let behind = self.behind.lock();
        let before =
            behind.iter().filter(|(key, pods)| key.namespace == namespace && pods.contains(name));
        keys.extend(before.map(|(key, _)| key.clone()));
        keys.into_iter().collect()
    }

    /// The older form of the same, for the clients that read it.
    async fn write_addresses(&self, mut wanted: Addresses) -> Result<(), ControllerError> {
        let meta = &wanted.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let present =
            self.context.get::<Addresses>(namespace.unwrap_or_default(), name.unwrap_or_default());
        match present {
            None => self.context.create(&wanted).await?,
            Some(old) if old.subsets == wanted.subsets && mirror::is_ours(&old) => return Ok(()),
            Some(old) => {
                wanted.metadata.resource_version.clone_from(&old.metadata.resource_version);
                self.context.update(&wanted).await?
            }
        };
        Ok(())
    }

    async fn write(
        &self,
        wanted: Vec<EndpointSlice>,
        present: Vec<Arc<EndpointSlice>>,
    ) -> Result<(), ControllerError> {
        let mut present: HashMap<_, _> =
            present.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
        for mut slice in wanted {
            match present.remove(&slice.metadata.name) {
                None => {
                    self.context.create(&slice).await?;
                }
                Some(old) if same(&old, &slice) => {}
                Some(old) => {
                    slice.metadata.resource_version.clone_from(&old.metadata.resource_version);
                    self.context.update(&slice).await?;
                }
            }
        }
        for old in present.into_values() {
            let kind = &kinds::ENDPOINT_SLICE;
            self.context.delete(kind, &old.metadata, None, Propagation::Background).await?;
        }
        Ok(())
    }
}

fn is_ours(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

fn same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    let list = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
    list(old) == list(new) && ports(old) == ports(new) && old.metadata.labels == new.metadata.labels
}

/// The slices of a Service; `unreachable` says whether a node is known to be lost.
#[must_use]
pub fn slices(
    service: &Service,
    pods: &[Arc<Pod>],
    unreachable: impl Fn(&str) -> bool,
) -> Vec<EndpointSlice> {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let early = spec.publish_not_ready_addresses.unwrap_or_default();
    // Pods may give one named port different numbers: each set of numbers has its own slices.
    let mut groups: BTreeMap<Vec<i32>, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for object in pods {
        if pod::is_terminal(object) || pod::pod_ip(object).is_none() {
            continue;
        }
        let lost = pod::node_name(object).is_some_and(&unreachable);
        let resolved: Vec<EndpointPort> =
            ports.iter().filter_map(|port| resolve(port, object)).collect();
        let numbers = resolved.iter().filter_map(|port| port.port).collect();
        let group = groups.entry(numbers).or_insert_with(|| (resolved, Vec::new()));
        group.1.push(endpoint(service, object, lost, early));
    }
    let mut slices = Vec::new();
    for (ports, mut endpoints) in groups.into_values() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for chunk in endpoints.chunks(SLICE_MAX) {
            slices.push(slice(service, slices.len(), ports.clone(), chunk.to_vec()));
        }
    }
    if slices.is_empty() {
        // An empty slice says "nobody", which is different from "not looked at yet".
        slices.push(slice(service, 0, Vec::new(), Vec::new()));
    }
    slices
}

fn slice(
    service: &Service,
    number: usize,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let meta = &service.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let uid = meta.uid.clone().unwrap_or_default();
    let short: String = uid.chars().filter(char::is_ascii_alphanumeric).take(5).collect();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
        metadata: ObjectMeta {
            // The uid keeps it apart from the slices of an earlier Service of that name.
            name: Some(if number == 0 {
                format!("{name}-{short}")
            } else {
                format!("{name}-{short}-{number}")
            }),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name,
                uid,
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
    }
}

fn endpoint(service: &Service, object: &Pod, lost: bool, early: bool) -> Endpoint {
    let deleting = pod::is_deleting(object);
    let serving = pod::is_ready(object) && !lost;
    let spec = object.spec.as_ref();
    let in_domain = spec.is_some_and(|s| s.subdomain == service.metadata.name);
    Endpoint {
        addresses: pod::pod_ip(object).map(str::to_owned).into_iter().collect(),
        conditions: Some(EndpointConditions {
            ready: Some((serving && !deleting) || early),
            serving: Some(serving),
            terminating: Some(deleting),
        }),
        hostname: spec.and_then(|s| s.hostname.clone()).filter(|_| in_domain),
        node_name: pod::node_name(object).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// The pod's port behind a port of the Service; `None` when it has no port of that name.
fn resolve(port: &ServicePort, object: &Pod) -> Option<EndpointPort> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        Some(IntOrString::Int(number)) if *number > 0 => *number,
        Some(IntOrString::String(name)) => {
            let containers = object.spec.iter().flat_map(|spec| spec.containers.iter());
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let named = ports.find(|candidate| {
                candidate.name.as_ref() == Some(name)
                    && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
        _ => port.port,
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol),
        app_protocol: port.app_protocol.clone(),
    })
}

fn selector_of(service: &Service) -> Option<Selector> {
    let map = service.spec.as_ref()?.selector.as_ref().filter(|map| !map.is_empty())?;
    Some(Selector::from_map(map))
}

fn key(service: &Service) -> Key {
    Key {
        kind: &kinds::SERVICE,
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
    }
}

#[async_trait]
impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::SERVICE {
            return vec![key_of(object)];
        }
        if *object.kind == kinds::ENDPOINTS {
            return vec![Key { kind: &kinds::SERVICE, ..key_of(object) }];
        }
        if *object.kind == kinds::POD {
            return self.services_of(object.namespace(), object.name(), object.labels());
        }
        if *object.kind == kinds::ENDPOINT_SLICE {
            let ours = is_ours(Some(object.labels()));
            let name = object.labels().get(SERVICE_NAME).filter(|_| ours).cloned();
            let namespace = object.namespace().to_owned();
            return name
                .map(|name| Key { kind: &kinds::SERVICE, namespace, name })
                .into_iter()
                .collect();
        }
        if *object.kind != kinds::NODE {
            return Vec::new();
        }
        let pods = self.context.registry().cache().pods_on(object.name());
        let keys = pods.iter().flat_map(|p| self.services_of(p.namespace(), p.name(), p.labels()));
        keys.collect::<HashSet<_>>().into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::SERVICE)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let service = self.context.get::<Service>(&key.namespace, &key.name);
        let service = service.filter(|service| service.metadata.deletion_timestamp.is_none());
        let Some(service) = service else {
            // The slices go with their owner.
            self.behind.lock().remove(key);
            return Ok(Requeue::Done);
        };
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let mut present = self.context.owned::<EndpointSlice>(uid);
        present.retain(|slice| is_ours(slice.metadata.labels.as_ref()));
        let Some(selector) = selector_of(&service) else {
            // Users say what is behind it: by Endpoints, or by slices of their own.
            let given = self.context.get::<Addresses>(&key.namespace, &key.name);
            let given = given.filter(|given| !mirror::is_ours(given));
            let wanted = given.map(|given| mirror::slices(&service, &given)).unwrap_or_default();
            self.write(wanted, present).await?;
            return Ok(Requeue::Done);
        };
        let all = self.context.registry().cache().list(&kinds::POD, Some(&key.namespace));
        let matching = all.iter().filter(|object| selector.matches(object.labels()));
        let pods: Vec<Arc<Pod>> = matching.filter_map(|object| object.typed().ok()).collect();
        let names = pods.iter().filter_map(|object| object.metadata.name.clone()).collect();
        self.behind.lock().insert(key.clone(), names);
        let lost = |name: &str| {
            let node = self.context.get::<Node>("", name);
            node.is_none_or(|node| has_taint(&node, UNREACHABLE, "NoExecute"))
        };
        let wanted = slices(&service, &pods, lost);
        let addresses = mirror::addresses(&service, &wanted);
        self.write(wanted, present).await?;
        self.write_addresses(addresses).await?;
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
#[path = "endpoints_test.rs"]
mod tests;
