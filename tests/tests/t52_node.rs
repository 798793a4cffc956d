//! The node: streams into pods, probes, hooks, sidecars, names, measurements, hollow nodes.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use quorate_client::ListOptions;
use quorate_objects::node;
use quorate_testkit::cluster::PATIENCE;
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::{Options, TestCluster, cases, http, suite};
use tokio::io::{AsyncBufReadExt as _, BufReader};

fn main() -> ExitCode {
    let cases = cases![
        exec_attach_and_copy_reach_a_container,
        a_port_is_forwarded_to_what_listens_on_loopback_only,
        probes_drive_readiness_and_restarts,
        hooks_sidecars_and_deadlines,
        services_have_names_in_pods,
        what_pods_use_is_measured,
        what_happens_to_a_pod_is_told,
        volumes_are_bounded_and_belong_to_their_group,
        programs_in_pods_reach_the_masters,
        hollow_nodes_carry_pods_without_containers,
    ];
    suite::main(Options { masters: 1, nodes: 1, ..Options::default() }, cases)
}

/// A pod with one container that runs a script, and more of its spec.
fn pod(name: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n{more}  containers:\n  - name: main\n    image: \
         '{WEB_IMAGE}'\n    command: [/bin/sh, -c, {script:?}]\n"
    )
}

async fn status(
    cluster: &TestCluster,
    name: &str,
) -> Result<k8s_openapi::api::core::v1::PodStatus> {
    let pods: Vec<Pod> = cluster.pods(&format!("app={name}")).await?;
    pods.first().and_then(|pod| pod.status.clone()).context("no status")
}

/// The status of the only container.
async fn container(cluster: &TestCluster, pod: &str) -> Result<ContainerStatus> {
    let all = status(cluster, pod).await?.container_statuses;
    all.into_iter().flatten().next().context("no container")
}

