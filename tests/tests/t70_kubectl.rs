//! Unmodified kubectl: one case per group of its verbs, judged by what a user sees.
//!
//! The newest kubectl goes through all of it; every other version through what differs between
//! versions (schemas, discovery, bodies, streams).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_testkit::image::{WEB_IMAGE, WEB_IMAGE_2, build_web_image};
use quorate_testkit::process::has;
use quorate_testkit::{Kubectl, Options, TestCluster, cases, suite, wait_for};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

fn main() -> ExitCode {
    let cases = cases![
        objects_are_created_shown_changed_and_deleted,
        mistakes_are_refused_in_kubernetes_words,
        an_application_is_rolled_out_scaled_and_exposed,
        watches_and_waits_end_when_they_should,
        what_is_served_can_be_asked_for,
        pods_are_entered_read_and_forwarded,
        nodes_are_cordoned_tainted_and_drained,
        drains_wait_for_budgets,
        containers_are_attached_debugged_and_measured,
        versions_are_asked_for_by_name,
        namespaces_are_finalized,
        every_version_works,
        the_python_client_works,
        a_dead_master_is_not_noticed_at_the_endpoint,
        strangers_are_turned_away,
    ];
    suite::main(Options::default(), cases)
}

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);

fn web(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: '{WEB_IMAGE}'
        ports: [{{containerPort: 8080}}]
"
    )
}

/// A pod that says hello and then stays.
fn talker(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: '{WEB_IMAGE}'
    command: [/bin/sh, -c, 'echo hello from {name}; exec httpd -f -p 8080 -h /www']
"
    )
}

async fn objects_are_created_shown_changed_and_deleted(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let created = k.ok(&["create", "configmap", "one", "--from-literal=key=1"]).await?;
    has(&created, &["configmap/one created"])?;
    k.run(&["create", "configmap", "one"]).await?.fails_with(&["already exists"])?;
    has(&k.ok(&["get", "cm", "one"]).await?, &["NAME", "DATA", "AGE", "one"])?;
    has(&k.ok(&["get", "cm", "-A"]).await?, &["NAMESPACE", "default"])?;
    has(&k.ok(&["get", "cm", "one", "-o", "name"]).await?, &["configmap/one"])?;
    let key = k.ok(&["get", "cm", "one", "-o", "jsonpath={.data.key}"]).await?;
    ensure!(key == "1", "{key}");
    has(&k.ok(&["get", "cm", "one", "-o", "yaml"]).await?, &["apiVersion: v1", "key: \"1\""])?;
    has(&k.ok(&["describe", "cm", "one"]).await?, &["Name:", "one", "key:"])?;

    has(&k.ok(&["label", "cm", "one", "tier=back"]).await?, &["labeled"])?;
    has(&k.ok(&["get", "cm", "-l", "tier in (back)", "--show-labels"]).await?, &["tier=back"])?;
    has(&k.ok(&["annotate", "cm", "one", "note=x"]).await?, &["annotated"])?;
    k.run(&["label", "cm", "one", "tier=front"]).await?.fails_with(&["--overwrite"])?;
    let patch = ["patch", "cm", "one", "-p", "{\"data\":{\"key\":\"2\"}}"];
    has(&k.ok(&patch).await?, &["configmap/one patched"])?;
    let operations = "[{\"op\":\"replace\",\"path\":\"/data/key\",\"value\":\"3\"}]";
    k.ok(&["patch", "cm", "one", "--type=json", "-p", operations]).await?;
    k.ok(&["patch", "cm", "one", "--type=merge", "-p", "{\"data\":{\"more\":\"4\"}}"]).await?;
    let data = k.ok(&["get", "cm", "one", "-o", "jsonpath={.data}"]).await?;
    ensure!(data == "{\"key\":\"3\",\"more\":\"4\"}", "{data}");

    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {a: \"1\"}\n";
    has(&k.apply(manifest).await?, &["configmap/two created"])?;
    has(&k.apply(manifest).await?, &["configmap/two unchanged"])?;
    let changed = manifest.replace("a: \"1\"", "b: \"2\"");
    let diff = k.run_with(&["diff", "-f", "-"], Some(&changed)).await?;
    ensure!(diff.code == Some(1), "{diff}");
    has(&diff.stdout, &["-  a: \"1\"", "+  b: \"2\""])?;
    has(&k.apply(&changed).await?, &["configmap/two configured"])?;
    let replaced = k.run_with(&["replace", "-f", "-"], Some(manifest)).await?.ok()?;
    has(&replaced, &["configmap/two replaced"])?;
    let dry = k.ok(&["create", "cm", "three", "--dry-run=server", "-o", "name"]).await?;
    has(&dry, &["configmap/three"])?;
    k.run(&["get", "cm", "three"]).await?.fails_with(&["not found"])?;
    edit(&k).await?;

    has(&k.ok(&["delete", "cm", "one", "two"]).await?, &["configmap \"one\" deleted"])?;
    k.run(&["get", "cm", "one"]).await?.fails_with(&["configmaps \"one\" not found"])?;
    let none = k.ok(&["delete", "cm", "one", "--ignore-not-found"]).await?;
    ensure!(none.is_empty(), "{none}");
    k.ok(&["create", "cm", "x1"]).await?;
    k.ok(&["label", "cm", "x1", "sweep=yes"]).await?;
    has(&k.ok(&["delete", "cm", "-l", "sweep=yes"]).await?, &["x1"])
}

async fn edit(k: &Kubectl) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let editor = folder.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/^  a:/  edited:/' \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    let mut command = k.command(&["edit", "cm", "two"]);
    let output = command.env("KUBE_EDITOR", &editor).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{output:?}");
    has(&text, &["configmap/two edited"])?;
    let data = k.ok(&["get", "cm", "two", "-o", "jsonpath={.data}"]).await?;
    ensure!(data == "{\"edited\":\"1\"}", "{data}");
    Ok(())
}

