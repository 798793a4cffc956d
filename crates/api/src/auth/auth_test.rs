#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use quorate_proto::v1;
use quorate_proto::v1::objects_server::Objects as _;
use quorate_registry::{Consistency, DeleteOptions, Registry, RegistryOptions, WriteOptions};
use quorate_store::MemoryStore;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::objects::ObjectsService;

const PATIENCE: Duration = Duration::from_secs(20);
const RBAC: &str = "rbac.authorization.k8s.io/v1";

struct Fixture {
    auth: Arc<Auth>,
    registry: Registry,
    _stop: DropGuard,
}

async fn fixture() -> Fixture {
    let cancel = CancellationToken::new();
    let registry = Registry::start(MemoryStore::new(), RegistryOptions::default(), cancel.clone());
    registry.wait_synced(PATIENCE).await.unwrap();
    registry.ensure_system_objects(None).await.unwrap();
    registry.ensure_system_roles(None).await.unwrap();
    let f = Fixture {
        auth: Arc::new(Auth::new(registry.clone())),
        registry,
        _stop: cancel.drop_guard(),
    };
    f.caught_up().await;
    f
}

impl Fixture {
    /// Waits until the cache, which decides, has seen every write.
    async fn caught_up(&self) {
        let everything = quorate_registry::ListOptions::default();
        let kind = &kinds::NAMESPACE;
        self.registry.list(kind, None, &everything, Consistency::Linearizable).await.unwrap();
    }

    async fn create(&self, value: Value) -> Arc<quorate_registry::Object> {
        let created = self.registry.create(value, &WriteOptions::default()).await.unwrap();
        self.caught_up().await;
        created
    }

    async fn bind(&self, role: &str, namespace: Option<&str>, subject: Value) {
        let mut binding = json!({
            "apiVersion": RBAC,
            "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
            "metadata": {"generateName": "b-"},
            "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [subject],
        });
        if let Some(namespace) = namespace {
            binding["metadata"]["namespace"] = namespace.into();
        }
        self.create(binding).await;
    }

    /// As a request of this user writes roles and bindings.
    async fn options(&self, user: &Arc<User>) -> WriteOptions {
        let kind = &kinds::ROLE_BINDING;
        let admission = self.auth.admission(user, kind).await.unwrap();
        WriteOptions { admission, ..WriteOptions::default() }
    }

    /// `get pods default/web`, `create deployments.apps default`, `list nodes`, `get /metrics`
    fn may(&self, user: &User, what: &str) -> bool {
        self.auth.authorize(user, &wanted(what)).allowed
    }
}

fn wanted(what: &str) -> Attributes {
    let mut words = what.split(' ');
    let (verb, resource) = (words.next().unwrap(), words.next().unwrap());
    if resource.starts_with('/') {
        return Attributes::path(verb, resource);
    }
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let place = words.next().unwrap_or_default();
    let (namespace, name) = place.split_once('/').unwrap_or((place, ""));
    Attributes {
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        path: String::new(),
    }
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), ..User::default() }.with_groups(groups.iter().map(|g| (*g).into()))
}

fn jane() -> Value {
    json!({"kind": "User", "name": "jane"})
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node, "serviceAccountName": "robot",
            "containers": [{"name": "c", "image": "i:1", "envFrom": [
                {"secretRef": {"name": "password"}},
            ]}],
            "volumes": [{"name": "v", "configMap": {"name": "settings"}}],
        },
    })
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount",
           "metadata": {"name": name, "namespace": "default"}})
}

