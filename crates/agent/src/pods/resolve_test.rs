#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_pull_policy_follows_the_tag_unless_said() {
    for (image, said, policy) in [
        ("a", None, PullPolicy::Always),
        ("a:latest", None, PullPolicy::Always),
        ("host:5000/a:1", None, PullPolicy::IfNotPresent),
        ("host:5000/a", None, PullPolicy::Always),
        ("a@sha256:00", None, PullPolicy::IfNotPresent),
        ("a", Some("Never"), PullPolicy::Never),
        ("a", Some("IfNotPresent"), PullPolicy::IfNotPresent),
    ] {
        let container: Container =
            parse(json!({"name": "c", "image": image, "imagePullPolicy": said}));
        assert_eq!(pull_policy(&container), policy, "{image} {said:?}");
    }
}

#[test]
fn resources_become_shares_quota_and_bytes() {
    let container: Container = parse(json!({
        "name": "c",
        "resources": {
            "requests": {"cpu": "500m"}, "limits": {"cpu": "2", "memory": "64Mi"}
        },
    }));
    assert_eq!(cpu(&container), Cpu { shares: Some(512), quota: Some(200_000) });
    assert_eq!(limit(&container, "memory").map(quantity::bytes), Some(64 << 20));
}

#[test]
fn host_ports_listen_at_the_nodes_address() {
    let pod: Pod = parse(json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}
        ]}]},
    }));
    let spec = sandbox(&pod, 0, "127.0.1.1".parse().unwrap(), None);
    assert_eq!(spec.hostname, "p");
    assert_eq!(spec.ports.len(), 1);
    assert_eq!((spec.ports[0].host_ip.as_str(), spec.ports[0].host_port), ("127.0.1.1", 8080));
}

#[test]
fn the_containers_security_goes_before_the_pods() {
    let pod = parse(json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3}));
    let container = parse(json!({"runAsUser": 5, "readOnlyRootFilesystem": true}));
    let security = security(Some(&pod), Some(&container), "").unwrap();
    assert_eq!(security.user, "5:2");
    assert_eq!(security.groups, ["3"]);
    assert!(security.read_only && !security.privileged);
}

#[test]
fn a_container_that_must_not_be_root_is_none() {
    for (user, fine) in [
        ("1000", true),
        ("1000:0", true),
        ("", false),
        ("0:5", false),
        ("root", false),
        ("web", false),
    ] {
        assert_eq!(check_non_root(user).is_ok(), fine, "{user}");
    }
    let pod: Pod = parse(json!({"spec": {"containers": [],
        "securityContext": {"runAsNonRoot": true}}}));
    assert!(leaves_user_to_image(&pod, &parse(json!({"name": "c"}))));
    let own = json!({"name": "c", "securityContext": {"runAsUser": 7}});
    assert!(!leaves_user_to_image(&pod, &parse(own)));
    let root = parse(json!({"runAsNonRoot": true, "runAsUser": 0}));
    assert!(security(None, Some(&root), "").unwrap_err().contains("runAsUser is 0"));
    let open = parse(json!({"seccompProfile": {"type": "Unconfined"}}));
    assert!(security(None, Some(&open), "").unwrap().unconfined);
}

#[test]
fn a_group_alone_leaves_the_user_to_the_image() {
    let group: SecurityContext = parse(json!({"runAsGroup": 3000}));
    let careful: SecurityContext = parse(json!({"runAsGroup": 3000, "runAsNonRoot": true}));
    for (image_user, user) in
        [("1000", "1000:3000"), ("1000:1000", "1000:3000"), ("web", "web:3000"), ("", "0:3000")]
    {
        assert_eq!(security(None, Some(&group), image_user).unwrap().user, user);
    }
    assert_eq!(security(None, Some(&careful), "1000:1000").unwrap().user, "1000:3000");
    let error = security(None, Some(&careful), "").unwrap_err();
    assert!(error.contains("image will run as root"), "{error}");
    let pod = Pod::default();
    let own = json!({"name": "c", "securityContext": {"runAsGroup": 3000}});
    assert!(leaves_user_to_image(&pod, &parse(own)), "the image has to be looked at");
    assert!(!leaves_user_to_image(&pod, &parse(json!({"name": "c"}))));
}

#[test]
fn a_sub_path_stays_inside() {
    let folder = tempfile::tempdir().unwrap();
    assert!(sub_path(folder.path(), "a/b").unwrap().is_dir());
    assert!(sub_path(folder.path(), "../x").is_err());
    std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
    assert!(sub_path(folder.path(), "out/etc").is_err());
}

#[test]
fn pods_look_up_the_clusters_names_first() {
    let server = Some("10.1.0.1".parse().unwrap());
    let of = |more: serde_json::Value| {
        let mut pod = crate::pods::fake::pod("p", "Always", &["a"]);
        let mut spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod.spec = serde_json::from_value(spec).unwrap();
        sandbox(&pod, 0, "127.0.1.1".parse().unwrap(), server).dns
    };
    let usual = of(serde_json::json!({}));
    assert_eq!(usual.servers, ["10.1.0.1"]);
    let domains = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"];
    assert_eq!(usual.searches, domains);
    assert_eq!(usual.options, ["ndots:5"]);
    assert_eq!(of(serde_json::json!({"dnsPolicy": "Default"})), Dns::default());
    assert_eq!(of(serde_json::json!({"hostNetwork": true})), Dns::default());
    let own = of(serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}));
    assert_eq!(
        (own.servers, own.options),
        (vec!["9.9.9.9".to_owned()], vec!["ndots:2".to_owned(), "rotate".to_owned()])
    );
    let mixed =
        of(serde_json::json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}));
    assert_eq!(mixed.options, ["ndots:2"]);
}