async fn mistakes_are_refused_in_kubernetes_words(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let create = async |manifest: &str| k.run_with(&["create", "-f", "-"], Some(manifest)).await;
    let unknown = web("wrong", 1).replace("replicas:", "replicsa:");
    create(&unknown)
        .await?
        .fails_with(&["strict decoding error", "unknown field \"spec.replicsa\""])?;
    let no_name = web("Wrong_Name", 1);
    create(&no_name).await?.fails_with(&["is invalid", "metadata.name", "RFC 1123"])?;
    let selector = web("wrong", 1).replace(
        "template:\n    metadata: {labels: {app: wrong}}",
        "template:\n    metadata: {labels: {app: other}}",
    );
    create(&selector).await?.fails_with(&["is invalid", "`selector` does not match"])?;
    let kind = "apiVersion: v1\nkind: Unicorn\nmetadata: {name: x}\n";
    create(kind).await?.fails_with(&["no matches for kind \"Unicorn\""])?;
    k.run(&["get", "unicorns"]).await?.fails_with(&["doesn't have a resource type"])?;
    k.run(&["get", "pods", "nobody"]).await?.fails_with(&["pods \"nobody\" not found"])?;
    k.run(&["get", "cm", "-n", "none", "x"]).await?.fails_with(&["not found"])?;
    k.run(&["get", "pods", "--field-selector", "spec.color=red"])
        .await?
        .fails_with(&["field label not supported"])?;
    k.ok(&["create", "cm", "stale"]).await?;
    let old = k.ok(&["get", "cm", "stale", "-o", "json"]).await?;
    k.ok(&["label", "cm", "stale", "a=b"]).await?;
    k.run_with(&["replace", "-f", "-"], Some(&old))
        .await?
        .fails_with(&["Conflict", "the object has been modified"])?;
    k.ok(&["delete", "cm", "stale"]).await.map(drop)
}

