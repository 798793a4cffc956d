use super::*;

fn parse(method: Method, path: &str) -> Target {
    let uri: Uri = path.parse().unwrap();
    Target::parse(&method, &uri, &Query::of(&uri)).unwrap().unwrap()
}

fn resource(method: Method, path: &str) -> (&'static str, [String; 6]) {
    let Target::Resource(r) = parse(method, path) else { panic!("{path}") };
    (r.verb, [r.group, r.version, r.namespace, r.resource, r.name, r.subresource])
}

#[test]
fn paths_are_taken_apart() {
    let owned = |parts: [&str; 6]| parts.map(str::to_owned);
    for (method, path, verb, parts) in [
        (Method::GET, "/api/v1/nodes", "list", ["", "v1", "", "nodes", "", ""]),
        (Method::GET, "/api/v1/pods?watch=1", "watch", ["", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/namespaces", "list", ["", "v1", "", "namespaces", "", ""]),
        (Method::GET, "/api/v1/namespaces/a", "get", ["", "v1", "", "namespaces", "a", ""]),
        (
            Method::PUT,
            "/api/v1/namespaces/a/finalize",
            "update",
            ["", "v1", "", "namespaces", "a", "finalize"],
        ),
        (Method::POST, "/api/v1/namespaces/a/pods", "create", ["", "v1", "a", "pods", "", ""]),
        (
            Method::GET,
            "/api/v1/namespaces/a/pods/b/log?follow=true",
            "get",
            ["", "v1", "a", "pods", "b", "log"],
        ),
        (
            Method::PATCH,
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            "patch",
            ["apps", "v1", "a", "deployments", "b", "scale"],
        ),
        (
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection",
            ["apps", "v1", "a", "deployments", "", ""],
        ),
        (
            Method::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get",
            ["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", ""],
        ),
    ] {
        assert_eq!(resource(method, path), (verb, owned(parts)), "{path}");
    }
    assert_eq!(parse(Method::GET, "/api"), Target::CoreVersions);
    assert_eq!(parse(Method::GET, "/apis/"), Target::Groups);
    assert_eq!(parse(Method::GET, "/apis/apps"), Target::Group("apps".into()));
    assert_eq!(parse(Method::GET, "/apis/apps/v1"), Target::Resources("apps".into(), "v1".into()));
}

fn asked(method: Method, path: &str) -> Attributes {
    let uri: Uri = path.parse().unwrap();
    let query = Query::of(&uri);
    let Target::Resource(request) = parse(method, path) else { panic!("{path}") };
    request.attributes(&query)
}

#[test]
fn a_namespace_is_judged_in_itself() {
    for (method, path, namespace) in [
        (Method::GET, "/api/v1/namespaces/a", "a"),
        (Method::PUT, "/api/v1/namespaces/a/finalize", "a"),
        (Method::GET, "/api/v1/namespaces", ""),
        (Method::GET, "/api/v1/namespaces?fieldSelector=metadata.name%3Da", ""),
        (Method::GET, "/api/v1/namespaces/a/pods/b", "a"),
        (Method::GET, "/api/v1/nodes/a", ""),
    ] {
        assert_eq!(asked(method, path).namespace, namespace, "{path}");
    }
}

#[test]
fn connections_with_pods_are_created_however_they_are_asked_for() {
    let pod = "/api/v1/namespaces/a/pods/b";
    for part in ["exec?command=ls", "attach", "portforward"] {
        for method in [Method::GET, Method::POST] {
            assert_eq!(asked(method, &format!("{pod}/{part}")).verb, "create", "{part}");
        }
    }
    assert_eq!(asked(Method::GET, &format!("{pod}/log")).verb, "get");
}

#[test]
fn other_paths_are_left_alone() {
    let uri: Uri = "/apiserver".parse().unwrap();
    assert!(Target::parse(&Method::GET, &uri, &Query::of(&uri)).unwrap().is_none());
}

#[test]
fn streams_and_public_paths_are_known() {
    for (path, stream) in [
        ("/api/v1/pods?watch=true", true),
        ("/api/v1/pods?watch=false", false),
        ("/api/v1/namespaces/a/pods/b/log?follow=true", true),
        ("/api/v1/namespaces/a/pods/b/log", false),
        ("/api/v1/namespaces/a/pods/b/exec?command=ls", true),
    ] {
        assert_eq!(is_stream(&path.parse().unwrap()), stream, "{path}");
    }
    assert!(is_public("/readyz/leader") && is_public("/version"));
    assert!(!is_public("/api/v1") && !is_public("/versions") && !is_public("/openapi/v3"));
}