#[tokio::test]
async fn nobody_may_anything_but_what_roles_say() {
    let f = fixture().await;
    let jane_ = user("jane", &[]);
    assert!(!f.may(&jane_, "get pods default/web"));
    assert!(f.may(&jane_, "get /version") && f.may(&jane_, "get /apis/apps/v1"));
    assert!(!f.may(&jane_, "get /metrics"));
    assert!(f.may(&jane_, "create selfsubjectaccessreviews.authorization.k8s.io"));
    assert!(f.may(&user("root", &["system:masters"]), "delete nodes n1"));
    f.bind("view", Some("default"), jane()).await;
    assert!(f.may(&jane_, "list pods default") && f.may(&jane_, "get pods/log default/web"));
    assert!(f.may(&jane_, "get deployments.apps default/web"));
    for no in [
        "get secrets default/password",
        "create pods default",
        "list pods kube-system",
        "list pods",
        "create pods/exec default/web",
        "get roles.rbac.authorization.k8s.io default/r",
    ] {
        assert!(!f.may(&jane_, no), "{no}");
    }
    f.bind("edit", None, json!({"kind": "Group", "name": "dev"})).await;
    let dev = user("joe", &["dev"]);
    assert!(f.may(&dev, "create deployments.apps other") && f.may(&dev, "list secrets"));
    assert!(f.may(&dev, "patch deployments/scale.apps other/web"));
    assert!(!f.may(&dev, "create rolebindings.rbac.authorization.k8s.io other"));
    f.bind("admin", Some("default"), jane()).await;
    assert!(f.may(&jane_, "create rolebindings.rbac.authorization.k8s.io default"));
    assert!(f.may(&jane_, "get secrets default/x"), "admin has what edit has");
    let decision = f.auth.authorize(&jane_, &wanted("list pods default"));
    assert!(decision.reason.starts_with("RBAC: allowed by RoleBinding \"b-"), "{decision:?}");
}

#[tokio::test]
async fn rules_with_names_and_parts() {
    let f = fixture().await;
    f.create(json!({
        "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "r"},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"],
             "verbs": ["get", "update"]},
            {"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]},
            {"nonResourceURLs": ["/metrics/*"], "verbs": ["get"]},
        ],
    }))
    .await;
    f.bind("r", None, jane()).await;
    let jane_ = user("jane", &[]);
    for yes in [
        "get configmaps default/mine",
        "update deployments/scale.apps default/web",
        "get /metrics/nodes",
    ] {
        assert!(f.may(&jane_, yes), "{yes}");
    }
    for no in [
        "get configmaps default/other",
        "list configmaps default",
        "update deployments.apps default/web",
        "get /metrics",
        "post /metrics/nodes",
    ] {
        assert!(!f.may(&jane_, no), "{no}");
    }
}

#[tokio::test]
async fn refusals_speak_kubernetes() {
    let f = fixture().await;
    let jane = user("jane", &[]);
    let text = |what: &str| f.auth.require(&jane, &wanted(what)).unwrap_err();
    assert_eq!(
        text("get pods/log default/web"),
        "pods \"web\" is forbidden: User \"jane\" cannot get resource \"pods/log\" in API group \
         \"\" in the namespace \"default\""
    );
    assert_eq!(
        text("list deployments.apps"),
        "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API \
         group \"apps\" at the cluster scope"
    );
    assert_eq!(text("get /metrics"), "forbidden: User \"jane\" cannot get path \"/metrics\"");
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let f = fixture().await;
    f.bind("admin", Some("default"), jane()).await;
    let jane_ = Arc::new(user("jane", &[]));
    let options = f.options(&jane_).await;
    let role = |name: &str, resource: &str| {
        json!({
            "apiVersion": RBAC, "kind": "Role",
            "metadata": {"name": name, "namespace": "default"},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}],
        })
    };
    f.registry.create(role("fine", "pods"), &options).await.unwrap();
    let error = f.registry.create(role("bold", "nodes"), &options).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is attempting to grant RBAC permissions not currently held"), "{text}");
    assert!(text.ends_with("{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"), "{text}");
    let binding = |role: &str| {
        json!({
            "apiVersion": RBAC, "kind": "RoleBinding",
            "metadata": {"generateName": "b-", "namespace": "default"},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "joe"}],
        })
    };
    f.registry.create(binding("view"), &options).await.unwrap();
    assert!(f.registry.create(binding("cluster-admin"), &options).await.is_err());
    let root = Arc::new(user("root", &["system:masters"]));
    assert!(f.options(&root).await.admission.is_none());
}

