use super::*;

fn wanted(port_base: u16) -> Wanted {
    Wanted {
        masters: 3,
        nodes: 2,
        hollow: 0,
        port_base,
        advertise_base: None,
        insecure: true,
        docker: "unix:///d.sock".into(),
        pod_cidr: None,
        service_cidr: None,
        rebalance_max_moves: 0,
    }
}

#[test]
fn ports_and_addresses_follow_the_base() {
    let spec = plan(Path::new("/c"), &wanted(7000));
    assert_eq!(spec.masters[2].url, "http://127.0.0.1:7003");
    assert_eq!(spec.masters[2].peer_url, "http://127.0.0.1:7103");
    assert_eq!(spec.nodes[1].data_dir, Path::new("/c/n2/data"));
    let other = plan(Path::new("/d"), &wanted(7200));
    assert_ne!(spec.nodes[0].address, other.nodes[0].address);
    assert_ne!(spec.pod_cidr, other.pod_cidr);
    assert_ne!(spec.service_cidr, other.service_cidr);
    assert_ne!(spec.cluster_id, other.cluster_id);
}

#[test]
fn behind_a_proxy_masters_listen_where_the_proxy_finds_them() {
    let spec = plan(Path::new("/c"), &Wanted { advertise_base: Some(7050), ..wanted(7000) });
    let args = master_args(Path::new("/c"), &spec, &spec.masters[1]).unwrap().join(" ");
    assert!(args.contains("--listen 127.0.0.1:7002 --peer-listen 127.0.0.1:7102"), "{args}");
    assert!(args.contains("m2=http://127.0.0.1:7052,http://127.0.0.1:7152"), "{args}");
    let args = agent_args(Path::new("/c"), &spec, &spec.nodes[0]).join(" ");
    assert!(args.contains("--masters http://127.0.0.1:7051,http://127.0.0.1:7052"), "{args}");
}

#[test]
fn pod_and_service_addresses_never_overlap() {
    for base in (1000..60000).step_by(50) {
        let spec = plan(Path::new("/c"), &wanted(base));
        assert_ne!(spec.pod_cidr, spec.service_cidr, "at {base}");
    }
}

#[test]
fn command_lines() {
    let spec = plan(Path::new("/c"), &wanted(7000));
    let args = master_args(Path::new("/c"), &spec, &spec.masters[0]).unwrap().join(" ");
    assert!(
        args.starts_with("master --name m1 --data-dir /c/m1/data --listen 127.0.0.1:7001"),
        "{args}"
    );
    assert!(
        args.contains("m1=http://127.0.0.1:7001,http://127.0.0.1:7101;m2=http://127.0.0.1:7002,")
    );
    assert!(args.ends_with("--insecure"));
    let args = agent_args(Path::new("/c"), &spec, &spec.nodes[0]).join(" ");
    assert!(args.starts_with("agent --name n1 --masters http://127.0.0.1:7001,http://"), "{args}");
    let secure = ClusterSpec { insecure: false, ..spec };
    let args = agent_args(Path::new("/c"), &secure, &secure.nodes[0]).join(" ");
    assert!(args.ends_with("--tls-dir /c/pki"), "{args}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let master = MasterSpec {
        name: "m1".into(),
        pid: 0,
        url: format!("http://{address}"),
        peer_url: "http://127.0.0.1:0".into(),
        listen: None,
        peer_listen: None,
        data_dir: "/c/m1".into(),
    };
    let message = check_ports(&master).unwrap_err().to_string();
    assert!(message.contains(&address.port().to_string()), "{message}");
    assert!(message.contains("--port-base"), "{message}");
}

#[test]
fn hollow_nodes_are_one_process_that_needs_no_docker() {
    let spec = plan(Path::new("/c"), &Wanted { nodes: 0, hollow: 7, ..wanted(7000) });
    let [hollow] = spec.nodes.as_slice() else { panic!("{:?}", spec.nodes) };
    let args = agent_args(Path::new("/c"), &spec, hollow).join(" ");
    assert!(args.contains("--runtime hollow --count 7"), "{args}");
    assert!(args.contains("--data-dir /c/hollow/data") && !args.contains("--docker"), "{args}");
}
