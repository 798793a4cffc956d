//! Who may do what, over TLS: certificates, tokens of service accounts, roles, nodes, the etcd API;
//! and who owns what (server-side apply). Judged by what real clients are told.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::process::{self, Output, has};
use quorate_testkit::{Kubectl, Options, TestCluster, cases, etcdctl, suite, wait_for};
use serde_json::json;

fn main() -> ExitCode {
    let cases = cases![
        tokens_may_do_what_roles_say,
        every_master_knows_tokens_and_roles,
        admins_act_as_others,
        nobody_gives_what_they_do_not_have,
        agents_reach_what_their_pods_name,
        the_store_is_for_masters,
        the_native_api_asks_the_same,
        pods_reach_the_masters,
        strangers_are_turned_away,
        owners_of_fields_are_respected,
    ];
    suite::main(Options::default(), cases)
}

/// For what takes a moment: other masters follow.
const SOON: Duration = Duration::from_secs(20);

/// What a user of kubectl shows.
enum Credentials<'a> {
    Token(&'a str),
    /// Of `pki/NAME.crt`.
    Certificate(&'a str),
}

/// Where kubectl goes.
#[derive(Clone, Copy)]
enum Server<'a> {
    Endpoint,
    Master(usize),
    /// The address of the Service `kubernetes`, as programs in pods do.
    Service(&'a str),
}

/// kubectl as somebody else.
fn kubectl_as(
    cluster: &TestCluster,
    admin: &Kubectl,
    credentials: &Credentials<'_>,
    master: Server<'_>,
) -> Result<Kubectl> {
    let pki = cluster.dir().join("pki");
    let file = cluster.file()?;
    let endpoint = file.endpoint.as_ref().map(|endpoint| endpoint.url.clone());
    let url = match master {
        Server::Master(number) => file.masters.get(number).map(|master| master.url.clone()),
        Server::Endpoint => endpoint,
        Server::Service(address) => Some(format!("https://{address}:443")),
    };
    let user = match credentials {
        Credentials::Token(token) => json!({"token": token}),
        Credentials::Certificate(name) => json!({
            "client-certificate": pki.join(format!("{name}.crt")),
            "client-key": pki.join(format!("{name}.key")),
        }),
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": url.context("no such master")?, "certificate-authority": pki.join("ca.crt"),
        }}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
    });
    admin.with_kubeconfig(&config.to_string())
}

/// Waits until a command succeeds at every master: each goes by what it has seen itself of accounts
/// and roles, and the endpoint gives each connection to another one.
async fn everywhere(
    cluster: &TestCluster,
    admin: &Kubectl,
    credentials: &Credentials<'_>,
    args: &[&str],
) -> Result<()> {
    for number in 0..cluster.file()?.masters.len() {
        let kubectl = kubectl_as(cluster, admin, credentials, Server::Master(number))?;
        wait_for("every master knows it", SOON, async || kubectl.run(args).await?.ok()).await?;
    }
    Ok(())
}

/// A service account `name` in its own namespace `name`, and kubectl with its token, which every
/// master knows.
async fn robot(cluster: &TestCluster, admin: &Kubectl, name: &str) -> Result<Kubectl> {
    admin.ok(&["create", "namespace", name]).await?;
    admin.ok(&["create", "serviceaccount", "robot", "-n", name]).await?;
    let token = admin.ok(&["create", "token", "robot", "-n", name]).await?;
    let credentials = Credentials::Token(token.trim());
    everywhere(cluster, admin, &credentials, &["auth", "whoami"]).await?;
    kubectl_as(cluster, admin, &credentials, Server::Endpoint)
}

