#![allow(clippy::unwrap_used, clippy::expect_used)]

use hickory_proto::op::{OpCode, Query};
use serde_json::json;

use super::*;

fn zone() -> watch::Receiver<Arc<Zone>> {
    let service = |name: &str, spec: serde_json::Value| {
        let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let services = [
        service("web", json!({"clusterIP": "10.1.0.5"})),
        service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
    ];
    watch::channel(Arc::new(zone::build(&services, &[]))).1
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.op_code = OpCode::Query;
    message.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask(name: &str, kind: RecordType) -> Message {
    let answer = answer(&question(name, kind), &zone(), Transport::Udp).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn names_of_services_are_answered() {
    let name = "web.default.svc.cluster.local.";
    let found = ask(name, RecordType::A).await;
    assert_eq!((found.metadata.id, found.metadata.response_code), (7, ResponseCode::NoError));
    assert_eq!(found.answers[0].data, RData::A(A(Ipv4Addr::new(10, 1, 0, 5))));
    let v6 = ask(name, RecordType::AAAA).await;
    assert_eq!((v6.metadata.response_code, v6.answers.len()), (ResponseCode::NoError, 0));
    let out = ask("out.default.svc.cluster.local.", RecordType::A).await;
    assert!(matches!(out.answers[0].data, RData::CNAME(_)), "{out:?}");
    let missing = ask("x.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer(b"nonsense", &zone(), Transport::Udp).await, None);
}

#[tokio::test]
async fn it_is_served_over_both_transports() {
    let sockets = loop {
        // Another test may have the port for TCP.
        if let Ok(sockets) = bind("127.0.0.1:0".parse().unwrap()).await {
            break sockets;
        }
    };
    let address = sockets.0.local_addr().unwrap();
    let server = tokio::spawn(serve(sockets, zone()));
    let question = question("web.default.svc.cluster.local.", RecordType::A);
    let ask = async {
        let udp = ask_udp(address, &question).await.unwrap();
        (udp, ask_tcp(address, &question).await.unwrap())
    };
    let (udp, tcp) = tokio::time::timeout(Duration::from_secs(20), ask).await.unwrap();
    assert_eq!(udp, tcp);
    assert_eq!(Message::from_vec(&udp).unwrap().answers.len(), 1);
    server.abort();
}

#[test]
fn the_nodes_name_servers_are_read() {
    let config = "# x\nnameserver 10.0.0.1\nsearch a\n nameserver ::1\nnameserver junk\n";
    let servers: Vec<String> = servers(config).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
    assert_eq!(address("10.144.3.0/24"), Some(Ipv4Addr::new(10, 144, 3, 1)));
    assert_eq!(address("x"), None);
}
