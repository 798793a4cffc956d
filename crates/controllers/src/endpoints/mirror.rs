//! Endpoints, the older form of EndpointSlices, from and to slices.

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as AddressPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::{SLICE_MAX, slice};

/// The label of Endpoints that are written here.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Endpoints of users with this label set to `true` are left alone.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Addresses in one object; clients that need more read slices (Kubernetes' limit).
const ADDRESSES_MAX: usize = 1000;

/// Were they written here?
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

/// The Endpoints of a Service with these slices.
pub(super) fn addresses(service: &Service, slices: &[EndpointSlice]) -> Endpoints {
    let mut left = ADDRESSES_MAX;
    let subsets: Vec<EndpointSubset> =
        slices.iter().filter_map(|slice| subset(slice, &mut left)).collect();
    let mut meta = slice(service, 0, Vec::new(), Vec::new()).metadata;
    meta.name.clone_from(&service.metadata.name);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    meta.labels = Some(labels);
    Endpoints { metadata: meta, subsets: Some(subsets).filter(|subsets| !subsets.is_empty()) }
}

fn subset(slice: &EndpointSlice, left: &mut usize) -> Option<EndpointSubset> {
    let (mut ready, mut others) = (Vec::new(), Vec::new());
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        if *left == 0 || conditions.terminating == Some(true) && conditions.ready != Some(true) {
            continue;
        }
        *left -= 1;
        let address = EndpointAddress {
            ip: endpoint.addresses.first().cloned().unwrap_or_default(),
            hostname: endpoint.hostname.clone(),
            node_name: endpoint.node_name.clone(),
            target_ref: endpoint.target_ref.clone(),
        };
        if conditions.ready == Some(true) { ready.push(address) } else { others.push(address) }
    }
    if ready.is_empty() && others.is_empty() {
        return None;
    }
    let port = |port: &EndpointPort| AddressPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    };
    let some = |list: Vec<EndpointAddress>| Some(list).filter(|list| !list.is_empty());
    let ports: Vec<AddressPort> = slice.ports.iter().flatten().map(port).collect();
    Some(EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(others),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    })
}

/// The slices of a Service without a selector, whose Endpoints a user has written.
pub(super) fn slices(service: &Service, given: &Endpoints) -> Vec<EndpointSlice> {
    let labels = given.metadata.labels.as_ref();
    if labels.and_then(|labels| labels.get(SKIP)).is_some_and(|value| value == "true") {
        return Vec::new();
    }
    let mut slices = Vec::new();
    for subset in given.subsets.iter().flatten() {
        let port = |port: &AddressPort| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        };
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true));
        let others = subset.not_ready_addresses.iter().flatten();
        let all: Vec<_> = ready.chain(others.map(|address| endpoint(address, false))).collect();
        for chunk in all.chunks(SLICE_MAX) {
            slices.push(slice(service, slices.len(), ports.clone(), chunk.to_vec()));
        }
    }
    slices
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(ready),
            terminating: Some(false),
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn users_endpoints_become_slices_and_come_back() {
        let service = serde_json::from_value(json!({"metadata": {"name": "db", "uid": "u1"}}));
        let service: Service = service.unwrap();
        let subset = json!({"addresses": [{"ip": "192.168.0.1"}],
            "notReadyAddresses": [{"ip": "192.168.0.2"}], "ports": [{"port": 5432}]});
        let mut given = json!({"metadata": {"name": "db"}, "subsets": [subset]});
        let endpoints: Endpoints = serde_json::from_value(given.clone()).unwrap();
        let mirrored = slices(&service, &endpoints);
        assert_eq!(mirrored.len(), 1);
        let back = addresses(&service, &mirrored);
        assert_eq!(back.subsets, endpoints.subsets);
        assert!(is_ours(&back) && !is_ours(&endpoints));
        assert_eq!(back.metadata.owner_references.unwrap()[0].uid, "u1");
        given["metadata"]["labels"] = json!({SKIP: "true"});
        let skipped = slices(&service, &serde_json::from_value(given).unwrap());
        assert!(skipped.is_empty());
    }
}