async fn tokens_may_do_what_roles_say(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    let robot = robot(&cluster, &admin, "tokens").await?;
    let ns = ["-n", "tokens"];
    let who = robot.ok(&["auth", "whoami"]).await?;
    let name = "system:serviceaccount:tokens:robot";
    has(&who, &[name, "system:serviceaccounts:tokens", "system:authenticated"])?;
    let get = async |what: &str| robot.run(&[&["get", what], &ns[..]].concat()).await;
    let refused = format!(
        "Error from server (Forbidden): configmaps is forbidden: User \"{name}\" cannot list \
         resource \"configmaps\" in API group \"\" in the namespace \"tokens\""
    );
    get("configmaps").await?.fails_with(&[&refused])?;

    let role = ["create", "role", "reader", "--verb=get,list,watch", "--resource=configmaps"];
    admin.ok(&[&role, &ns[..]].concat()).await?;
    let bind = ["create", "rolebinding", "reads", "--role=reader", "--serviceaccount=tokens:robot"];
    admin.ok(&[&bind, &ns[..]].concat()).await?;
    wait_for("the role", SOON, async || get("configmaps").await?.ok()).await?;
    // That and nothing else.
    for (what, verb) in [("secrets", "list"), ("pods", "list")] {
        let words = format!("cannot {verb} resource \"{what}\" in API group \"\"");
        get(what).await?.fails_with(&["(Forbidden)", &words])?;
    }
    let create = [&["create", "configmap", "mine"], &ns[..]].concat();
    robot.run(&create).await?.fails_with(&["cannot create resource \"configmaps\""])?;
    robot.run(&["get", "cm", "-A"]).await?.fails_with(&["at the cluster scope"])?;
    robot.run(&["get", "nodes"]).await?.fails_with(&["at the cluster scope"])?;
    let raw = async |path: &str| robot.run(&["get", "--raw", path]).await;
    raw("/api/v1/namespaces/tokens/secrets?watch=1")
        .await?
        .fails_with(&["cannot watch resource \"secrets\""])?;
    raw("/metrics").await?.fails_with(&["cannot get path \"/metrics\""])?;
    has(&raw("/version").await?.ok()?, &["gitVersion"])?;

    let can = async |args: &[&str]| robot.run(&[&["auth", "can-i"], args, &ns[..]].concat()).await;
    has(&can(&["watch", "configmaps"]).await?.ok()?, &["yes"])?;
    let no = can(&["delete", "configmaps"]).await?;
    ensure!(no.code == Some(1) && no.stdout.contains("no"), "{no}");
    let list = can(&["--list"]).await?.ok()?;
    has(&list, &["configmaps", "[get list watch]", "selfsubjectreviews.authentication.k8s.io"])?;

    // A token is as good as its account, and its signature.
    let wrong = kubectl_as(&cluster, &admin, &Credentials::Token("a.b.c"), Server::Endpoint)?;
    wrong.run(&["get", "cm"]).await?.fails_with(&["You must be logged in"])?;
    admin.ok(&[&["delete", "serviceaccount", "robot"], &ns[..]].concat()).await?;
    wait_for("the token's end", SOON, async || {
        get("configmaps").await?.fails_with(&["You must be logged in"])
    })
    .await?;
    admin.ok(&["delete", "namespace", "tokens"]).await.map(drop)
}

async fn every_master_knows_tokens_and_roles(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    admin.ok(&["create", "serviceaccount", "viewer"]).await?;
    let bind = ["create", "rolebinding", "viewer", "--clusterrole=view"];
    admin.ok(&[&bind[..], &["--serviceaccount=default:viewer"]].concat()).await?;
    let token = admin.ok(&["create", "token", "viewer", "--duration=15m"]).await?;
    for number in 0..cluster.file()?.masters.len() {
        let credentials = Credentials::Token(token.trim());
        let viewer = kubectl_as(&cluster, &admin, &credentials, Server::Master(number))?;
        wait_for("the role", SOON, async || viewer.run(&["get", "pods"]).await?.ok()).await?;
        viewer.run(&["get", "secrets"]).await?.fails_with(&["(Forbidden)"])?;
        let watch = ["get", "--raw", "/api/v1/namespaces/default/secrets?watch=1"];
        viewer.run(&watch).await?.fails_with(&["(Forbidden)"])?;
    }
    admin.ok(&["delete", "rolebinding/viewer", "serviceaccount/viewer"]).await.map(drop)
}

async fn admins_act_as_others(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    has(&admin.ok(&["auth", "whoami"]).await?, &["kubernetes-admin", "system:masters"])?;
    let as_jane = ["--as", "jane", "--as-group", "dev"];
    let who = admin.ok(&[&["auth", "whoami"], &as_jane[..]].concat()).await?;
    has(&who, &["jane", "dev", "system:authenticated"])?;
    ensure!(!who.contains("system:masters"), "{who}");
    let get = [&["get", "pods"], &as_jane[..]].concat();
    admin.run(&get).await?.fails_with(&["User \"jane\" cannot list resource \"pods\""])?;
    let can = [&["auth", "can-i", "create", "deployments.apps"], &as_jane[..]].concat();
    ensure!(admin.run(&can).await?.code == Some(1));
    let bind = ["create", "clusterrolebinding", "devs", "--clusterrole=edit", "--group=dev"];
    admin.ok(&bind).await?;
    everywhere(&cluster, &admin, &Credentials::Certificate("admin"), &can).await?;
    admin.ok(&get).await?;
    // An edit role does not reach beyond it.
    let nodes = [&["get", "nodes"], &as_jane[..]].concat();
    admin.run(&nodes).await?.fails_with(&["(Forbidden)"])?;
    let robot = robot(&cluster, &admin, "actors").await?;
    robot
        .run(&["get", "pods", "--as", "kubernetes-admin"])
        .await?
        .fails_with(&["cannot impersonate resource \"users\""])?;
    admin.ok(&["delete", "clusterrolebinding/devs", "namespace/actors"]).await.map(drop)
}

