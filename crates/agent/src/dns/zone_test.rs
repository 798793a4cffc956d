#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::*;

fn service(name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn slice(service: &str, endpoints: Value) -> Arc<EndpointSlice> {
    let object = json!({
        "metadata": {"name": service, "namespace": "default",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn zone() -> Zone {
    let http = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    build(
        &[
            service("web", json!({"clusterIP": "10.1.0.5", "ports": http})),
            service("db", json!({"clusterIP": "None", "ports": http})),
            service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
            service("none", json!({"clusterIP": "None"})),
        ],
        &[slice(
            "db",
            json!([
                {"addresses": ["10.2.0.1"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.2.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.2.0.3"], "hostname": "db-2", "conditions": {"ready": false}},
            ]),
        )],
    )
}

fn addresses(list: &[[u8; 4]]) -> Answer {
    Answer::Addresses(list.iter().map(|ip| Ipv4Addr::from(*ip)).collect())
}

#[test]
fn services_have_their_address_and_headless_ones_those_of_ready_endpoints() {
    let zone = zone();
    assert_eq!(zone.look_up("Web.default.SVC.cluster.local"), addresses(&[[10, 1, 0, 5]]));
    let db = addresses(&[[10, 2, 0, 1], [10, 2, 0, 2]]);
    assert_eq!(zone.look_up("db.default.svc.cluster.local"), db);
    assert_eq!(zone.look_up("none.default.svc.cluster.local"), Answer::Nothing);
    let alias = Answer::Alias("example.org".into());
    assert_eq!(zone.look_up("out.default.svc.cluster.local"), alias);
}

#[test]
fn pods_of_headless_services_have_names() {
    let zone = zone();
    assert_eq!(zone.look_up("db-0.db.default.svc.cluster.local"), addresses(&[[10, 2, 0, 1]]));
    let dashed = "10-2-0-2.db.default.svc.cluster.local";
    assert_eq!(zone.look_up(dashed), addresses(&[[10, 2, 0, 2]]));
    let unready = zone.look_up("db-2.db.default.svc.cluster.local");
    assert_eq!(unready, Answer::Missing);
    assert_eq!(zone.look_up("db-0.web.default.svc.cluster.local"), Answer::Missing);
    assert_eq!(zone.look_up("10-9-8-7.default.pod.cluster.local"), addresses(&[[10, 9, 8, 7]]));
}

#[test]
fn ports_are_found_by_name() {
    let zone = zone();
    let name = "web.default.svc.cluster.local";
    let web = Srv { port: 80, target: name.into() };
    assert_eq!(zone.look_up(&format!("_http._tcp.{name}")), Answer::Ports(vec![web]));
    assert_eq!(zone.look_up(&format!("_http._udp.{name}")), Answer::Missing);
    let db =
        |label: &str| Srv { port: 8080, target: format!("{label}.db.default.svc.cluster.local") };
    let found = zone.look_up("_http._tcp.db.default.svc.cluster.local");
    assert_eq!(found, Answer::Ports(vec![db("db-0"), db("10-2-0-2")]));
}

#[test]
fn what_is_not_there_is_missing_and_what_is_elsewhere_foreign() {
    let zone = zone();
    for missing in ["x.default.svc.cluster.local", "web.other.svc.cluster.local", "a.cluster.local"]
    {
        assert_eq!(zone.look_up(missing), Answer::Missing, "{missing}");
    }
    for nothing in ["cluster.local", "svc.cluster.local", "default.svc.cluster.local"] {
        assert_eq!(zone.look_up(nothing), Answer::Nothing, "{nothing}");
    }
    for foreign in ["example.org", "mycluster.local", "web"] {
        assert_eq!(zone.look_up(foreign), Answer::Foreign, "{foreign}");
    }
}