/// Whoever made it later would give it away.
#[tokio::test]
async fn nobody_binds_a_role_that_is_not_there() {
    let f = fixture().await;
    f.bind("admin", Some("default"), jane()).await;
    let jane_ = Arc::new(user("jane", &[]));
    let options = f.options(&jane_).await;
    let binding = |kind: &str| {
        json!({
            "apiVersion": RBAC, "kind": "RoleBinding",
            "metadata": {"generateName": "b-", "namespace": "default"},
            "roleRef": {"kind": kind, "name": "later"},
            "subjects": [{"kind": "User", "name": "joe"}],
        })
    };
    for (kind, resource) in [("ClusterRole", "clusterroles"), ("Role", "roles")] {
        let error = f.registry.create(binding(kind), &options).await.unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        let text = format!("{resource}.rbac.authorization.k8s.io \"later\" not found");
        assert_eq!(error.to_string(), text);
    }
    f.create(json!({
        "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "binder"},
        "rules": [{
            "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
            "resourceNames": ["later"], "verbs": ["bind"],
        }],
    }))
    .await;
    f.bind("binder", Some("default"), jane()).await;
    f.registry.create(binding("ClusterRole"), &options).await.unwrap();
    assert!(f.registry.create(binding("Role"), &options).await.is_err());
}

#[tokio::test]
async fn a_role_in_a_namespace_shows_the_namespace() {
    let f = fixture().await;
    f.bind("view", Some("default"), jane()).await;
    let service = ObjectsService {
        registry: f.registry.clone(),
        auth: Arc::clone(&f.auth),
        cancel: CancellationToken::new(),
    };
    let by_jane = |namespace: &str, name: &str| {
        let kind = Some(v1::KindRef { api_version: "v1".into(), kind: "Namespace".into() });
        let (namespace, name) = (namespace.into(), name.into());
        let request = v1::GetRequest { kind, namespace, name, ..Default::default() };
        let mut request = tonic::Request::new(request);
        request.extensions_mut().insert(Arc::new(user("jane", &[])));
        request
    };
    let found = service.get(by_jane("", "default")).await.unwrap().into_inner();
    assert_eq!((found.namespace.as_str(), found.name.as_str()), ("", "default"));
    for namespace in ["", "default"] {
        let refused = service.get(by_jane(namespace, "kube-system")).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    }
    assert!(!f.may(&user("jane", &[]), "list namespaces"));
}

#[tokio::test]
async fn agents_reach_what_their_pods_name_only() {
    let f = fixture().await;
    f.create(account("robot")).await;
    f.create(pod("web", "n1")).await;
    let agent = |node: &str| user(&format!("system:node:{node}"), &["system:nodes"]);
    for yes in [
        "get secrets default/password",
        "get configmaps default/settings",
        "create serviceaccounts/token default/robot",
        "watch services",
        "list endpointslices.discovery.k8s.io",
        "get pods default/web",
    ] {
        assert!(f.may(&agent("n1"), yes), "{yes}");
        let own = ["secrets", "configmaps", "token", "pods"].iter().any(|r| yes.contains(r));
        assert_eq!(f.may(&agent("n2"), yes), !own, "{yes} by the other node");
    }
    for no in [
        "get secrets default/other",
        "list secrets default",
        "get secrets kube-system/password",
        "delete pods default/web",
        "create pods default",
        "patch nodes n2",
    ] {
        assert!(!f.may(&agent("n1"), no), "{no}");
    }
    // The name alone makes nobody an agent.
    assert!(!f.may(&user("system:node:n1", &[]), "watch services"));
}