async fn nobody_gives_what_they_do_not_have(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    let robot = robot(&cluster, &admin, "givers").await?;
    let ns = ["-n", "givers"];
    let bind = ["create", "rolebinding", "owner", "--clusterrole=admin"];
    let account = "system:serviceaccount:givers:robot";
    let subject = ["--serviceaccount=givers:robot"];
    admin.ok(&[&bind, &subject[..], &ns[..]].concat()).await?;
    let can = [&["auth", "can-i", "create", "roles", "--as", account], &ns[..]].concat();
    everywhere(&cluster, &admin, &Credentials::Certificate("admin"), &can).await?;
    let role =
        |name, resource| [&["create", "role", name, "--verb=get", resource], &ns[..]].concat();
    robot.ok(&role("fine", "--resource=pods")).await?;
    let grant = "is attempting to grant RBAC permissions not currently held";
    robot.run(&role("bold", "--resource=nodes")).await?.fails_with(&["(Forbidden)", grant])?;
    let give = |role| [&["create", "rolebinding", "gift", role, "--user=eve"], &ns[..]].concat();
    robot.run(&give("--clusterrole=cluster-admin")).await?.fails_with(&[grant])?;
    robot.ok(&give("--clusterrole=view")).await?;
    // Also by a patch of what is there.
    let rules = "{\"rules\":[{\"apiGroups\":[\"*\"],\"resources\":[\"*\"],\"verbs\":[\"*\"]}]}";
    let patch = [&["patch", "role", "fine", "--type=merge", "-p", rules], &ns[..]].concat();
    robot.run(&patch).await?.fails_with(&[grant])?;
    let wide = ["create", "clusterrole", "wide", "--verb=get", "--resource=pods"];
    robot.run(&wide).await?.fails_with(&["cannot create resource \"clusterroles\""])?;
    admin.ok(&wide).await?;
    admin.ok(&["create", "clusterrolebinding", "wide", "--clusterrole=wide", "--user=eve"]).await?;
    has(&admin.ok(&["describe", "clusterrole", "wide"]).await?, &["Resources", "pods", "[get]"])?;
    let gone = ["delete", "clusterrole/wide", "clusterrolebinding/wide", "namespace/givers"];
    admin.ok(&gone).await.map(drop)
}

async fn agents_reach_what_their_pods_name(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let admin = Kubectl::newest(&cluster).await?;
    for name in ["used", "other"] {
        admin.ok(&["create", "secret", "generic", name, "--from-literal=k=v"]).await?;
    }
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: user}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: '{WEB_IMAGE}'
    envFrom: [{{secretRef: {{name: used}}}}]
