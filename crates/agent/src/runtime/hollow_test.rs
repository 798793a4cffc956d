#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;
use crate::pods::fake;
use crate::pods::resolve;

fn hollow() -> Hollow {
    Hollow::new(Arc::default())
}

fn pod(annotations: &[(&str, &str)]) -> k8s_openapi::api::core::v1::Pod {
    let mut pod = fake::pod("p", "Never", &["c"]);
    let named = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
    pod.metadata.annotations = Some(annotations.iter().map(named).collect());
    pod
}

async fn start(hollow: &Hollow, annotations: &[(&str, &str)]) {
    let pod = pod(annotations);
    let sandbox = resolve::sandbox(&pod, 0, "127.0.0.1".parse().unwrap(), None);
    hollow.start_sandbox(&sandbox).await.unwrap();
    let spec: k8s_openapi::api::core::v1::Container =
        serde_json::from_value(json!({"name": "c", "image": "i:1"})).unwrap();
    let making = resolve::Making { role: Role::App, attempt: 0, failures: 0, sandbox: "s" };
    let lookup = crate::assignments::SharedLookup(Arc::default());
    let values = crate::pods::env::NodeValues::default();
    let spec = resolve::container(None, &pod, &spec, &making, &lookup, &values, "").unwrap();
    hollow.start_container(&spec).await.unwrap();
}

async fn container(hollow: &Hollow) -> Record {
    let all = hollow.list(Some("p")).await.unwrap();
    all.into_iter().find(|record| record.role == Role::App).unwrap()
}

#[tokio::test]
async fn a_container_runs_until_it_is_stopped_and_goes_when_it_is_removed() {
    let hollow = hollow();
    start(&hollow, &[("cpu", "250m"), ("memory", "1Mi")]).await;
    let running = container(&hollow).await;
    assert_eq!((running.state, running.unready), (RunState::Running, false));
    let samples = hollow.samples(std::slice::from_ref(&running.id)).await.unwrap();
    assert_eq!(samples[0].memory_bytes, 1 << 20);
    hollow.stop(&running.id, Duration::from_secs(1)).await.unwrap();
    let ended = container(&hollow).await;
    assert_eq!((ended.state, ended.exit_code), (RunState::Exited, SIGTERM));
    for record in hollow.list(None).await.unwrap() {
        hollow.remove(&record.id).await.unwrap();
    }
    assert!(hollow.list(None).await.unwrap().is_empty());
    assert!(hollow.0.state.lock().pods.is_empty());
}

#[tokio::test]
async fn annotations_say_when_it_is_ready_and_how_it_ends() {
    let hollow = hollow();
    let mut events = hollow.events().await.unwrap();
    // Long enough to be seen unready on a busy machine.
    let annotations = [("ready-after", "1"), ("run-seconds", "1.5"), ("exit-code", "7")];
    start(&hollow, &annotations).await;
    assert!(container(&hollow).await.unready);
    assert_eq!(events.next().await.as_deref(), Some("p"));
    assert!(!container(&hollow).await.unready);
    assert_eq!(events.next().await.as_deref(), Some("p"));
    let ended = container(&hollow).await;
    assert_eq!((ended.state, ended.exit_code), (RunState::Exited, 7));
}

#[tokio::test]
async fn wrong_annotations_are_named() {
    for (name, value) in [("run-seconds", "-1"), ("exit-code", "x"), ("cpu", "many")] {
        let pod = pod(&[(name, value)]);
        let sandbox = resolve::sandbox(&pod, 0, "127.0.0.1".parse().unwrap(), None);
        let error = hollow().start_sandbox(&sandbox).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}
