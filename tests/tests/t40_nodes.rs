//! Nodes and agents die; pods come back elsewhere, and what should not move does not.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use quorate_testkit::cluster::{is_serving, name, node_of};
use quorate_testkit::docker;
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::{Options, TestCluster, cases, suite};

fn main() -> ExitCode {
    let cases = cases![
        a_restarted_agent_keeps_its_containers,
        what_is_deleted_while_the_agent_is_dead_is_removed_afterwards,
        a_dead_nodes_pods_come_back_elsewhere,
    ];
    suite::main(Options::default(), cases)
}

/// For a pod that outlives the silence of an agent which is started again, on a busy machine too.
const PATIENT: &str = "      tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, \
                       effect: NoExecute, tolerationSeconds: 120}]\n";

/// Waits for `replicas` ready pods; `more` of their spec.
async fn deploy(cluster: &TestCluster, app: &str, replicas: usize, more: &str) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {app}}}\nspec:\n  replicas: \
         {replicas}\n  selector: {{matchLabels: {{app: {app}}}}}\n  template:\n    metadata: \
         {{labels: {{app: {app}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n{more}      \
         containers: [{{name: web, image: '{WEB_IMAGE}'}}]\n"
    );
    cluster.apply(&manifest).await?;
    cluster.wait_pods_ready(&format!("app={app}"), replicas).await.map(drop)
}

/// Waits until the agent of `node` reports again: its Ready condition is refreshed by a pod
/// that it starts.
async fn agent_works(cluster: &TestCluster, node: &str) -> Result<()> {
    let pod = format!("probe-{node}");
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, labels: {{probe: {node}}}}}\nspec:\n  \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n  terminationGracePeriodSeconds: 0\n  \
         containers: [{{name: web, image: '{WEB_IMAGE}'}}]\n"
    );
    cluster.apply(&manifest).await?;
    cluster.wait_pods_ready(&format!("probe={node}"), 1).await?;
    cluster.quorate(&["delete", "pod", &pod]).await?.ok()?;
    let selector = format!("probe={node}");
    cluster
        .wait("the probe is gone", async || {
            let left = cluster.pods(&selector).await?.len();
            ensure!(left == 0, "{left} left");
            Ok(())
        })
        .await?;
    no_containers(cluster, &pod).await
}

/// Waits until Docker has no container of a pod.
async fn no_containers(cluster: &TestCluster, pod: &str) -> Result<()> {
    cluster
        .wait(&format!("no container of {pod} is left"), async || {
            let all = cluster.containers().await?;
            let of_pod = |c: &&docker::Container| c.labels.values().any(|value| value == pod);
            let left: Vec<_> = all.iter().filter(of_pod).map(|c| &c.name).collect();
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await
}

async fn a_restarted_agent_keeps_its_containers(cluster: Arc<TestCluster>) -> Result<()> {
    deploy(&cluster, "kept", 4, PATIENT).await?;
    let before = cluster.containers().await?;
    ensure!(!cluster.containers_of("n1").await?.is_empty(), "nothing runs on n1");
    cluster.kill("n1").await?;
    cluster.heal().await?;
    agent_works(&cluster, "n1").await?;
    let after = cluster.containers().await?;
    ensure!(before == after, "containers before: {before:#?}\nand after: {after:#?}");
    cluster.wait_pods_ready("app=kept", 4).await.map(drop)
}

async fn what_is_deleted_while_the_agent_is_dead_is_removed_afterwards(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    deploy(&cluster, "orphan", 2, "").await?;
    let pods = cluster.pods("app=orphan").await?;
    let on_n2: Vec<String> =
        pods.iter().filter(|pod| node_of(pod) == "n2").map(|pod| name(pod).to_owned()).collect();
    ensure!(!on_n2.is_empty(), "nothing runs on n2");
    cluster.kill("n2").await?;
    cluster.quorate(&["delete", "deployment", "orphan"]).await?.ok()?;
    cluster.heal().await?;
    for pod in on_n2 {
        no_containers(&cluster, &pod).await?;
    }
    Ok(())
}

async fn a_dead_nodes_pods_come_back_elsewhere(cluster: Arc<TestCluster>) -> Result<()> {
    deploy(&cluster, "moved", 4, "").await?;
    let pods = cluster.pods("app=moved").await?;
    let survivors: Vec<String> =
        pods.iter().filter(|pod| node_of(pod) == "n1").map(|pod| name(pod).to_owned()).collect();
    ensure!(survivors.len() < 4, "nothing runs on n2");
    let mut on_n1 = cluster.containers_of("n1").await?;
    // Those of the case before may still be on their way out.
    on_n1.retain(|c| !c.labels.values().any(|value| value.starts_with("orphan-")));
    cluster.kill_node("n2").await?;
    let pods = cluster
        .wait("four ready pods on n1", async || {
            let pods = cluster.pods("app=moved").await?;
            let count = pods.iter().filter(|p| is_serving(p) && node_of(p) == "n1").count();
            ensure!(count == 4, "{count}");
            Ok(pods)
        })
        .await?;
    for survivor in &survivors {
        ensure!(pods.iter().any(|pod| name(pod) == survivor), "{survivor} was replaced, too");
    }
    let now = cluster.containers_of("n1").await?;
    ensure!(on_n1.iter().all(|c| now.contains(c)), "a container of n1 was touched");
    let nodes = cluster.quorate(&["get", "nodes"]).await?.ok()?;
    ensure!(nodes.contains("NotReady"), "{nodes}");

    // The node comes back, and removes what is no longer its own.
    cluster.heal().await?;
    cluster
        .wait("n2 removed its old containers", async || {
            let pods = cluster.pods("").await?;
            let keep: Vec<String> = pods.iter().map(|pod| name(pod).to_owned()).collect();
            let left = cluster.containers_of("n2").await?;
            let stale =
                left.iter().filter(|c| !c.labels.values().any(|value| keep.contains(value)));
            let stale: Vec<_> = stale.map(|c| &c.name).collect();
            ensure!(stale.is_empty(), "{stale:?}");
            Ok(())
        })
        .await
}
