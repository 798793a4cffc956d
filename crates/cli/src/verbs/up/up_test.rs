use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    up: Up,
}

fn up(line: &str) -> Up {
    Line::try_parse_from(line.split(' ')).unwrap().up
}

/// A Docker Engine with these networks.
fn docker_with(networks: &[(&str, &str)]) -> Subnets {
    let of = |(name, range): &(&str, &str)| ((*name).to_owned(), range.parse().unwrap());
    let networks: Vec<(String, Ipv4Net)> = networks.iter().map(of).collect();
    Box::new(move |_| {
        let networks = networks.clone();
        Box::pin(async { Ok(networks) })
    })
}

fn free_base() -> u16 {
    use std::net::TcpListener;
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // A different one each time, and below the ports that the system gives to connections.
    let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() % 10_000;
    let mut bases = (0..10_000).map(|step| 20_000 + (first + step) % 10_000);
    bases.find(|base| (*base..base + 150).all(free)).unwrap()
}

#[tokio::test]
async fn a_new_cluster_has_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_base();
    let line = format!("up --masters 1 --nodes 0 --port-base {base}");
    let cluster = up(&line).plan(dir.path(), false, &docker_with(&[])).await.unwrap();
    assert_eq!(cluster.spec.masters.len(), 1);
    assert!(cluster.spec.masters[0].url.starts_with("https://"));
    assert!(dir.path().join("pki/admin.key").exists());
    let again = up("up").plan(dir.path(), true, &docker_with(&[])).await.unwrap();
    assert_eq!(again.spec, cluster.spec);
}

#[tokio::test]
async fn flags_that_contradict_the_cluster_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("up --masters 1 --nodes 0 --insecure --port-base {}", free_base());
    up(&line).plan(dir.path(), false, &docker_with(&[])).await.unwrap();
    for wrong in ["up --masters 3", "up --nodes 1", "up --pod-cidr 10.1.0.0/16"] {
        let message =
            up(wrong).plan(dir.path(), true, &docker_with(&[])).await.unwrap_err().to_string();
        assert!(message.contains("quorate down"), "{wrong}: {message}");
    }
}

#[tokio::test]
async fn a_missing_docker_is_found_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("up --docker unix:///none.sock --port-base {}", free_base());
    let message =
        up(&line).plan(dir.path(), false, &docker_with(&[])).await.unwrap_err().to_string();
    assert!(message.contains("/none.sock") && message.contains("--nodes 0"), "{message}");
    assert!(!dir.path().join("cluster.json").exists());
}

#[tokio::test]
async fn wrong_networks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = up("up --nodes 0 --pod-cidr 10.0.0")
        .plan(dir.path(), false, &docker_with(&[]))
        .await
        .unwrap_err()
        .to_string();
    assert!(message.contains("--pod-cidr"), "{message}");
}

/// A socket that answers a ping as Docker does, for as long as the task lives.
fn fake_docker(dir: &Path) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let path = dir.join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 256];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nOK").await;
        }
    });
    format!("unix://{}", path.display())
}

#[tokio::test]
async fn pods_get_addresses_that_no_network_has() {
    let (socket, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let docker = fake_docker(socket.path());
    let line = format!("up --docker {docker} --insecure --port-base {}", free_base());
    let usual = layout::free_pod_range(up(&line).port_base.unwrap(), &[]).unwrap();
    // What a cluster left that was not stopped, and a network of somebody else.
    let first: Ipv4Net = usual.parse().unwrap();
    let left = first.subnet(24, 1).unwrap().to_string();
    let networks = [("quorate-1-n1", left.as_str()), ("vpn", "10.0.0.0/8")];
    let planned =
        up(&line).plan(dir.path(), false, &docker_with(&networks[..1])).await.unwrap().spec;
    let range: Ipv4Net = planned.pod_cidr.parse().unwrap();
    assert!(!range.overlaps(&first), "{range}");

    let dir = tempfile::tempdir().unwrap();
    let full = up(&line).plan(dir.path(), false, &docker_with(&networks)).await;
    let message = full.unwrap_err().to_string();
    assert!(message.contains("--pod-cidr"), "{message}");

    let line = format!("{line} --pod-cidr {usual}");
    let taken = up(&line).plan(dir.path(), false, &docker_with(&networks)).await;
    let message = taken.unwrap_err().to_string();
    assert!(message.contains("docker network rm quorate-1-n1"), "{message}");
}