async fn an_application_is_rolled_out_scaled_and_exposed(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    build_web_image(WEB_IMAGE_2).await?;
    let k = Kubectl::newest(&cluster).await?;
    has(&k.apply(&web("web", 2)).await?, &["deployment.apps/web created"])?;
    let done = k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
    has(&done, &["successfully rolled out"])?;
    has(&k.ok(&["get", "deploy", "web"]).await?, &["READY", "UP-TO-DATE", "2/2"])?;
    has(&k.ok(&["get", "deploy", "web", "-o", "wide"]).await?, &["IMAGES", WEB_IMAGE, "app=web"])?;
    let all = k.ok(&["get", "all", "-l", "app=web"]).await?;
    has(&all, &["pod/web-", "deployment.apps/web", "replicaset.apps/web-"])?;
    has(&k.ok(&["describe", "deploy", "web"]).await?, &["2 desired", "ScalingReplicaSet"])?;

    has(&k.ok(&["scale", "deploy/web", "--replicas=3"]).await?, &["scaled"])?;
    k.ok(&["wait", "deploy/web", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=60s"])
        .await?;
    let image = format!("web={WEB_IMAGE_2}");
    has(&k.ok(&["set", "image", "deploy/web", &image]).await?, &["image updated"])?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]).await?;
    let history = k.ok(&["rollout", "history", "deploy/web"]).await?;
    has(&history, &["REVISION", "1", "2"])?;
    has(&k.ok(&["rollout", "undo", "deploy/web"]).await?, &["rolled back"])?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]).await?;
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    let image = k.ok(&["get", "deploy", "web", "-o", path]).await?;
    ensure!(image == WEB_IMAGE, "{image}");
    has(&k.ok(&["rollout", "restart", "deploy/web"]).await?, &["restarted"])?;
    k.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]).await?;
    k.ok(&["rollout", "pause", "deploy/web"]).await?;
    k.ok(&["rollout", "resume", "deploy/web"]).await?;
    has(&k.ok(&["expose", "deploy/web", "--port=80", "--target-port=8080"]).await?, &["exposed"])?;
    has(&k.ok(&["get", "svc", "web"]).await?, &["CLUSTER-IP", "80/TCP"])?;
    has(&k.ok(&["describe", "svc", "web"]).await?, &["Selector:", "app=web", "Endpoints:"])?;
    has(&k.ok(&["events", "--for", "deployment/web"]).await?, &["ScalingReplicaSet"])?;
    k.ok(&["delete", "deploy,svc", "web"]).await?;
    k.ok(&["wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s"]).await.map(drop)
}

async fn watches_and_waits_end_when_they_should(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let mut watch = k.spawn(&["get", "cm", "-w", "-l", "seen=yes"])?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    let manifest =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: seen, labels: {seen: 'yes'}}\n";
    k.apply(manifest).await?;
    let line = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("seen") {
                return Ok(line);
            }
        }
        anyhow::bail!("the watch has ended")
    };
    tokio::time::timeout(SOON, line).await.context("the watch showed nothing")??;
    watch.kill().await?;
    k.ok(&["delete", "cm", "seen"]).await?;
    let late = k.run(&["wait", "node/n1", "--for=condition=Nothing", "--timeout=1s"]).await?;
    late.fails_with(&["timed out"])?;
    has(&k.ok(&["wait", "node/n1", "--for=condition=Ready"]).await?, &["condition met"])
}

async fn what_is_served_can_be_asked_for(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let resources = k.ok(&["api-resources"]).await?;
    has(&resources, &["deployments", "deploy", "apps/v1", "pods", "po", "Node"])?;
    has(&k.ok(&["api-resources", "--api-group=apps", "-o", "name"]).await?, &["deployments.apps"])?;
    has(&k.ok(&["explain", "deploy.spec.replicas"]).await?, &["KIND", "Deployment", "<integer>"])?;
    has(&k.ok(&["explain", "pod.spec.containers"]).await?, &["<[]Container>", "image"])?;
    has(&k.ok(&["api-versions"]).await?, &["apps/v1", "v1"])?;
    has(&k.ok(&["version"]).await?, &["Server Version", "quorate"])?;
    has(&k.ok(&["cluster-info"]).await?, &["is running at"])?;
    has(&k.ok(&["get", "--raw", "/readyz?verbose"]).await?, &["[+]leader ok", "check passed"])?;
    has(&k.ok(&["get", "ns"]).await?, &["default", "Active"])?;
    has(&k.ok(&["get", "nodes", "-o", "wide"]).await?, &["n1", "Ready", "VERSION"])?;
    has(
        &k.ok(&["describe", "node", "n1"]).await?,
        &["Conditions:", "Capacity:", "Non-terminated"],
    )?;
    k.ok(&["create", "ns", "away"]).await?;
    k.ok(&["create", "cm", "x", "-n", "away"]).await?;
    has(&k.ok(&["delete", "ns", "away"]).await?, &["namespace \"away\" deleted"])?;
    k.run(&["get", "cm", "x", "-n", "away"]).await?.fails_with(&["not found"]).map(drop)
}