fn is_ready(status: &k8s_openapi::api::core::v1::PodStatus) -> bool {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn exec_attach_and_copy_reach_a_container(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let script = "while true; do echo tick; sleep 0.2; done";
    cluster.apply(&pod("box", script, "")).await?;
    cluster.wait_pods_ready("app=box", 1).await?;
    let run = async |args: &[&str]| cluster.quorate(args).await;

    let out = run(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2"]).await?;
    ensure!(out.code == Some(0) && out.stdout == "out\n" && out.stderr == "err\n", "{out}");
    let out = run(&["exec", "box", "--", "sh", "-c", "exit 7"]).await?;
    ensure!(out.code == Some(7) && out.stderr.contains("exit code 7"), "{out}");
    let big = "x".repeat(300_000);
    let args = ["exec", "-i", "box", "--", "cat"];
    let echoed = cluster.quorate_with(&args, Some(&big)).await?.ok()?;
    ensure!(echoed == big, "{} bytes came back", echoed.len());
    let missing = run(&["exec", "box", "--", "no-such-program"]).await?;
    ensure!(missing.code.is_some_and(|code| code != 0), "{missing}");
    run(&["exec", "box", "-c", "none", "--", "true"]).await?.fails_with(&["none"])?;
    run(&["exec", "nobody", "--", "true"]).await?.fails_with(&["not found"])?;

    let folder = tempfile::tempdir()?;
    let sent = folder.path().join("sent");
    std::fs::create_dir_all(sent.join("sub"))?;
    std::fs::write(sent.join("sub/file"), &big)?;
    let (sent, got) = (sent.display().to_string(), folder.path().join("got"));
    run(&["cp", &sent, "box:/tmp"]).await?.ok()?;
    run(&["cp", "box:/tmp/sent", &got.display().to_string()]).await?.ok()?;
    ensure!(std::fs::read_to_string(got.join("sub/file"))? == big);
    run(&["cp", "box:/no/such", "/tmp/nowhere"]).await?.fails_with(&["no such file"])?;

    // What attach shows, until it is interrupted.
    let dir = cluster.dir().display().to_string();
    let mut attach = tokio::process::Command::new(cluster.binary())
        .args(["attach", "box", "--cluster", &dir])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut shown = attach.stdout.take().context("no output")?;
    let mut buffer = [0; 4];
    let read = tokio::io::AsyncReadExt::read_exact(&mut shown, &mut buffer);
    tokio::time::timeout(Duration::from_secs(20), read).await??;
    ensure!(&buffer == b"tick", "{buffer:?}");
    attach.kill().await?;
    cluster.quorate(&["delete", "pod", "box"]).await?.ok().map(drop)
}

async fn a_port_is_forwarded_to_what_listens_on_loopback_only(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let script = "exec busybox httpd -f -p 127.0.0.1:8081 -h /www";
    cluster.apply(&pod("inner", script, "")).await?;
    cluster.wait_pods_ready("app=inner", 1).await?;
    let dir = cluster.dir().display().to_string();
    let mut forward = tokio::process::Command::new(cluster.binary())
        .args(["port-forward", "pod/inner", ":8081", "--address", "127.0.0.1", "--cluster", &dir])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(forward.stdout.take().context("no output")?).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("no port")??;
    let line = line.context("port-forward has ended")?;
    let local = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
    let local = local.with_context(|| line.clone())?.parse()?;
    cluster
        .wait("the page comes through the forwarded port", async || {
            let page = http::get(local, "/", Duration::from_secs(5)).await?;
            ensure!(page.contains("it works"), "{page}");
            Ok(())
        })
        .await?;
    forward.kill().await?;
    cluster.quorate(&["delete", "pod", "inner"]).await?.ok().map(drop)
}

async fn probes_drive_readiness_and_restarts(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    // On a busy machine a program in a container takes longer than a probe's second.
    let probes = "    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1, \
                  timeoutSeconds: 20}\n    livenessProbe: {exec: {command: [test, '!', -f, \
                  /tmp/dead]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 2}\n    \
                  startupProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, \
                  failureThreshold: 30}\n";
    let script = "exec busybox httpd -f -p 8080 -h /www";
    cluster.apply(&(pod("probed", script, "") + probes)).await?;
    cluster
        .wait("started, and not ready", async || {
            let status = status(&cluster, "probed").await?;
            let container = status.container_statuses.iter().flatten().next();
            let container = container.context("no container")?;
            ensure!(container.started == Some(true) && !container.ready, "{container:?}");
            ensure!(!is_ready(&status), "{status:?}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["exec", "probed", "--", "touch", "/tmp/ready"]).await?.ok()?;
    cluster.wait_pods_ready("app=probed", 1).await?;
    let before = container(&cluster, "probed").await?.restart_count;
    cluster.quorate(&["exec", "probed", "--", "touch", "/tmp/dead"]).await?.ok()?;
    cluster
        .wait("the container was restarted and is not ready again", async || {
            let container = container(&cluster, "probed").await?;
            ensure!(container.restart_count > before && !container.ready, "{container:?}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod", "probed"]).await?.ok().map(drop)
}

async fn hooks_sidecars_and_deadlines(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().display();
    let more = format!(
        "  restartPolicy: Never\n  volumes: [{{name: v, hostPath: {{path: {path}}}}}]\n  \
         initContainers:\n  - {{name: first, image: '{WEB_IMAGE}', command: [sh, -c, 'echo first > \
         /v/log'], volumeMounts: [{{name: v, mountPath: /v}}]}}\n  - {{name: beside, image: \
         '{WEB_IMAGE}', restartPolicy: Always, command: [sh, -c, 'trap exit TERM; echo beside >> \
         /v/log; sleep 1000 & wait'], volumeMounts: [{{name: v, mountPath: /v}}], lifecycle: \
         {{preStop: {{exec: {{command: [sh, -c, 'echo stopped >> /v/log']}}}}}}}}\n"
    );
    // A sidecar counts as started before its shell has said anything.
    let hooks = "    volumeMounts: [{name: v, mountPath: /v}]\n    lifecycle: {postStart: {exec: \
                 {command: [sh, -c, 'until busybox grep -q beside /v/log; do sleep 0.05; done; echo \
                 began >> /v/log; touch /tmp/go']}}}\n";
    let script = "until test -f /tmp/go; do sleep 0.05; done; echo work >> /v/log";
    // The grace is also the time that the hook at the end may take.
    let life =
        pod("life", script, &more).replace("GracePeriodSeconds: 1", "GracePeriodSeconds: 30");
    cluster.apply(&(life + hooks)).await?;
    cluster
        .wait("it has done its work", async || {
            let status = status(&cluster, "life").await?;
            ensure!(status.phase.as_deref() == Some("Succeeded"), "{status:?}");
            Ok(())
        })
        .await?;
    cluster
        .wait("what ran beside it has ended", async || {
            let log = std::fs::read_to_string(folder.path().join("log"))?;
            let lines: Vec<&str> = log.lines().collect();
            ensure!(lines == ["first", "beside", "began", "work", "stopped"], "{lines:?}");
            Ok(())
        })
        .await?;

    let late = "  activeDeadlineSeconds: 1\n";
    cluster.apply(&pod("late", "exec sleep 1000", late)).await?;
    cluster
        .wait("the deadline ends it", async || {
            let status = status(&cluster, "late").await?;
            ensure!(status.reason.as_deref() == Some("DeadlineExceeded"), "{status:?}");
            ensure!(status.phase.as_deref() == Some("Failed"), "{status:?}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod", "life", "late"]).await?.ok().map(drop)
}

async fn services_have_names_in_pods(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: named}\nspec: {selector: {app: \
                   named}, ports: [{port: 80, targetPort: 8080}]}\n---\n";
    let script = "exec busybox httpd -f -p 8080 -h /www";
    cluster.apply(&(service.to_owned() + &pod("named", script, ""))).await?;
    cluster.wait_pods_ready("app=named", 1).await?;
    let full = "named.default.svc.cluster.local";
    cluster
        .wait("the service's name is known", async || {
            let args = ["exec", "named", "--", "nslookup", full];
            let found = cluster.quorate(&args).await?.ok()?;
            let service =
                cluster.quorate(&["get", "service", "named", "-o", "json"]).await?.json()?;
            let address = service["spec"]["clusterIP"].as_str().context("no address")?;
            ensure!(found.contains(address), "{found}");
            Ok(())
        })
        .await?;
    let config =
        cluster.quorate(&["exec", "named", "--", "cat", "/etc/resolv.conf"]).await?.ok()?;
    ensure!(config.contains("default.svc.cluster.local") && config.contains("ndots:5"), "{config}");
    cluster.quorate(&["delete", "service/named", "pod/named"]).await?.ok().map(drop)
}

async fn what_pods_use_is_measured(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(&pod("busy", "while true; do true; done", "")).await?;
    cluster.wait_pods_ready("app=busy", 1).await?;
    cluster
        .wait("the pod's use is known", async || {
            let shown = cluster.quorate(&["top", "pods", "--no-headers"]).await?.ok()?;
            let line = shown.lines().find(|line| line.starts_with("busy")).context("no line")?;
            let cpu = line.split_whitespace().nth(1).and_then(|cpu| cpu.strip_suffix('m'));
            ensure!(cpu.and_then(|cpu| cpu.parse::<u64>().ok()) > Some(20), "{line}");
            let nodes = cluster.quorate(&["top", "nodes"]).await?.ok()?;
            ensure!(nodes.contains("n1") && nodes.contains('%'), "{nodes}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod", "busy"]).await?.ok().map(drop)
}

/// The only container's state, as JSON.
async fn state(cluster: &TestCluster, pod: &str) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(container(cluster, pod).await?.state)?)
}

/// Reasons of the events about a pod.
async fn reasons(cluster: &TestCluster, pod: &str) -> Result<Vec<String>> {
    let events = cluster.quorate(&["get", "events", "-o", "json"]).await?.json()?;
    let items = events["items"].as_array().context("no items")?;
    let about = items.iter().filter(|event| event["involvedObject"]["name"] == pod);
    Ok(about.filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect())
}

async fn what_happens_to_a_pod_is_told(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let once = "  restartPolicy: Never\n";
    cluster.apply(&pod("says", "echo bye > /dev/termination-log; exit 3", once)).await?;
    let log = "    terminationMessagePolicy: FallbackToLogsOnError\n";
    cluster.apply(&(pod("logs", "echo it broke; exit 4", once) + log)).await?;
    for (name, said) in [("says", "bye\n"), ("logs", "it broke\n")] {
        cluster
            .wait("its last words are told", async || {
                let state = state(&cluster, name).await?;
                ensure!(state["terminated"]["message"] == said, "{state:#}");
                Ok(())
            })
            .await?;
    }
    let probe = "    readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}\n";
    cluster.apply(&(pod("fails", "exit 1", "") + probe)).await?;
    cluster.apply(&(pod("unready", "exec sleep 1000", "") + probe)).await?;
    let expected: [(&str, &[&str]); 3] = [
        ("says", &["Scheduled", "Pulled", "Created", "Started"]),
        ("fails", &["Started", "BackOff"]),
        ("unready", &["Started", "Unhealthy"]),
    ];
    for (name, wanted) in expected {
        cluster
            .wait("its events are there", async || {
                let reasons = reasons(&cluster, name).await?;
                for reason in wanted {
                    ensure!(reasons.iter().any(|r| r == reason), "no {reason} in {reasons:?}");
                }
                Ok(())
            })
            .await?;
    }
    let shown = cluster.quorate(&["describe", "pod", "unready"]).await?.ok()?;
    ensure!(shown.contains("Readiness probe failed") && shown.contains("kubelet"), "{shown}");
    cluster.quorate(&["delete", "pod", "unready", "fails", "says", "logs"]).await?.ok()?;
    cluster
        .wait("its end is told", async || {
            let reasons = reasons(&cluster, "unready").await?;
            ensure!(reasons.iter().any(|reason| reason == "Killing"), "{reasons:?}");
            Ok(())
        })
        .await
}

async fn volumes_are_bounded_and_belong_to_their_group(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let mount = "    volumeMounts: [{name: v, mountPath: /v}]\n";
    for (name, medium) in [("fills", ""), ("memory", "medium: Memory, ")] {
        let volume = format!("  volumes: [{{name: v, emptyDir: {{{medium}sizeLimit: 64Ki}}}}]\n");
        let script = "seq 1 100000 > /v/file; exec sleep 1000";
        cluster.apply(&(pod(name, script, &volume) + mount)).await?;
    }
    for name in ["fills", "memory"] {
        cluster
            .wait("it is evicted", async || {
                let status = status(&cluster, name).await?;
                ensure!(status.reason.as_deref() == Some("Evicted"), "{status:?}");
                ensure!(status.phase.as_deref() == Some("Failed"), "{status:?}");
                Ok(())
            })
            .await?;
    }
    let security = "  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}\n  \
                    volumes: [{name: v, emptyDir: {}}]\n";
    cluster.apply(&(pod("group", "exec sleep 1000", security) + mount)).await?;
    cluster.wait_pods_ready("app=group", 1).await?;
    let script = "touch /v/file && ls -ln /v/file && id";
    let shown = cluster.quorate(&["exec", "group", "--", "sh", "-c", script]).await?.ok()?;
    ensure!(shown.contains("1000     2000"), "{shown}");
    ensure!(shown.contains("uid=1000") && shown.contains("2000"), "{shown}");

    let security = "  securityContext: {runAsNonRoot: true}\n";
    cluster.apply(&pod("root", "exec sleep 1000", security)).await?;
    cluster
        .wait("it is refused", async || {
            let state = state(&cluster, "root").await?;
            ensure!(state["waiting"]["reason"] == "CreateContainerConfigError", "{state:#}");
            let message = state["waiting"]["message"].to_string();
            ensure!(message.contains("image will run as root"), "{message}");
            Ok(())
        })
        .await?;
    let all = ["delete", "pod", "fills", "memory", "group", "root"];
    cluster.quorate(&all).await?.ok().map(drop)
}

async fn programs_in_pods_reach_the_masters(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(&pod("inside", "exec sleep 1000", "")).await?;
    let declines = "  automountServiceAccountToken: false\n";
    cluster.apply(&pod("outside", "exec sleep 1000", declines)).await?;
    cluster.wait_pods_ready("app=inside", 1).await?;
    cluster.wait_pods_ready("app=outside", 1).await?;
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let read = async |file: &str| {
        let path = format!("{folder}/{file}");
        cluster.quorate(&["exec", "inside", "--", "cat", &path]).await?.ok()
    };
    ensure!(read("namespace").await? == "default");
    let (token, authority) = (read("token").await?, read("ca.crt").await?);
    ensure!(token.split('.').count() == 3, "{token}");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), authority)?;
    let script = "echo -n $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT";
    let address = cluster.quorate(&["exec", "inside", "--", "sh", "-c", script]).await?.ok()?;
    let script = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null";
    cluster.quorate(&["exec", "inside", "--", "sh", "-c", script]).await?.ok()?;
    // What a client library in the pod does: this address, this authority, this token.
    let list = async || -> Result<serde_json::Value> {
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
            .arg(file.path())
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .arg(format!("https://{address}/api/v1/namespaces/default/pods"))
            .output()
            .await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).context(error)
    };
    let refused = list().await?;
    let message = refused["message"].as_str().unwrap_or_default();
    ensure!(refused["code"] == 403, "{refused:#}");
    ensure!(message.contains("system:serviceaccount:default:default"), "{message}");
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: \
                sees}\nrules: [{apiGroups: [''], resources: [pods], verbs: [list]}]\n---\napiVersion: \
                rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: sees}\nroleRef: \
                {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sees}\nsubjects: [{kind: \
                ServiceAccount, name: default, namespace: default}]\n";
    cluster.apply(role).await?;
    cluster
        .wait("its account may list pods", async || {
            let pods = list().await?;
            ensure!(pods["kind"] == "PodList", "{pods:#}");
            Ok(())
        })
        .await?;
    let missing = cluster.quorate(&["exec", "outside", "--", "ls", folder]).await?;
    ensure!(missing.code != Some(0), "{missing}");
    cluster.quorate(&["delete", "pod", "inside", "outside"]).await?.ok()?;
    // The token ends with its pod.
    cluster
        .wait("the token is worth nothing", async || {
            let refused = list().await?;
            ensure!(refused["code"] == 401, "{refused:#}");
            Ok(())
        })
        .await
}

