use super::*;

fn cluster(dir: &Path) -> LocalCluster {
    let wanted = layout::Wanted {
        masters: 1,
        nodes: 1,
        hollow: 0,
        port_base: 7000,
        advertise_base: None,
        insecure: true,
        docker: "unix:///none".into(),
        pod_cidr: None,
        service_cidr: None,
        rebalance_max_moves: 0,
    };
    LocalCluster { dir: dir.to_owned(), spec: layout::plan(dir, &wanted) }
}

#[test]
fn the_file_survives_a_round_trip_and_clients_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(dir.path());
    cluster.spec.save(dir.path()).unwrap();
    assert_eq!(LocalCluster::open(dir.path()).unwrap().spec, cluster.spec);
    let file = quorate_client::ClusterFile::load(dir.path()).unwrap();
    assert_eq!(file.urls(), ["http://127.0.0.1:7001"]);
    assert_eq!(file.nodes[0].name, "n1");
    assert!(cluster.members().iter().all(|member| member.pid.is_none()));
}

#[test]
fn one_command_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let held = LocalCluster::lock(dir.path()).unwrap();
    assert!(LocalCluster::lock(dir.path()).unwrap_err().to_string().contains("another"));
    drop(held);
    LocalCluster::lock(dir.path()).unwrap();
}

#[test]
fn folders() {
    let dir = tempfile::tempdir().unwrap();
    assert!(is_empty(dir.path()).unwrap());
    assert!(is_empty(&dir.path().join("none")).unwrap());
    std::fs::write(dir.path().join("x"), "").unwrap();
    assert!(!is_empty(dir.path()).unwrap());
}