#[tokio::test]
async fn tokens_of_service_accounts() {
    let f = fixture().await;
    f.create(account("robot")).await;
    let pod = f.create(pod("web", "n1")).await;
    let wanted = Wanted {
        namespace: "default".into(),
        account: "robot".into(),
        pod: Some(("web".into(), pod.uid().into())),
        ..Wanted::default()
    };
    let issued = f.auth.tokens.issue(&wanted, None).await.unwrap();
    f.caught_up().await;
    let user = f.auth.tokens.authenticate(&issued.token).unwrap();
    assert_eq!(user.name, "system:serviceaccount:default:robot");
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    );
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    // Another master, with another cache of the same store, takes it too.
    assert!(Auth::new(f.registry.clone()).tokens.authenticate(&issued.token).is_ok());
    // One byte of the signature, or of what it says.
    let mut broken = issued.token.clone().into_bytes();
    let middle = broken.len() / 2;
    broken[middle] = if broken[middle] == b'A' { b'B' } else { b'A' };
    assert!(f.auth.tokens.authenticate(&String::from_utf8(broken).unwrap()).is_err());
    let other = Wanted { audiences: vec!["vault".into()], ..wanted.clone() };
    let foreign = f.auth.tokens.issue(&other, None).await.unwrap();
    assert!(f.auth.tokens.authenticate(&foreign.token).is_err(), "it is for somebody else");
    let short = Wanted { seconds: Some(10), ..wanted.clone() };
    let text = f.auth.tokens.issue(&short, None).await.unwrap_err().to_string();
    assert!(text.contains("may not specify a duration less than 10 minutes"), "{text}");
    // Agents get tokens for pods of their own node only.
    let agent = |node: &str| self::user(&format!("system:node:{node}"), &["system:nodes"]);
    f.auth.issue(&agent("n1"), &wanted).await.unwrap();
    let unbound = Wanted { pod: None, ..wanted.clone() };
    for (node, wanted, words) in [
        ("n1", &unbound, "node requested token not bound to a pod"),
        ("n2", &wanted, "scheduled on a different node"),
    ] {
        let text = f.auth.issue(&agent(node), wanted).await.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
    f.create(account("other")).await;
    let other = Wanted { account: "other".into(), ..wanted.clone() };
    let text = f.auth.tokens.issue(&other, None).await.unwrap_err().to_string();
    assert!(text.contains("different serviceaccount name"), "{text}");
    // It ends with its pod.
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    f.registry.delete(&kinds::POD, "default", "web", &now).await.unwrap();
    f.caught_up().await;
    assert!(f.auth.tokens.authenticate(&issued.token).is_err());
    let gone = f.auth.tokens.issue(&Wanted { account: "nobody".into(), ..wanted }, None).await;
    assert!(gone.is_err());
}

#[tokio::test]
async fn bindings_of_service_accounts() {
    let f = fixture().await;
    let subject = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    f.bind("view", Some("default"), subject).await;
    let robot = user("system:serviceaccount:default:robot", &[]);
    assert!(f.may(&robot, "list pods default"));
    assert!(!f.may(&user("system:serviceaccount:other:robot", &[]), "list pods default"));
}

#[tokio::test]
async fn tokens_for_joining() {
    let f = fixture().await;
    let secret = |id: &str, until: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
            "stringData": {
                "token-id": id, "token-secret": "0123456789abcdef", "expiration": until,
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:nodes,system:masters",
            },
        })
    };
    f.create(secret("abcdef", "2999-01-01T00:00:00Z")).await;
    f.create(secret("expire", "2001-01-01T00:00:00Z")).await;
    let user = f.auth.tokens.authenticate("abcdef.0123456789abcdef").unwrap();
    assert_eq!(user.name, "system:bootstrap:abcdef");
    assert!(user.is_in("system:bootstrappers") && user.is_in("system:bootstrappers:nodes"));
    assert!(!user.is_in("system:masters"));
    for no in ["abcdef.0123456789abcdee", "abcdef.", "expire.0123456789abcdef", "nobody.x"] {
        assert!(f.auth.tokens.authenticate(no).is_err(), "{no}");
    }
}

fn certificate(name: &str, groups: &[&str]) -> CertificateDer<'static> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

#[tokio::test]
async fn who_a_caller_is() {
    let f = fixture().await;
    let peer = |certificate: Option<CertificateDer<'_>>| Peer::secure(certificate.as_ref());
    let none = HeaderMap::new();
    let shown = peer(Some(certificate("jane", &["dev"])));
    let jane = f.auth.authenticate(&shown, &none).unwrap();
    assert_eq!((jane.name.as_str(), jane.is_in("dev")), ("jane", true));
    assert!(jane.is_in("system:authenticated"));
    assert!(f.auth.authenticate(&peer(Some(certificate("", &[]))), &none).is_none());
    assert!(f.auth.authenticate(&peer(None), &none).is_none());
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer nonsense"));
    assert!(f.auth.authenticate(&peer(None), &headers).is_none());
    let plain = Peer::plain();
    assert!(f.auth.authenticate(&plain, &none).unwrap().is_in(MASTERS));
    // To be somebody else needs a permission.
    headers.insert("impersonate-user", HeaderValue::from_static("joe"));
    headers.insert("impersonate-group", HeaderValue::from_static("ops"));
    let text = f.auth.impersonate(jane, &headers).unwrap_err();
    assert!(text.starts_with("users \"joe\" is forbidden: User \"jane\" cannot impersonate"));
    let root = || Arc::new(user("root", &[MASTERS]));
    headers.insert("impersonate-extra-a%2fb", HeaderValue::from_static("c"));
    let joe = f.auth.impersonate(root(), &headers).unwrap();
    assert_eq!(joe.extra["a/b"], ["c"]);
    assert_eq!(joe.name, "joe");
    assert!(joe.is_in("ops") && !joe.is_in(MASTERS));
    headers.remove("impersonate-user");
    let text = f.auth.impersonate(root(), &headers).unwrap_err();
    assert!(text.contains("Impersonate-User is missing"), "{text}");
}

