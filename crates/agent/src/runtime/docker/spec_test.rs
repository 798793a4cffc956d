#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use super::*;
use crate::runtime::{Cpu, Dns, HostPort, Security};

fn owner() -> Owner {
    Owner { cluster: "0123456789".into(), node: "n1".into() }
}

fn pod() -> PodRef {
    PodRef { namespace: "d".into(), name: "web".into(), uid: "u1".into() }
}

pub(crate) fn container_spec() -> ContainerSpec {
    ContainerSpec {
        pod: pod(),
        role: Role::App,
        sidecar: false,
        name: "c".into(),
        attempt: 2,
        failures: 1,
        sandbox: "sb".into(),
        host_network: false,
        pid: PidNamespace::Own,
        grace: 7,
        image: "img:1".into(),
        command: vec!["/run".into()],
        args: vec![],
        working_dir: String::new(),
        env: vec!["A=1".into()],
        binds: vec![Bind {
            source: Place::Path("/d/v".into()),
            target: "/v".into(),
            read_only: true,
        }],
        cpu: Cpu { shares: Some(512), quota: Some(50_000) },
        memory_limit: Some(1 << 20),
        security: Security { user: "5".into(), no_new_privileges: true, ..Default::default() },
        tty: false,
        stdin: false,
        stdin_once: false,
    }
}

#[test]
fn names_fit_the_kernel_and_tell_nodes_apart() {
    let one = owner().bridge();
    assert!(one.len() <= 15 && one.starts_with("qr"), "{one}");
    assert_ne!(one, Owner { node: "n2".into(), ..owner() }.bridge());
    assert_eq!(owner().network(), "quorate-01234567-n1");
}

#[test]
fn a_container_joins_its_sandbox_with_all_its_settings() {
    let body = container(&owner(), &container_spec());
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("container:sb"));
    assert_eq!(host.binds, Some(vec!["/d/v:/v:ro".to_owned()]));
    assert_eq!((host.cpu_shares, host.cpu_quota), (Some(512), Some(50_000)));
    assert_eq!((host.memory, host.memory_swap), (Some(1 << 20), Some(1 << 20)));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!(body.user.as_deref(), Some("5"));
    assert_eq!(body.entrypoint, Some(vec!["/run".to_owned()]));
    assert_eq!(body.cmd, Some(vec![]), "a command drops the image's arguments");
    assert_eq!(body.stop_timeout, Some(7));
    let bare = container(&owner(), &ContainerSpec { command: vec![], ..container_spec() });
    assert_eq!((bare.entrypoint, bare.cmd), (None, None));
}

#[test]
fn a_volume_of_the_engine_is_mounted_by_its_name() {
    let source = Place::Volume { name: "pvc-1".into(), folder: "/d/pvc-1".into() };
    let binds = vec![Bind { source, target: "/data".into(), read_only: false }];
    let host = container(&owner(), &ContainerSpec { binds, ..container_spec() }).host_config;
    let host = host.unwrap();
    let mount = &host.mounts.unwrap()[0];
    assert_eq!((mount.source.as_deref(), mount.typ), (Some("pvc-1"), Some(MountType::VOLUME)));
    assert_eq!(mount.volume_options.as_ref().unwrap().no_copy, Some(true));
    assert_eq!(host.binds, None);
}

#[test]
fn a_sandbox_has_the_pods_name_and_ports() {
    let port = HostPort {
        host_ip: "127.0.1.1".into(),
        host_port: 8080,
        container_port: 80,
        protocol: "tcp".into(),
    };
    let spec = SandboxSpec {
        pod: pod(),
        attempt: 0,
        hostname: "web".into(),
        host_network: false,
        ports: vec![port],
        extra_hosts: vec![],
        dns: Dns::default(),
        sysctls: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    let body = sandbox(&owner(), &spec);
    assert_eq!(body.hostname.as_deref(), Some("web"));
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode, Some(owner().network()));
    let bindings = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
    assert_eq!(bindings[0].host_port.as_deref(), Some("8080"));
    let shared = sandbox(&owner(), &SandboxSpec { host_network: true, ..spec });
    assert_eq!(shared.host_config.unwrap().network_mode.as_deref(), Some("host"));
}

#[test]
fn labels_bring_a_record_back() {
    let body = container(&owner(), &container_spec());
    let inspected = serde_json::from_value(serde_json::json!({
        "Id": "abc", "Created": "2026-01-01T00:00:00Z", "Image": "sha256:1",
        "Config": {"Image": "img:1", "Labels": body.labels},
        "State": {"Running": false, "ExitCode": 137, "OOMKilled": true, "Error": "",
            "StartedAt": "2026-01-01T00:00:01Z", "FinishedAt": "2026-01-01T00:00:02Z"},
    }))
    .unwrap();
    let record = record(&owner(), inspected).unwrap();
    assert_eq!(record.pod, pod());
    assert_eq!((record.attempt, record.failures, record.grace), (2, 1, 7));
    assert_eq!((record.sandbox.as_str(), record.container.as_str()), ("sb", "c"));
    assert_eq!((record.state, record.exit_code, record.oom_killed), (RunState::Exited, 137, true));
}

#[test]
fn the_year_one_means_never() {
    assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
    assert!(time(Some("2026-01-01T00:00:00.123456789Z")).is_some());
}
