#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

/// A server that answers each connection with its name once the client has said its last.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await.unwrap();
                stream.write_all(format!("{name}:{}", said.len()).as_bytes()).await.unwrap();
            });
        }
    });
    address
}

/// An address where nobody listens. Held until the process ends, so that nobody else is given it.
fn dead() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn frontend(backends: &[SocketAddr]) -> Frontend {
    Frontend {
        service: "default/web".into(),
        cluster_address: false,
        backends: backends.to_vec(),
        affinity: None,
    }
}

struct Bench {
    table: watch::Sender<Table>,
    problems: watch::Receiver<Vec<String>>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(table: Table) -> Bench {
    let (sender, receiver) = watch::channel(table);
    let (problems_sender, problems) = watch::channel(Vec::new());
    let cancel = CancellationToken::new();
    let proxy = Proxy::new("test", receiver, problems_sender);
    let task = tokio::spawn(proxy.run(cancel.clone()));
    Bench { table: sender, problems, cancel, task }
}

async fn until_open(address: SocketAddr) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "{address} never opened");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request_and_the_others_share() {
    let (one, two, gone) = (server("one").await, server("two").await, dead());
    let address = dead();
    let bench = start(Table::from([(address, frontend(&[one, two, gone]))]));
    until_open(address).await;
    let mut answers = BTreeMap::new();
    for _ in 0..60 {
        *answers.entry(ask(address).await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.values().all(|count| *count >= 10), "{answers:?}");
    bench.cancel.cancel();
    bench.task.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_is_held_until_an_endpoint_appears() {
    let address = dead();
    let bench = start(Table::from([(address, frontend(&[]))]));
    until_open(address).await;
    let asking = tokio::spawn(ask(address));
    let late = server("late").await;
    bench.table.send_replace(Table::from([(address, frontend(&[late]))]));
    assert_eq!(asking.await.unwrap().unwrap(), "late:5");
    bench.cancel.cancel();
}

#[tokio::test]
async fn an_open_connection_survives_a_change_of_endpoints() {
    let (one, two) = (server("one").await, server("two").await);
    let address = dead();
    let bench = start(Table::from([(address, frontend(&[one]))]));
    until_open(address).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"first").await.unwrap();
    // It has reached its endpoint once another connection did, which was accepted later.
    assert_eq!(ask(address).await.unwrap(), "one:5");
    bench.table.send_replace(Table::from([(address, frontend(&[two]))]));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while ask(address).await.unwrap() != "two:5" {
        assert!(tokio::time::Instant::now() < deadline);
    }
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "one:5");
    bench.cancel.cancel();
}

#[tokio::test]
async fn a_taken_port_is_named_and_taken_over_when_free() {
    let address = dead();
    let holder = TcpListener::bind(address).await.unwrap();
    let mut bench = start(Table::from([(address, frontend(&[server("one").await]))]));
    let told = bench.problems.wait_for(|problems| !problems.is_empty());
    let told = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap().unwrap().clone();
    assert!(told[0].contains(&address.to_string()), "{told:?}");
    assert!(told[0].contains("default/web"), "{told:?}");
    drop(holder);
    let free = bench.problems.wait_for(Vec::is_empty);
    tokio::time::timeout(Duration::from_secs(10), free).await.unwrap().unwrap();
    assert_eq!(ask(address).await.unwrap(), "one:5");
    bench.cancel.cancel();
}
