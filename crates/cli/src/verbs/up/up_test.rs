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

fn free_base() -> u16 {
    // Ports of masters that are checked for being free: any base above the usual ones does.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().port() % 20_000) + 40_000
}

#[tokio::test]
async fn a_new_cluster_has_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_base();
    let line = format!("up --masters 1 --nodes 0 --port-base {base}");
    let cluster = up(&line).plan(dir.path(), false).await.unwrap();
    assert_eq!(cluster.spec.masters.len(), 1);
    assert!(cluster.spec.masters[0].url.starts_with("https://"));
    assert!(dir.path().join("pki/admin.key").exists());
    let again = up("up").plan(dir.path(), true).await.unwrap();
    assert_eq!(again.spec, cluster.spec);
}

#[tokio::test]
async fn flags_that_contradict_the_cluster_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("up --masters 1 --nodes 0 --insecure --port-base {}", free_base());
    up(&line).plan(dir.path(), false).await.unwrap();
    for wrong in ["up --masters 3", "up --nodes 1", "up --pod-cidr 10.1.0.0/16"] {
        let message = up(wrong).plan(dir.path(), true).await.unwrap_err().to_string();
        assert!(message.contains("quorate down"), "{wrong}: {message}");
    }
}

#[tokio::test]
async fn a_missing_docker_is_found_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("up --docker unix:///none.sock --port-base {}", free_base());
    let message = up(&line).plan(dir.path(), false).await.unwrap_err().to_string();
    assert!(message.contains("/none.sock") && message.contains("--nodes 0"), "{message}");
    assert!(!dir.path().join("cluster.json").exists());
}

#[tokio::test]
async fn wrong_networks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message =
        up("up --nodes 0 --pod-cidr 10.0.0").plan(dir.path(), false).await.unwrap_err().to_string();
    assert!(message.contains("--pod-cidr"), "{message}");
}