"
    );
    admin.apply(&pod).await?;
    admin.ok(&["wait", "pod/user", "--for=condition=Ready", "--timeout=60s"]).await?;
    let agent =
        |name| kubectl_as(&cluster, &admin, &Credentials::Certificate(name), Server::Endpoint);
    let (own, other) = (agent("node-n1")?, agent("node-n2")?);
    has(&own.ok(&["auth", "whoami"]).await?, &["system:node:n1", "system:nodes"])?;
    let certificate = Credentials::Certificate("node-n1");
    everywhere(&cluster, &admin, &certificate, &["get", "secret", "used"]).await?;
    own.ok(&["get", "nodes"]).await?;
    let words = "User \"system:node:n2\" cannot get resource \"secrets\"";
    other.run(&["get", "secret", "used"]).await?.fails_with(&["(Forbidden)", words])?;
    for args in [
        &["get", "secret", "other"][..],
        &["get", "secrets"],
        &["get", "secrets", "-A"],
        &["delete", "pod", "user"],
        &["exec", "user", "--", "true"],
        &["label", "node", "n2", "a=b"],
        &["create", "token", "default"],
        &["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=eve"],
    ] {
        own.run(args).await?.fails_with(&["forbidden"])?;
    }
    // A token for its pod, and for no other.
    let bound = ["create", "token", "default", "--bound-object-kind=Pod"];
    let of_pod = [&bound[..], &["--bound-object-name=user"]].concat();
    other.run(&of_pod).await?.fails_with(&["forbidden"])?;
    let token = own.ok(&of_pod).await?;
    let inside = kubectl_as(&cluster, &admin, &Credentials::Token(token.trim()), Server::Endpoint)?;
    let who = inside.ok(&["auth", "whoami"]).await?;
    has(&who, &["system:serviceaccount:default:default", "pod-name", "user"])?;
    admin.ok(&["delete", "pod/user", "secret/used", "secret/other", "--now"]).await?;
    wait_for("the token's end", SOON, async || {
        inside.run(&["auth", "whoami"]).await?.fails_with(&["You must be logged in"])
    })
    .await
    .map(drop)
}

/// etcdctl at the first master, with a certificate of the cluster.
async fn etcdctl_as(cluster: &TestCluster, certificate: &str, args: &[&str]) -> Result<Output> {
    let url = cluster.file()?.masters.first().context("a master")?.url.clone();
    let pki = cluster.dir().join("pki");
    let file = |name: String| pki.join(name).display().to_string();
    let (ca, cert) = (file("ca.crt".into()), file(format!("{certificate}.crt")));
    let key = file(format!("{certificate}.key"));
    let flags = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    etcdctl::etcdctl(&url, &[&flags[..], args].concat(), None).await
}

async fn the_store_is_for_masters(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    admin.ok(&["create", "secret", "generic", "hidden", "--from-literal=k=v"]).await?;
    let secrets = ["get", "/registry/secrets", "--prefix", "--keys-only"];
    for certificate in ["node-n1", "node"] {
        for args in [
            &secrets[..],
            &["get", "own"],
            &["put", "own", "x"],
            &["put", "/registry/configmaps/default/x", "{}"],
            &["del", "", "--prefix"],
            &["snapshot", "save", "/dev/null"],
            &["user", "add", "eve:eve"],
            &["member", "list"],
        ] {
            etcdctl_as(&cluster, certificate, args).await?.fails_with(&["permission denied"])?;
        }
    }
    has(&etcdctl_as(&cluster, "admin", &secrets).await?.ok()?, &["default/hidden"])?;
    etcdctl_as(&cluster, "admin", &["put", "own", "x"]).await?.ok()?;
    etcdctl_as(&cluster, "admin", &["del", "own"]).await?.ok()?;
    admin.ok(&["delete", "secret", "hidden"]).await.map(drop)
}

/// `quorate` with another certificate than the administrator's.
async fn the_native_api_asks_the_same(cluster: Arc<TestCluster>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = folder.path().join("pki");
    std::fs::create_dir(&pki)?;
    let copy = |from: PathBuf, to: PathBuf| std::fs::copy(from, to).map(drop);
    copy(cluster.dir().join("cluster.json"), folder.path().join("cluster.json"))?;
    copy(cluster.dir().join("pki/ca.crt"), pki.join("ca.crt"))?;
    for end in ["crt", "key"] {
        let own = cluster.dir().join(format!("pki/node-n1.{end}"));
        copy(own, pki.join(format!("admin.{end}")))?;
    }
    let dir = folder.path().display().to_string();
    let quorate = async |args: &[&str]| {
        process::run(cluster.binary(), &[&["--cluster", &dir], args].concat(), &[], None).await
    };
    has(&quorate(&["get", "nodes"]).await?.ok()?, &["n1", "n2"])?;
    let refused = quorate(&["get", "secrets"]).await?;
    refused.fails_with(&["system:node:n1", "cannot list resource \"secrets\""])?;
    let created = quorate(&["create", "namespace", "stolen"]).await?;
    created.fails_with(&["cannot create resource \"namespaces\""])?;
    quorate(&["delete", "node", "n2"]).await?.fails_with(&["cannot delete resource \"nodes\""])?;
    Ok(())
}

