//! The agent with a real Docker and a pretended master.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use quorate_proto::v1::LogOptions;
use serde_json::{Value, json};
use support::{Cluster, docker, pod};

fn running(status: &Value) -> bool {
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    status["phase"] == "Running" && status["conditions"].as_array().unwrap().iter().any(ready)
}

fn all() -> LogOptions {
    LogOptions { tail_lines: -1, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn t10_a_pods_containers_share_network_and_volume() {
    let mut cluster = Cluster::start("share", 10).await;
    let writer = "mkdir -p /www; echo served > /www/index.html; echo written > /shared/f; \
                  exec busybox httpd -f -p 8080 -h /www";
    let reader = "until wget -qO- http://127.0.0.1:8080/; do sleep 0.1; done; cat /shared/f; \
                  hostname; echo $WHO; exec sleep 1000";
    let mut web = pod("web", "Always", &[("writer", writer), ("reader", reader)]);
    web["spec"]["containers"][1]["env"] =
        json!([{"name": "WHO", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "who"}}}]);
    // Without its ConfigMap the second container says so and waits.
    cluster.assign(std::slice::from_ref(&web)).await;
    let status = cluster
        .status("web", "missing its configmap", |s, _| {
            s["containerStatuses"][1]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert!(status.to_string().contains("configmap \\\"cm\\\" not found"), "{status}");
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cm", "namespace": "default"}, "data": {"who": "me"},
    });
    cluster.assign(&[web.clone(), config]).await;
    let status = cluster.status("web", "running", |s, _| running(s)).await;
    assert!(status["podIP"].as_str().unwrap().starts_with("10.199.10."), "{status}");
    let options = LogOptions { container: "reader".into(), ..all() };
    let mut log = String::new();
    for _ in 0..200 {
        log = cluster.log("web", options.clone()).await.unwrap();
        if log.lines().count() == 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(log, "served\nwritten\nweb\nme\n");
    let error = cluster.log("web", all()).await.unwrap_err();
    assert!(error.contains("[writer reader]"), "{error}");
    // The end: everything goes, and it is told.
    let mut ending = web;
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    ending["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    cluster.assign(&[ending]).await;
    cluster.status("web", "terminated", |_, terminated| terminated).await;
    assert!(cluster.containers().is_empty());
    assert!(!cluster.folder().join("pods/web").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn t20_exits_are_told_and_crashes_restarted() {
    let mut cluster = Cluster::start("exit", 20).await;
    let done = pod("done", "Never", &[("c", "echo bye; exit 0")]);
    let fail = pod("fail", "Never", &[("c", "exit 7")]);
    let crash = pod("crash", "Always", &[("c", "echo try; exit 3")]);
    let mut lost = pod("lost", "Always", &[("c", "true")]);
    lost["spec"]["containers"][0]["image"] = json!("127.0.0.1:1/no/such:1");
    lost["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    cluster.assign(&[done, fail, crash, lost]).await;
    let status = cluster.status("done", "succeeded", |s, _| s["phase"] == "Succeeded").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].as_i64(), &ended["reason"]), (Some(0), &json!("Completed")));
    let status = cluster.status("fail", "failed", |s, _| s["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].as_i64(), &ended["reason"]), (Some(7), &json!("Error")));
    assert_eq!(cluster.log("done", all()).await.unwrap(), "bye\n");
    cluster
        .status("crash", "restarted twice and waiting", |s, _| {
            let container = &s["containerStatuses"][0];
            container["restartCount"].as_i64() >= Some(2)
                && container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                && container["lastState"]["terminated"]["exitCode"] == 3
        })
        .await;
    let previous = LogOptions { previous: true, ..all() };
    assert_eq!(cluster.log("crash", previous).await.unwrap(), "try\n");
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        let status = cluster
            .status("lost", reason, |s, _| {
                s["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
            })
            .await;
        assert!(status.to_string().contains("127.0.0.1:1/no/such:1"), "{status}");
    }
}

/// Id and time of start of all containers.
fn starts(cluster: &Cluster) -> Vec<String> {
    let mut all: Vec<String> = cluster
        .containers()
        .iter()
        .map(|id| docker(&["inspect", "-f", "{{.Id}} {{.State.StartedAt}} {{.State.Running}}", id]))
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn t30_a_restarted_agent_adopts_and_then_removes_what_is_not_assigned() {
    let mut cluster = Cluster::start("adopt", 30).await;
    let keep = pod("keep", "Always", &[("c", "exec sleep 1000")]);
    let gone = pod("gone", "Always", &[("c", "exec sleep 1000")]);
    cluster.assign(&[keep.clone(), gone]).await;
    cluster.status("keep", "running", |s, _| running(s)).await;
    cluster.status("gone", "running", |s, _| running(s)).await;
    let before = starts(&cluster);
    assert_eq!(before.len(), 4);
    cluster.stop_agent().await;
    assert_eq!(starts(&cluster), before, "the agent's end ends no container");
    // Even without what it kept, it touches nothing before the leader has spoken.
    std::fs::remove_file(cluster.folder().join("assignments.json")).unwrap();
    cluster.start_agent();
    cluster.agent_registered().await;
    assert_eq!(starts(&cluster), before);
    cluster.assign(&[keep]).await;
    cluster.status("keep", "running", |s, _| running(s)).await;
    cluster.until_containers(2).await;
    let after = starts(&cluster);
    assert!(after.iter().all(|start| before.contains(start)), "{before:?} {after:?}");
    // And with what it kept, it goes on without any word.
    cluster.stop_agent().await;
    let victim = docker(&[
        "ps",
        "-q",
        "--filter",
        "label=quorate.dev/pod-uid=keep",
        "--filter",
        "label=quorate.dev/role=app",
    ]);
    docker(&["kill", &victim]);
    cluster.start_agent();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let attempts = docker(&[
            "ps",
            "-q",
            "--filter",
            "label=quorate.dev/pod-uid=keep",
            "--filter",
            "label=quorate.dev/attempt=1",
        ]);
        if !attempts.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "not restarted without a leader");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t40_a_master_known_by_two_urls_has_one_session() {
    let mut cluster = Cluster::start_at("localhost", "twice", 40).await;
    // A session of the other URL would end this one within a second.
    cluster.calm(50).await;
    cluster.assign(&[pod("p", "Always", &[("c", "exec sleep 1000")])]).await;
    cluster.status("p", "running", |s, _| running(s)).await;
}
