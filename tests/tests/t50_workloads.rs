//! What users run: rollouts, services, configuration, logs.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use quorate_testkit::image::{WEB_IMAGE, WEB_IMAGE_2, build_web_image};
use quorate_testkit::load::Load;
use quorate_testkit::{Options, TestCluster, cases, http, suite, wait_for};

fn main() -> ExitCode {
    let cases = cases![
        a_service_balances_over_ready_pods,
        a_rollout_replaces_pods_without_failed_requests,
        scaling_down_removes_pods,
        a_config_map_is_environment_and_file,
        containers_of_a_pod_share_network_and_volumes,
        logs_and_exit_codes,
        a_failing_container_is_restarted_with_back_off,
    ];
    suite::main(Options::default(), cases)
}

const DEMO: &str = include_str!("../../deploy/demo/web.yaml");
const PATH: &str = "/cgi-bin/hello";
const NODE_PORT: u16 = 30080;

async fn deploy(cluster: &TestCluster) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(DEMO).await?;
    cluster.wait_pods_ready("app=web", 3).await?;
    Ok(())
}

/// A pod that runs a script of the shell and ends.
fn script_pod(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{job: {name}}}}}\nspec:\n  \
         restartPolicy: Never\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    \
         image: '{WEB_IMAGE}'\n    command: [/bin/sh, -c, {script:?}]\n"
    )
}

/// Applies a pod, waits until it has ended, and returns its phase and its log.
async fn run_pod(cluster: &TestCluster, name: &str, manifest: &str) -> Result<(String, String)> {
    cluster.apply(manifest).await?;
    let phase = cluster
        .wait(&format!("{name} has ended"), async || {
            let pods = cluster.pods(&format!("job={name}")).await?;
            let pod = pods.first().context("no pod")?;
            let status = pod.status.as_ref().context("no status")?;
            let phase = status.phase.clone().unwrap_or_default();
            ensure!(phase == "Succeeded" || phase == "Failed", "{status:?}");
            Ok(phase)
        })
        .await?;
    let log = cluster.quorate(&["logs", name]).await?.ok()?;
    Ok((phase, log))
}

async fn a_service_balances_over_ready_pods(cluster: Arc<TestCluster>) -> Result<()> {
    deploy(&cluster).await?;
    for address in cluster.node_addresses(NODE_PORT)? {
        let mut seen = std::collections::BTreeSet::new();
        cluster
            .wait(&format!("all three pods answer at {address}"), async || {
                let answer = http::get(address, PATH, Duration::from_secs(5)).await?;
                ensure!(answer.contains("greeting=hello from the cluster"), "{answer}");
                ensure!(answer.contains("file=hello from the cluster"), "{answer}");
                seen.extend(answer.lines().next().map(str::to_owned));
                ensure!(seen.len() == 3, "{seen:?}");
                Ok(())
            })
            .await?;
    }
    let service: Service = cluster.client()?.get_as("default", "web").await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("no cluster address")?;
    // Not `wget -T`: with it, Debian's static busybox ends in a segmentation fault.
    let wget = format!("timeout 10 wget -q -O - http://{address}:80{PATH}");
    let script = format!("for i in 1 2 3 4 5; do {wget} && exit; sleep 0.5; done; exit 1");
    let (phase, log) = run_pod(&cluster, "asker", &script_pod("asker", &script)).await?;
    ensure!(phase == "Succeeded" && log.contains("pod=web-"), "{phase}: {log}");
    Ok(())
}

async fn a_rollout_replaces_pods_without_failed_requests(cluster: Arc<TestCluster>) -> Result<()> {
    deploy(&cluster).await?;
    build_web_image(WEB_IMAGE_2).await?;
    let addresses = cluster.node_addresses(NODE_PORT)?;
    let load = Load::start(addresses, PATH, "pod=web-", 1, Duration::from_millis(20));
    cluster.apply(&DEMO.replace(WEB_IMAGE, WEB_IMAGE_2)).await?;
    cluster
        .wait("three ready pods of the new image and no other", async || {
            let pods = cluster.pods("app=web").await?;
            let new = pods.iter().filter(|pod| {
                let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref());
                image == Some(WEB_IMAGE_2) && quorate_testkit::cluster::is_serving(pod)
            });
            let new = new.count();
            ensure!(new == 3 && pods.len() == 3, "{new} new of {}", pods.len());
            Ok(())
        })
        .await?;
    cluster.quorate(&["rollout", "status", "deployment/web"]).await?.ok()?;
    let from = load.counts().sent;
    wait_for("requests after the rollout", Duration::from_secs(60), async || {
        ensure!(load.counts().sent >= from + 50, "{:?}", load.counts());
        Ok(())
    })
    .await?;
    let messages = load.messages();
    let counts = load.stop().await;
    ensure!(counts.failed == 0, "{counts:?}: {messages:#?}");
    Ok(())
}

