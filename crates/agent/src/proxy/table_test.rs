#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn service(spec: serde_json::Value) -> Arc<Service> {
    let service = json!({"metadata": {"name": "web", "namespace": "d"}, "spec": spec});
    Arc::new(serde_json::from_value(service).unwrap())
}

fn slice() -> Arc<EndpointSlice> {
    let slice = json!({
        "addressType": "IPv4",
        "metadata": {
            "name": "web-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "web"}
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.1.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.1.0.2"]},
            {"addresses": ["10.1.0.4"], "conditions": {"ready": false}},
        ],
    });
    Arc::new(serde_json::from_value(slice).unwrap())
}

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 1, 1));

#[test]
fn cluster_address_and_node_port_lead_to_ready_endpoints() {
    let service = service(json!({
        "type": "NodePort", "clusterIP": "10.9.0.1", "sessionAffinity": "ClientIP",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    }));
    let table = build(&[service], &[slice()], NODE);
    let cluster = &table[&"10.9.0.1:80".parse().unwrap()];
    let backends: Vec<SocketAddr> =
        ["10.1.0.2:8080", "10.1.0.3:8080"].map(|a| a.parse().unwrap()).to_vec();
    assert_eq!(cluster.backends, backends);
    assert!(cluster.cluster_address);
    assert_eq!(cluster.affinity, Some(Duration::from_secs(10_800)));
    let node = &table[&"127.0.1.1:30080".parse().unwrap()];
    assert_eq!(node.backends, backends);
    assert!(!node.cluster_address);
    assert_eq!(table.len(), 2);
}

#[test]
fn headless_external_and_udp_services_are_not_listened_on() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "x", "ports": [{"port": 80}]}),
        json!({"clusterIP": "10.9.0.1", "ports": [{"port": 53, "protocol": "UDP"}]}),
    ] {
        assert!(build(&[service(spec)], &[slice()], NODE).is_empty());
    }
}

#[test]
fn a_port_of_another_name_has_no_endpoints() {
    let service = service(json!({"clusterIP": "10.9.0.1", "ports": [{"name": "x", "port": 80}]}));
    let table = build(&[service], &[slice()], NODE);
    assert!(table[&"10.9.0.1:80".parse().unwrap()].backends.is_empty());
}