async fn hollow_nodes_carry_pods_without_containers(cluster: Arc<TestCluster>) -> Result<()> {
    let file = cluster.file()?;
    let urls: Vec<String> = file.masters.iter().map(|master| master.url.clone()).collect();
    // One process speaks for fifty nodes: it needs an administrator's certificate.
    let (pki, tls) = (cluster.dir().join("pki"), tempfile::tempdir()?);
    for (from, to) in [("ca.crt", "ca.crt"), ("admin.crt", "node.crt"), ("admin.key", "node.key")] {
        std::fs::copy(pki.join(from), tls.path().join(to))?;
    }
    let mut agent = tokio::process::Command::new(cluster.binary())
        .args(["agent", "--name", "h", "--runtime", "hollow", "--count", "50"])
        .args(["--masters", &urls.join(","), "--tls-dir"])
        .arg(tls.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let ready = async || {
        let nodes: Vec<Node> = cluster.client()?.list_as(&ListOptions::default()).await?;
        let hollow = nodes.iter().filter(|node| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            name.starts_with("h-") && node::is_ready(node)
        });
        Ok::<_, anyhow::Error>(hollow.count())
    };
    cluster
        .wait("fifty hollow nodes are ready", async || {
            let count = ready().await?;
            ensure!(count == 50, "{count}");
            Ok(())
        })
        .await?;
    let manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: many}\nspec:\n  \
                    replicas: 200\n  selector: {matchLabels: {app: many}}\n  template:\n    \
                    metadata: {labels: {app: many}, annotations: {quorate.dev/hollow-ready-after: \
                    '0.2'}}\n    spec: {nodeSelector: {quorate.dev/hollow: 'true'}, \
                    terminationGracePeriodSeconds: 0, containers: [{name: c, image: any}]}\n";
    cluster.apply(manifest).await?;
    cluster.wait_pods_ready("app=many", 200).await?;
    let containers = cluster.containers().await?;
    ensure!(containers.iter().all(|c| !c.name.contains("many")), "a hollow pod has a container");
    cluster.quorate(&["delete", "deployment", "many"]).await?.ok()?;
    cluster
        .wait("its pods are gone", async || {
            let left = cluster.pods("app=many").await?.len();
            ensure!(left == 0, "{left}");
            Ok(())
        })
        .await?;
    agent.kill().await?;
    cluster
        .wait("with their process, the nodes are not ready", async || {
            let count = ready().await?;
            ensure!(count == 0, "{count}");
            Ok(())
        })
        .await
}