async fn start_talker(k: &Kubectl, name: &str) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    k.apply(&talker(name)).await?;
    k.ok(&["wait", "pod", name, "--for=condition=Ready", "--timeout=60s"]).await.map(drop)
}

async fn pods_are_entered_read_and_forwarded(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    start_talker(&k, "talker").await?;
    has(&k.ok(&["get", "pod", "talker"]).await?, &["1/1", "Running"])?;
    has(
        &k.ok(&["describe", "pod", "talker"]).await?,
        &["Container ID:", "Started:", "Conditions:"],
    )?;
    streams(&k, "talker").await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "there and back")?;
    let back = folder.path().join("back");
    k.ok(&["cp", path(&file)?, "talker:/tmp/file"]).await?;
    k.ok(&["cp", "talker:/tmp/file", path(&back)?]).await?;
    ensure!(std::fs::read_to_string(&back)? == "there and back");
    k.ok(&["logs", "talker", "--tail=1", "--timestamps"]).await?;
    let run = ["run", "once", "--rm", "-i", "--restart=Never", "--image", WEB_IMAGE, "--"];
    let ran = k.run_with(&[&run[..], &["cat"]].concat(), Some("through\n")).await?;
    has(&ran.stdout, &["through"])?;
    k.ok(&["delete", "pod", "talker", "--now"]).await.map(drop)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("no UTF-8")
}

/// Logs, exec with all its streams and its exit code, and a forwarded port.
async fn streams(k: &Kubectl, pod: &str) -> Result<()> {
    let log = k.ok(&["logs", pod]).await?;
    ensure!(log == format!("hello from {pod}\n"), "{log:?}");
    let exec = ["exec", pod, "--", "sh", "-c", "echo out; echo err >&2; exit 3"];
    let ran = k.run(&exec).await?;
    ensure!(ran.code == Some(3) && ran.stdout == "out\n", "{ran}");
    has(&ran.stderr, &["err", "exit code 3"])?;
    let cat = k.run_with(&["exec", "-i", pod, "--", "cat"], Some("to and fro")).await?;
    ensure!(cat.code == Some(0) && cat.stdout == "to and fro", "{cat}");
    forwarded(k, pod).await
}

async fn forwarded(k: &Kubectl, pod: &str) -> Result<()> {
    let mut forward = k.spawn(&["port-forward", pod, ":8080"])?;
    let mut lines = BufReader::new(forward.stdout.take().context("no output")?).lines();
    let line = tokio::time::timeout(SOON, lines.next_line()).await.context("no port")??;
    let line = line.context("port-forward has ended")?;
    let port = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:"));
    let address = format!("127.0.0.1:{}", port.with_context(|| line.clone())?);
    let (page, _) = wait_for("the page", SOON, async || {
        let body =
            quorate_testkit::http::get(address.parse()?, "/", Duration::from_secs(5)).await?;
        Ok(body)
    })
    .await?;
    has(&format!("{page:?}"), &["it works"])?;
    forward.kill().await?;
    Ok(())
}

async fn nodes_are_cordoned_tainted_and_drained(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let k = Kubectl::newest(&cluster).await?;
    k.apply(&web("moved", 2)).await?;
    k.ok(&["rollout", "status", "deploy/moved", "--timeout=60s"]).await?;
    has(&k.ok(&["cordon", "n1"]).await?, &["node/n1 cordoned"])?;
    has(&k.ok(&["get", "node", "n1"]).await?, &["SchedulingDisabled"])?;
    let drained = k.ok(&["drain", "n1", "--ignore-daemonsets", "--timeout=60s"]).await?;
    has(&drained, &["node/n1 drained"])?;
    k.ok(&["rollout", "status", "deploy/moved", "--timeout=60s"]).await?;
    let nodes = k
        .ok(&["get", "pods", "-l", "app=moved", "-o", "jsonpath={.items[*].spec.nodeName}"])
        .await?;
    ensure!(!nodes.contains("n1"), "{nodes}");
    has(&k.ok(&["uncordon", "n1"]).await?, &["uncordoned"])?;
    has(&k.ok(&["taint", "node", "n1", "a=b:NoSchedule"]).await?, &["tainted"])?;
    has(&k.ok(&["taint", "node", "n1", "a-"]).await?, &["untainted"])?;
    k.ok(&["delete", "deploy", "moved"]).await.map(drop)
}