/// What a client in a pod uses: the Service, the authority's certificate, and a token. (That tokens
/// are mounted is the agents' matter.)
async fn pods_reach_the_masters(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    let ca = std::fs::read_to_string(cluster.dir().join("pki/ca.crt"))?;
    admin.ok(&["create", "namespace", "inside"]).await?;
    let map = ["get", "cm", "kube-root-ca.crt", "-n", "inside", "-o", "jsonpath={.data.ca\\.crt}"];
    wait_for("the authority", SOON, async || {
        ensure!(admin.ok(&map).await?.trim() == ca.trim());
        Ok(())
    })
    .await?;
    let address = ["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"];
    let address = admin.ok(&address).await?;
    let token = admin.ok(&["create", "token", "default", "-n", "inside"]).await?;
    let credentials = Credentials::Token(token.trim());
    let inside = kubectl_as(&cluster, &admin, &credentials, Server::Service(address.trim()))?;
    let (who, _) =
        wait_for("the service", SOON, async || inside.ok(&["auth", "whoami"]).await).await?;
    has(&who, &["system:serviceaccount:inside:default"])?;
    build_web_image(WEB_IMAGE).await?;
    // It waits for its input: what is printed before kubectl has attached, kubectl does not see.
    let probe = "read go; nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null \
                 && echo reached";
    let run = ["run", "probe", "--rm", "-i", "--restart=Never", "--image", WEB_IMAGE, "--"];
    let ran = admin.run_with(&[&run[..], &["sh", "-c", probe]].concat(), Some("go\n")).await?;
    has(&ran.stdout, &["reached"])?;
    admin.ok(&["delete", "namespace", "inside"]).await.map(drop)
}

async fn strangers_are_turned_away(cluster: Arc<TestCluster>) -> Result<()> {
    let admin = Kubectl::newest(&cluster).await?;
    // With nothing at all kubectl asks for a name before it asks the server.
    let stranger = kubectl_as(&cluster, &admin, &Credentials::Token("nonsense"), Server::Endpoint)?;
    let raw = async |path: &str| stranger.run(&["get", "--raw", path]).await;
    has(&raw("/livez").await?.ok()?, &["ok"])?;
    has(&raw("/version").await?.ok()?, &["gitVersion"])?;
    for path in ["/api", "/apis", "/api/v1/secrets", "/metrics", "/openapi/v3", "/"] {
        raw(path).await?.fails_with(&["You must be logged in"])?;
    }
    Ok(())
}

async fn owners_of_fields_are_respected(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let map = |data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned}}\ndata: {data}\n")
    };
    let apply = async |data: &str, flags: &[&str]| {
        let args = [&["apply", "--server-side", "-f", "-"], flags].concat();
        k.run_with(&args, Some(&map(data))).await
    };
    let one = ["--field-manager=one"];
    has(&apply("{a: '1', b: '1'}", &one).await?.ok()?, &["configmap/owned serverside-applied"])?;
    let two = ["--field-manager=two"];
    let conflict = apply("{a: '2'}", &two).await?;
    conflict.fails_with(&["conflict with \"one\"", ".data.a", "--force-conflicts"])?;
    apply("{a: '2', c: '2'}", &[&two[..], &["--force-conflicts"]].concat()).await?.ok()?;
    let data = async || k.ok(&["get", "cm", "owned", "-o", "jsonpath={.data}"]).await;
    ensure!(data().await? == "{\"a\":\"2\",\"b\":\"1\",\"c\":\"2\"}", "{}", data().await?);
    // What one no longer applies goes, unless it is somebody else's now.
    apply("{}", &one).await?.ok()?;
    ensure!(data().await? == "{\"a\":\"2\",\"c\":\"2\"}", "{}", data().await?);
    let managed = ["get", "cm", "owned", "-o", "yaml", "--show-managed-fields"];
    has(&k.ok(&managed).await?, &["manager: two", "operation: Apply", "f:a: {}"])?;

    // kubectl's own apply afterwards, and server-side apply after that.
    k.apply(&map("{d: '3'}")).await?;
    has(&data().await?, &["\"a\":\"2\"", "\"d\":\"3\""])?;
    let dry = [&one[..], &["--dry-run=server"]].concat();
    has(&apply("{e: '4'}", &dry).await?.ok()?, &["serverside-applied (server dry run)"])?;
    apply("{d: '5'}", &[&one[..], &["--force-conflicts"]].concat()).await?.ok()?;
    has(&data().await?, &["\"d\":\"5\""])?;
    ensure!(!data().await?.contains("\"e\""));
    k.ok(&["delete", "cm", "owned"]).await.map(drop)
}