async fn scaling_down_removes_pods(cluster: Arc<TestCluster>) -> Result<()> {
    deploy(&cluster).await?;
    cluster.quorate(&["scale", "deployment/web", "--replicas=5"]).await?.ok()?;
    cluster.wait_pods_ready("app=web", 5).await?;
    cluster.quorate(&["scale", "deployment/web", "--replicas=1"]).await?.ok()?;
    cluster.wait_pods_ready("app=web", 1).await?;
    cluster.quorate(&["delete", "deployment", "web"]).await?.ok()?;
    cluster
        .wait("its pods and replica sets go with it", async || {
            let pods = cluster.pods("app=web").await?.len();
            let sets =
                cluster.quorate(&["get", "rs", "-l", "app=web", "-o", "name"]).await?.ok()?;
            ensure!(pods == 0 && sets.trim().is_empty(), "{pods} pods, {sets}");
            Ok(())
        })
        .await
}

async fn a_config_map_is_environment_and_file(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{COLOUR: blue, \
         shape.txt: round}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: configured, labels: \
         {{job: configured}}}}\nspec:\n  restartPolicy: Never\n  volumes: [{{name: settings, \
         configMap: {{name: settings}}}}]\n  containers:\n  - name: main\n    image: \
         '{WEB_IMAGE}'\n    command: [/bin/sh, -c, 'echo $COLOUR $HELLO; cat \
         /settings/shape.txt']\n    env: [{{name: COLOUR, valueFrom: {{configMapKeyRef: {{name: \
         settings, key: COLOUR}}}}}}, {{name: HELLO, value: 'very $(COLOUR)'}}]\n    volumeMounts: \
         [{{name: settings, mountPath: /settings}}]\n"
    );
    let (phase, log) = run_pod(&cluster, "configured", &manifest).await?;
    ensure!(phase == "Succeeded", "{phase}: {log}");
    ensure!(log == "blue very blue\nround" || log == "blue very blue\nround\n", "{log:?}");
    Ok(())
}

async fn containers_of_a_pod_share_network_and_volumes(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pair, labels: {{app: pair}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  volumes: [{{name: shared, emptyDir: {{}}}}]\n  \
         containers:\n  - name: web\n    image: '{WEB_IMAGE}'\n    volumeMounts: [{{name: shared, \
         mountPath: /shared}}]\n  - name: asker\n    image: '{WEB_IMAGE}'\n    command: [/bin/sh, \
         -c, 'until wget -q -O /shared/got http://127.0.0.1:8080/; do sleep 0.1; done; cat \
         /shared/got; sleep 1000']\n    volumeMounts: [{{name: shared, mountPath: /shared}}]\n"
    );
    cluster.apply(&manifest).await?;
    cluster.wait_pods_ready("app=pair", 1).await?;
    cluster
        .wait("the second container got the first one's page", async || {
            let log = cluster.quorate(&["logs", "pair", "-c", "asker"]).await?.ok()?;
            ensure!(log.contains("it works"), "{log:?}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["logs", "pair", "-c", "nobody"]).await?.fails_with(&["nobody"])?;
    cluster.quorate(&["delete", "pod", "pair"]).await?.ok().map(drop)
}

async fn logs_and_exit_codes(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let pod = script_pod("failing", "seq 1 5; echo problem >&2; exit 7");
    let (phase, log) = run_pod(&cluster, "failing", &pod).await?;
    ensure!(phase == "Failed", "{phase}");
    // Docker copies the two streams side by side: only within one is there an order.
    let (problems, numbers): (Vec<&str>, Vec<&str>) =
        log.lines().partition(|line| *line == "problem");
    ensure!(numbers == ["1", "2", "3", "4", "5"] && problems.len() == 1, "{log:?}");
    let tail = cluster.quorate(&["logs", "failing", "--tail", "2"]).await?.ok()?;
    ensure!(tail.lines().count() == 2, "{tail:?}");
    let described = cluster.quorate(&["describe", "pod", "failing"]).await?.ok()?;
    let code = described.lines().find_map(|line| line.trim().strip_prefix("Exit Code:"));
    ensure!(code.is_some_and(|code| code.trim() == "7"), "{described}");
    ensure!(described.contains("Error"), "{described}");
    cluster.quorate(&["logs", "no-such-pod"]).await?.fails_with(&["not found"]).map(drop)
}

async fn a_failing_container_is_restarted_with_back_off(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let manifest = script_pod("crashing", "exit 3").replace("Never", "Always");
    cluster.apply(&manifest).await?;
    cluster
        .wait("CrashLoopBackOff after a restart", async || {
            let pods = cluster.pods("job=crashing").await?;
            let status = pods.first().and_then(|pod| pod.status.clone()).context("no status")?;
            let container = status.container_statuses.unwrap_or_default();
            let container = container.first().context("no container status")?;
            let state = container.state.as_ref();
            let waiting = state.and_then(|state| state.waiting.as_ref());
            let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
            ensure!(reason == Some("CrashLoopBackOff"), "{container:?}");
            ensure!(container.restart_count > 0, "{container:?}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod", "crashing"]).await?.ok().map(drop)
}
