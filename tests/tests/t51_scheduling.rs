//! Where pods go, and what `quorate why` says about it.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use quorate_client::{ListOptions, PatchOptions, PatchType};
use quorate_objects::kinds;
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::{Options, TestCluster, cases, suite};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let cases = cases![
        why_a_pod_runs_where_it_runs,
        why_a_pod_runs_nowhere,
        why_a_pod_had_to_leave_for_another,
        why_a_pod_was_evicted,
        why_after_the_leader_died,
        why_for_what_does_not_exist,
    ];
    suite::main(Options { nodes: 1, ..Options::default() }, cases)
}

/// A pod that runs until it is told to end.
fn pod(name: &str, spec: Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"job": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": WEB_IMAGE, "command": ["/bin/sleep", "3600"]}],
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod.to_string()
}

/// A pod that asks for so many thousandths of a processor.
fn sized(name: &str, millis: i64, class: &str) -> String {
    let resources = json!({"requests": {"cpu": format!("{millis}m")}});
    let container = json!({"name": "main", "image": WEB_IMAGE, "command": ["/bin/sleep", "3600"],
                           "resources": resources});
    pod(name, json!({"containers": [container], "priorityClassName": class}))
}

async fn why(cluster: &TestCluster, name: &str) -> Result<Value> {
    let text = cluster.quorate(&["why", &format!("pod/{name}"), "-o", "json"]).await?.ok()?;
    Ok(serde_json::from_str(&text)?)
}

async fn wait_ready(cluster: &TestCluster, name: &str) -> Result<()> {
    cluster.wait_pods_ready(&format!("job={name}"), 1).await.map(drop)
}

async fn why_a_pod_runs_where_it_runs(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(&pod("here", json!({}))).await?;
    wait_ready(&cluster, "here").await?;
    let told = why(&cluster, "here").await?;
    ensure!(told["status"] == "Running" && told["recorded"] == true, "{told:#}");
    ensure!(told["node"] == told["decision"]["node"], "{told:#}");
    ensure!(told["decision"]["scores"][0]["total"].as_i64() > Some(0), "{told:#}");
    let text = cluster.quorate(&["why", "pod/here"]).await?.ok()?;
    ensure!(text.contains("1 in the cluster, 1 looked at, 1 would do"), "{text}");
    Ok(())
}

async fn why_a_pod_runs_nowhere(cluster: Arc<TestCluster>) -> Result<()> {
    cluster.apply(&pod("nowhere", json!({"nodeSelector": {"disk": "none"}}))).await?;
    let told = cluster
        .wait("it is said why", async || {
            let told = why(&cluster, "nowhere").await?;
            ensure!(told["conditions"][0]["reason"] == "Unschedulable", "{told:#}");
            Ok(told)
        })
        .await?;
    let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    ensure!(told["decision"]["message"] == message, "{told:#}");
    ensure!(told["decision"]["removed"][0]["filter"] == "NodeAffinity", "{told:#}");
    cluster.quorate(&["delete", "pod/nowhere"]).await?.ok()?;
    Ok(())
}

async fn why_a_pod_had_to_leave_for_another(cluster: Arc<TestCluster>) -> Result<()> {
    let nodes: Vec<Node> = cluster.client()?.list_as(&ListOptions::default()).await?;
    let status = nodes[0].status.as_ref().context("no status")?;
    let cpu = status.allocatable.as_ref().and_then(|a| a.get("cpu")).context("no processors")?;
    let most = quorate_objects::quantity::cpu_millis(cpu) * 6 / 10;
    let class = |name: &str, value: i32| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
               "metadata": {"name": name}, "value": value})
        .to_string()
    };
    cluster.apply(&class("low", 1)).await?;
    cluster.apply(&class("high", 1_000)).await?;
    cluster.apply(&sized("small", most, "low")).await?;
    wait_ready(&cluster, "small").await?;
    cluster.apply(&sized("big", most, "high")).await?;
    wait_ready(&cluster, "big").await?;
    let told = why(&cluster, "small").await?;
    ensure!(told["status"] == "gone", "{told:#}");
    let history = told["history"].as_array().context("no history")?;
    let last = history.last().context("nothing happened")?["what"].as_str().unwrap_or_default();
    ensure!(last.starts_with("preempted by default/big on "), "{told:#}");
    cluster
        .wait("the event is there", async || {
            let told = why(&cluster, "small").await?;
            let events = told["events"].as_array().context("no events")?;
            ensure!(events.iter().any(|event| event["reason"] == "Preempted"), "{told:#}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "pod/big"]).await?.ok()?;
    Ok(())
}

async fn why_a_pod_was_evicted(cluster: Arc<TestCluster>) -> Result<()> {
    cluster.apply(&pod("evicted", json!({}))).await?;
    wait_ready(&cluster, "evicted").await?;
    let node = why(&cluster, "evicted").await?["node"].as_str().context("no node")?.to_owned();
    let client = cluster.client()?;
    let taint = async |taints: Value| {
        let patch = json!({"spec": {"taints": taints}});
        let options = PatchOptions::default();
        client.patch(&kinds::NODE, "", &node, PatchType::Merge, &patch, &options).await
    };
    taint(json!([{"key": "repair", "value": "soon", "effect": "NoExecute"}])).await?;
    cluster
        .wait("it is gone, and it is said why", async || {
            let told = why(&cluster, "evicted").await?;
            let events = told["events"].as_array().context("no events")?;
            ensure!(told["status"] == "gone", "{told:#}");
            ensure!(events.iter().any(|e| e["reason"] == "TaintManagerEviction"), "{told:#}");
            Ok(())
        })
        .await?;
    taint(Value::Null).await?;
    Ok(())
}

async fn why_after_the_leader_died(cluster: Arc<TestCluster>) -> Result<()> {
    cluster.apply(&pod("stays", json!({}))).await?;
    wait_ready(&cluster, "stays").await?;
    let leader = cluster.leader().await?;
    cluster.kill(&leader).await?;
    cluster.wait_leader(&leader).await?;
    let told = why(&cluster, "stays").await?;
    ensure!(told["recorded"] == false, "the record was the dead leader's: {told:#}");
    ensure!(told["decision"]["node"] == told["node"], "there is one node only: {told:#}");
    cluster.heal().await
}

async fn why_for_what_does_not_exist(cluster: Arc<TestCluster>) -> Result<()> {
    let output = cluster.quorate(&["why", "pod/nobody"]).await?;
    ensure!(output.code == Some(1), "{output}");
    ensure!(output.stderr.contains("pods \"nobody\" not found"), "{output}");
    let output = cluster.quorate(&["why", "node/n1"]).await?;
    ensure!(output.stderr.contains("only pods are scheduled"), "{output}");
    Ok(())
}