async fn drains_wait_for_budgets(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let k = Kubectl::newest(&cluster).await?;
    k.apply(&web("guarded", 2)).await?;
    k.ok(&["rollout", "status", "deploy/guarded", "--timeout=60s"]).await?;
    let budget = ["create", "pdb", "guarded", "--selector=app=guarded", "--max-unavailable=0"];
    k.ok(&budget).await?;
    let where_ = ["get", "pods", "-l", "app=guarded", "-o", "jsonpath={.items[0].spec.nodeName}"];
    let node = k.ok(&where_).await?;
    let drain = ["drain", &node, "--ignore-daemonsets", "--timeout=15s"];
    let words = "Cannot evict pod as it would violate the pod's disruption budget";
    k.run(&drain).await?.fails_with(&[words])?;
    let ready = ["get", "deploy", "guarded", "-o", "jsonpath={.status.readyReplicas}"];
    ensure!(k.ok(&ready).await? == "2");
    // One may go: they go one after the other, and there is always one.
    let patch = "{\"spec\":{\"maxUnavailable\":1}}";
    k.ok(&["patch", "pdb", "guarded", "--type=merge", "-p", patch]).await?;
    let drain = ["drain", &node, "--ignore-daemonsets", "--timeout=60s"];
    has(&k.ok(&drain).await?, &["drained"])?;
    k.ok(&["uncordon", &node]).await?;
    k.ok(&["delete", "deploy/guarded", "pdb/guarded"]).await.map(drop)
}

async fn containers_are_attached_debugged_and_measured(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let k = Kubectl::newest(&cluster).await?;
    let pod = talker("heard").replace("    command:", "    stdin: true\n    command:");
    let pod = pod.replace("exec httpd -f -p 8080 -h /www", "exec cat");
    k.apply(&pod).await?;
    k.ok(&["wait", "pod", "heard", "--for=condition=Ready", "--timeout=60s"]).await?;
    let mut attached = k.command(&["attach", "-i", "heard"]);
    let mut attached = attached.stdin(std::process::Stdio::piped()).spawn()?;
    let mut stdin = attached.stdin.take().context("no input")?;
    let mut lines = BufReader::new(attached.stdout.take().context("no output")?).lines();
    stdin.write_all(b"through and back\n").await?;
    let line = tokio::time::timeout(SOON, lines.next_line()).await.context("no line")??;
    ensure!(line.as_deref() == Some("through and back"), "{line:?}");
    attached.kill().await?;

    let debug = ["debug", "heard", "--image", WEB_IMAGE, "-c", "probe", "--attach=false", "--"];
    k.ok(&[&debug[..], &["sleep", "60"]].concat()).await?;
    let image = ["get", "pod", "heard", "-o", "jsonpath={.spec.ephemeralContainers[0].image}"];
    ensure!(k.ok(&image).await? == WEB_IMAGE);

    wait_for("figures", SOON, async || {
        has(&k.ok(&["top", "pod", "heard"]).await?, &["CPU(cores)", "MEMORY(bytes)", "heard"])?;
        has(&k.ok(&["top", "nodes"]).await?, &["n1", "n2"])
    })
    .await?;
    k.ok(&["delete", "pod", "heard", "--now"]).await.map(drop)
}

async fn versions_are_asked_for_by_name(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    k.ok(&["create", "deploy", "scaled", "--image", WEB_IMAGE, "--replicas=0"]).await?;
    k.ok(&["autoscale", "deploy", "scaled", "--max=3", "--cpu=50%"]).await?;
    for (name, version) in [
        // With a short name kubectl asks for the preferred version, whichever one is given.
        ("hpa", "autoscaling/v2"),
        ("horizontalpodautoscalers.v2.autoscaling", "autoscaling/v2"),
        ("horizontalpodautoscalers.v1.autoscaling", "autoscaling/v1"),
        ("horizontalpodautoscaler.autoscaling", "autoscaling/v2"),
    ] {
        let got = k.ok(&["get", name, "scaled", "-o", "jsonpath={.apiVersion}"]).await?;
        ensure!(got == version, "{name}: {got}");
        has(&k.ok(&["get", name]).await?, &["scaled", "Deployment/scaled"])?;
    }
    k.ok(&["delete", "hpa/scaled", "deploy/scaled"]).await.map(drop)
}

