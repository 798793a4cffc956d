//! What programs in pods need to reach the masters: the authority's certificate in every namespace,
//! and the Service `kubernetes`, behind which the masters are.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMap, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort,
    ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_objects::kinds;
use quorate_registry::ObjectEvent;

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// The ConfigMap, as clients and Kubernetes' projected volumes know it.
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_FIELD: &str = "ca.crt";
/// The Service, in [`NAMESPACE`].
const SERVICE: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// Port of the Service, and its name.
const PORT: (&str, i32) = ("https", 443);
/// Members of the cluster change seldom, and no event tells of it.
const LOOK: Duration = Duration::from_secs(10);

/// How programs in pods reach the masters.
#[derive(Clone)]
pub struct ApiAccess {
    /// The certificate of the cluster's authority as PEM; empty without TLS.
    pub authority: String,
    /// The masters' URLs as they are now.
    pub urls: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

impl fmt::Debug for ApiAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiAccess")
    }
}

/// Publishes the authority's certificate in every namespace; keys are namespaces.
pub struct RootCa {
    context: Arc<Context>,
    authority: String,
}

impl RootCa {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>, access: &ApiAccess) -> Self {
        Self { context, authority: access.authority.clone() }
    }
}

#[async_trait]
impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "rootca"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::NAMESPACE {
            return vec![key_of(object)];
        }
        let ours = *object.kind == kinds::CONFIG_MAP && object.name() == ROOT_CA;
        let name = object.namespace().to_owned();
        let key = Key { kind: &kinds::NAMESPACE, namespace: String::new(), name };
        ours.then_some(key).into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::NAMESPACE)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let namespace = self.context.registry().cache().get(&kinds::NAMESPACE, "", &key.name);
        if namespace.is_none_or(|namespace| namespace.is_deleting()) {
            return Ok(Requeue::Done);
        }
        let data = BTreeMap::from([(ROOT_CA_FIELD.to_owned(), self.authority.clone())]);
        match self.context.get::<ConfigMap>(&key.name, ROOT_CA) {
            None => {
                let metadata = meta(&key.name, ROOT_CA);
                let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                created(self.context.create(&map).await)?;
            }
            Some(present) if present.data.as_ref() == Some(&data) => {}
            Some(present) => {
                let map = ConfigMap { data: Some(data), ..ConfigMap::clone(&present) };
                self.context.update(&map).await?;
            }
        }
        Ok(Requeue::Done)
    }
}

/// Keeps the Service `kubernetes` and what is behind it. Its only key is the Service.
pub struct ApiService {
    context: Arc<Context>,
    access: ApiAccess,
}

impl ApiService {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>, access: ApiAccess) -> Self {
        Self { context, access }
    }

    async fn service(&self) -> Result<(), ControllerError> {
        if self.context.get::<Service>(NAMESPACE, SERVICE).is_some() {
            return Ok(());
        }
        let (name, port) = PORT;
        let network = self.context.registry().options().service_cidr;
        let service = Service {
            metadata: meta(NAMESPACE, SERVICE),
            spec: Some(ServiceSpec {
                // The first address of the network is kept free for it.
                cluster_ip: network.nth(1).map(|address| address.to_string()),
                ports: Some(vec![ServicePort {
                    name: Some(name.to_owned()),
                    port,
                    target_port: Some(IntOrString::String(name.to_owned())),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        created(self.context.create(&service).await)
    }

    async fn endpoints(&self) -> Result<(), ControllerError> {
        let wanted = subsets(&(self.access.urls)());
        match self.context.get::<Endpoints>(NAMESPACE, SERVICE) {
            None => {
                let metadata = meta(NAMESPACE, SERVICE);
                created(self.context.create(&Endpoints { metadata, subsets: Some(wanted) }).await)
            }
            Some(present) if present.subsets.as_ref() == Some(&wanted) => Ok(()),
            Some(present) => {
                let metadata = present.metadata.clone();
                let endpoints = Endpoints { metadata, subsets: Some(wanted) };
                self.context.update(&endpoints).await.map(drop)
            }
        }
    }
}

#[async_trait]
impl Controller for ApiService {
    fn name(&self) -> &'static str {
        "apiservice"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        let kind = [&kinds::SERVICE, &kinds::ENDPOINTS].contains(&object.kind);
        let ours = kind && object.namespace() == NAMESPACE && object.name() == SERVICE;
        if ours { self.all() } else { Vec::new() }
    }

    fn all(&self) -> Vec<Key> {
        let (namespace, name) = (NAMESPACE.to_owned(), SERVICE.to_owned());
        vec![Key { kind: &kinds::SERVICE, namespace, name }]
    }

    async fn reconcile(&self, _: &Key) -> Result<Requeue, ControllerError> {
        self.service().await?;
        self.endpoints().await?;
        Ok(Requeue::After(LOOK))
    }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn created<T>(result: Result<T, ControllerError>) -> Result<(), ControllerError> {
    match result {
        Ok(_) | Err(ControllerError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One for each port that masters have, in order. Masters whose URL has a host name are left out:
/// endpoints are addresses.
fn subsets(urls: &[String]) -> Vec<EndpointSubset> {
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for url in urls {
        let address = url.split_once("://").map(|(_, rest)| rest.trim_end_matches('/'));
        match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) => by_port.entry(address.port()).or_default().push(address.ip()),
            None => tracing::debug!(url, "not behind the Service kubernetes: no address"),
        }
    }
    let subset = |(port, mut addresses): (u16, Vec<IpAddr>)| {
        addresses.sort_unstable();
        addresses.dedup();
        let address =
            |ip: IpAddr| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() };
        EndpointSubset {
            addresses: Some(addresses.into_iter().map(address).collect()),
            ports: Some(vec![EndpointPort {
                name: Some(PORT.0.to_owned()),
                port: port.into(),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
            ..EndpointSubset::default()
        }
    };
    by_port.into_iter().map(subset).collect()
}

#[cfg(test)]
#[path = "api_access_test.rs"]
mod tests;
