#![allow(clippy::unwrap_used, clippy::expect_used)]

use hickory_proto::op::OpCode;
use serde_json::json;

use super::*;

/// The zone, and the name server at this port for everything else.
fn names(folder: &tempfile::TempDir, port: u16) -> Names {
    let config = folder.path().join("resolv.conf");
    std::fs::write(&config, "nameserver 127.0.0.1\n").unwrap();
    let upstream = Upstream { config, port, ..Upstream::default() };
    Names { zone: zone(), upstream: Arc::new(upstream) }
}

fn zone() -> watch::Receiver<Arc<Zone>> {
    let service = |name: &str, spec: serde_json::Value| {
        let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let services = [
        service("web", json!({"clusterIP": "10.1.0.5"})),
        service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
        service(
            "in",
            json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}),
        ),
        service(
            "round",
            json!({"type": "ExternalName", "externalName": "round.default.svc.cluster.local"}),
        ),
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
    ask_of(&Names::new(zone()), name, kind).await
}

async fn ask_of(names: &Names, name: &str, kind: RecordType) -> Message {
    let answer = answer(&question(name, kind), names, Transport::Udp).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// Name servers of a node, at the port that is answered.
async fn upstream(code: ResponseCode) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = vec![0; LARGEST];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let query = &request.queries[0];
            let good = code == ResponseCode::NoError && query.query_type() == RecordType::A;
            let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
            let record = Record::from_rdata(query.name().clone(), 60, address);
            let response = fill(&request, code, good.then_some(record).into_iter().collect());
            socket.send_to(&response.to_vec().unwrap(), from).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn names_of_services_are_answered() {
    let name = "web.default.svc.cluster.local.";
    let found = ask(name, RecordType::A).await;
    assert_eq!((found.metadata.id, found.metadata.response_code), (7, ResponseCode::NoError));
    assert_eq!(found.answers[0].data, RData::A(A(Ipv4Addr::new(10, 1, 0, 5))));
    let v6 = ask(name, RecordType::AAAA).await;
    assert_eq!((v6.metadata.response_code, v6.answers.len()), (ResponseCode::NoError, 0));
    let missing = ask("x.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer(b"nonsense", &Names::new(zone()), Transport::Udp).await, None);
}

#[tokio::test]
async fn an_external_name_comes_with_its_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let names = names(&folder, upstream(ResponseCode::NoError).await);
    let out = "out.default.svc.cluster.local.";
    let found = ask_of(&names, out, RecordType::A).await;
    let target = Name::from_utf8("example.org.").unwrap();
    assert_eq!((found.metadata.id, found.metadata.response_code), (7, ResponseCode::NoError));
    assert_eq!(found.answers.len(), 2, "{found:?}");
    assert_eq!(found.answers[0].data, RData::CNAME(CNAME(target.clone())));
    assert_eq!(found.answers[1].name, target);
    assert_eq!(found.answers[1].data, RData::A(A(Ipv4Addr::new(192, 0, 2, 7))));
    let v6 = ask_of(&names, out, RecordType::AAAA).await;
    assert_eq!((v6.metadata.response_code, v6.answers.len()), (ResponseCode::NoError, 1));
    // Of which nobody else has to be asked.
    let alias = ask(out, RecordType::CNAME).await;
    assert_eq!(alias.answers.len(), 1, "{alias:?}");
    let inside = ask("in.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(inside.answers[1].data, RData::A(A(Ipv4Addr::new(10, 1, 0, 5))));
    let round = question("round.default.svc.cluster.local.", RecordType::A);
    let round = answer(&round, &names, Transport::Tcp).await.unwrap();
    assert_eq!(Message::from_vec(&round).unwrap().answers.len(), ALIASES, "it comes to an end");
}

#[tokio::test]
async fn an_external_name_that_does_not_exist_is_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let names = names(&folder, upstream(ResponseCode::NXDomain).await);
    let found = ask_of(&names, "out.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(found.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(found.answers.len(), 1, "{found:?}");
}

#[tokio::test]
async fn the_clusters_names_are_answered_while_all_others_wait() {
    let sockets = sockets().await;
    let address = sockets.0.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Takes questions, and answers none.
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let names = names(&folder, dead.local_addr().unwrap().port());
    let waiting: Vec<_> = std::iter::from_fn(|| names.upstream.permit()).collect();
    assert_eq!(waiting.len(), AT_ONCE);
    let server = tokio::spawn(serve(sockets, names.clone()));
    let known = question("web.default.svc.cluster.local.", RecordType::A);
    let ask = async {
        let udp = ask_udp(address, &known).await.unwrap();
        (udp, ask_tcp(address, &known).await.unwrap())
    };
    let (udp, tcp) = tokio::time::timeout(Duration::from_secs(20), ask).await.unwrap();
    assert_eq!(Message::from_vec(&udp).unwrap().answers.len(), 1);
    assert_eq!(udp, tcp);
    let foreign = question("example.org.", RecordType::A);
    assert_eq!(answer(&foreign, &names, Transport::Udp).await, None, "one more does not wait");
    server.abort();
}

async fn sockets() -> Sockets {
    loop {
        // Another test may have the port for TCP.
        if let Ok(sockets) = bind("127.0.0.1:0".parse().unwrap()).await {
            return sockets;
        }
    }
}

#[tokio::test]
async fn it_is_served_over_both_transports() {
    let sockets = sockets().await;
    let address = sockets.0.local_addr().unwrap();
    let server = tokio::spawn(serve(sockets, Names::new(zone())));
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
    let servers: Vec<String> = servers(config, 53).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
    assert_eq!(address("10.144.3.0/24"), Some(Ipv4Addr::new(10, 144, 3, 1)));
    assert_eq!(address("x"), None);
}