async fn namespaces_are_finalized(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let namespace = |finalizers: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"stuck\"}},\
             \"spec\":{{\"finalizers\":[{finalizers}]}}}}"
        )
    };
    let kept = namespace("\"kubernetes\",\"example.com/keep\"");
    k.run_with(&["create", "-f", "-"], Some(&kept)).await?.ok()?;
    k.ok(&["delete", "ns", "stuck", "--wait=false"]).await?;
    let finalizers = ["get", "ns", "stuck", "-o", "jsonpath={.spec.finalizers}"];
    wait_for("the content's end", SOON, async || {
        let left = k.ok(&finalizers).await?;
        ensure!(left == "[\"example.com/keep\"]", "{left}");
        Ok(())
    })
    .await?;
    has(&k.ok(&["get", "ns", "stuck"]).await?, &["Terminating"])?;
    let raw = ["replace", "--raw", "/api/v1/namespaces/stuck/finalize", "-f", "-"];
    k.run_with(&raw, Some(&namespace(""))).await?.ok()?;
    k.run(&["get", "ns", "stuck"]).await?.fails_with(&["not found"]).map(drop)
}

async fn every_version_works(cluster: Arc<TestCluster>) -> Result<()> {
    let mut pod = None;
    for k in Kubectl::all(&cluster).await? {
        let at = || format!("kubectl {}", k.version);
        if pod.is_none() {
            start_talker(&k, "versions").await.with_context(at)?;
            pod = Some(());
        }
        k.ok(&["create", "deploy", "v", "--image", WEB_IMAGE]).await.with_context(at)?;
        has(&k.apply(&web("v2", 0)).await.with_context(at)?, &["created"])?;
        has(&k.apply(&web("v2", 1)).await.with_context(at)?, &["configured"])?;
        has(&k.ok(&["get", "deploy"]).await.with_context(at)?, &["v2", "READY"])?;
        k.ok(&["rollout", "status", "deploy/v2", "--timeout=60s"]).await.with_context(at)?;
        k.ok(&["scale", "deploy/v2", "--replicas=0"]).await.with_context(at)?;
        streams(&k, "versions").await.with_context(at)?;
        k.ok(&["delete", "deploy", "v", "v2"]).await.with_context(at)?;
    }
    Kubectl::newest(&cluster).await?.ok(&["delete", "pod", "versions", "--now"]).await.map(drop)
}

async fn the_python_client_works(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/client.py");
    let home = std::env::var("HOME").context("no HOME")?;
    let folder = std::env::var("QUORATE_PYTHON_DIR");
    let folder = folder.unwrap_or_else(|_| format!("{home}/.cache/quorate-python"));
    let python = Path::new(&folder).join("bin/python");
    ensure!(python.exists(), "no {}: run deploy/install-python-client.sh", python.display());
    let mut command = tokio::process::Command::new(python);
    command.arg(script).arg(cluster.dir().join("kubeconfig")).arg(WEB_IMAGE).kill_on_drop(true);
    let output = tokio::time::timeout(2 * SOON, command.output()).await.context("too slow")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{out}{err}");
    for step in ["config_maps", "watches", "watches_go_on", "applies", "custom_objects", "pods"] {
        has(&out, &[step])?;
    }
    has(&out, &["execs", "forwards", "dynamic_client", "clean"])
}

async fn a_dead_master_is_not_noticed_at_the_endpoint(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let leader = cluster.leader().await?;
    cluster.kill(&leader).await?;
    // From the first moment on, reads and writes alike.
    k.ok(&["create", "cm", "while-dead"]).await?;
    for _ in 0..5 {
        k.ok(&["get", "cm", "while-dead"]).await?;
    }
    cluster.heal().await?;
    k.ok(&["delete", "cm", "while-dead"]).await.map(drop)
}

async fn strangers_are_turned_away(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    let ca = cluster.dir().join("pki/ca.crt");
    let server = k.ok(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).await?;
    let flags = ["--kubeconfig=/dev/null", "--server", &server, "--certificate-authority"];
    let stranger = async |what: &[&str]| {
        let args = [what, &flags[..], &[path(&ca)?], &["--username=", "--token=nonsense"]].concat();
        k.run(&args).await
    };
    for args in [&["get", "pods"][..], &["get", "--raw", "/api/v1/pods"]] {
        stranger(args).await?.fails_with(&["You must be logged in"])?;
    }
    has(&stranger(&["get", "--raw", "/livez"]).await?.ok()?, &["ok"])
}