#[tokio::test]
async fn reviews() {
    let f = fixture().await;
    f.bind("view", Some("default"), jane()).await;
    let jane_ = user("jane", &[]);
    let ask = |review, spec: Value| f.auth.review(review, &jane_, "", json!({"spec": spec}));
    let can = |verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}});
    let answer = ask(Review::SelfSubjectAccess, can("list")).unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(answer["kind"], "SelfSubjectAccessReview");
    assert_eq!(ask(Review::SelfSubjectAccess, can("delete")).unwrap()["status"]["allowed"], false);
    assert!(ask(Review::SelfSubjectAccess, json!({})).is_err());
    let whoami = ask(Review::SelfSubject, json!({})).unwrap();
    assert_eq!(whoami["status"]["userInfo"]["username"], "jane");
    let rules = ask(Review::SelfSubjectRules, json!({"namespace": "default"})).unwrap();
    let rules = rules["status"]["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["resources"].to_string().contains("\"pods\"")));
    let mut about = can("list");
    about["user"] = "joe".into();
    assert_eq!(ask(Review::SubjectAccess, about).unwrap()["status"]["allowed"], false);
    let token = ask(Review::Token, json!({"token": "x.y.z"})).unwrap();
    assert_eq!(token["status"]["authenticated"], false);
}

/// Figures, not a test: `cargo test -p quorate-api what_a_decision_costs -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures"]
async fn what_a_decision_costs() {
    const ROUNDS: u32 = 2000;
    let f = fixture().await;
    f.create(account("robot")).await;
    for number in 0..200 {
        let name = format!("user{number}");
        f.bind("edit", Some("default"), json!({"kind": "User", "name": name})).await;
    }
    f.bind("admin", Some("default"), jane()).await;
    let jane_ = user("jane", &[]);
    let started = std::time::Instant::now();
    for _ in 0..ROUNDS {
        assert!(f.may(&jane_, "list pods default"));
        assert!(!f.may(&jane_, "list nodes"));
    }
    eprintln!("a decision among 200 bindings: {:?}", started.elapsed() / (2 * ROUNDS));
    let wanted =
        Wanted { namespace: "default".into(), account: "robot".into(), ..Wanted::default() };
    let token = f.auth.tokens.issue(&wanted, None).await.unwrap().token;
    f.caught_up().await;
    let started = std::time::Instant::now();
    f.auth.tokens.authenticate(&token).unwrap();
    eprintln!("a token for the first time: {:?}", started.elapsed());
    let started = std::time::Instant::now();
    for _ in 0..ROUNDS {
        f.auth.tokens.authenticate(&token).unwrap();
    }
    eprintln!("and then: {:?}", started.elapsed() / ROUNDS);
    let certificate = certificate("jane", &["dev"]);
    let peer = Peer::secure(Some(&certificate));
    let started = std::time::Instant::now();
    for _ in 0..ROUNDS {
        f.auth.authenticate(&peer, &HeaderMap::new()).unwrap();
    }
    eprintln!("a certificate: {:?}", started.elapsed() / ROUNDS);
}

#[test]
fn methods_of_grpc() {
    let resource = |path: &str| grpc::wanted(path).map(|wanted| wanted.resource);
    assert_eq!(resource("/etcdserverpb.KV/Range"), None, "it asks for itself");
    assert_eq!(resource("/quorate.v1.New/Call").as_deref(), Some("quorate.v1.New"));
    assert_eq!(resource("/quorate.v1.Cluster/TransferLeader").as_deref(), Some("masters"));
    assert_eq!(resource("/quorate.v1.Cluster/Status"), None);
    assert_eq!(resource("/quorate.v1.Objects/Get"), None);
}
