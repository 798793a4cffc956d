//! What the Kubernetes API costs on one master, over real sockets and on the store in memory:
//! a list of 10,000 pods as a table, 1,000 watches on pods, and reads of single objects while
//! others write. `cargo bench -p quorate-api --bench rest`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use quorate_api::{ApiOptions, Server};
use quorate_registry::{Registry, RegistryOptions, Write, WriteOptions};
use quorate_store::{MemoryStore, SharedStore};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PODS: usize = 10_000;
const WATCHES: usize = 1_000;
const READS: usize = 5_000;
const WRITES_PER_SECOND: u64 = 50;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("web-{number:05}"), "namespace": "default",
            "labels": {"app": "web", "shard": format!("{}", number % 100)},
        },
        "spec": {
            "nodeName": format!("n{}", number % 500),
            "containers": [{
                "name": "web", "image": "web:1", "ports": [{"containerPort": 8080}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            }],
        },
    })
}

struct Http {
    client: Client<HttpConnector, Body>,
    base: String,
}

impl Http {
    async fn get(&self, path: &str, accept: &str) -> usize {
        let uri = format!("{}{path}", self.base);
        let request = Request::get(uri).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.client.request(request).await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.into_body().collect().await.unwrap().to_bytes().len()
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn quantile(times: &mut [Duration], q: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * q) as usize]
}

#[tokio::main]
async fn main() {
    let cancel = CancellationToken::new();
    let store: SharedStore = MemoryStore::new();
    let registry = Registry::start(store.clone(), RegistryOptions::default(), cancel.clone());
    registry.wait_synced(Duration::from_secs(10)).await.unwrap();
    registry.ensure_system_objects(None).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::new(registry.clone(), store, ApiOptions::new(listener, "bench"));
    tokio::spawn(server.run(cancel.clone()));
    let writes = (0..PODS).map(|number| Write::Create(pod(number))).collect();
    for result in registry.write_batch(writes, None).await {
        result.unwrap();
    }
    let http = Http { client: Client::builder(TokioExecutor::new()).build_http(), base };
    lists(&http).await;
    reads(&http, &registry).await;
    watches(&http, &registry).await;
    cancel.cancel();
}

async fn lists(http: &Http) {
    for (what, accept) in [("Table", TABLE), ("JSON", "application/json")] {
        for round in ["first", "second", "third"] {
            let start = Instant::now();
            let size = http.get("/api/v1/pods", accept).await;
            let (elapsed, size) = (start.elapsed(), size / 1024);
            println!("list of {PODS} pods as {what}, {round}: {elapsed:.1?}, {size} KiB");
        }
    }
}

async fn reads(http: &Http, registry: &Registry) {
    let writer = registry.clone();
    let writing = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1000 / WRITES_PER_SECOND));
        for number in 0.. {
            ticks.tick().await;
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("w{number}"), "namespace": "default"},
            });
            writer.create(map, &WriteOptions::default()).await.unwrap();
        }
    });
    let mut times = Vec::with_capacity(READS);
    for number in 0..READS {
        let path = format!("/api/v1/namespaces/default/pods/web-{:05}", number * 7 % PODS);
        let start = Instant::now();
        http.get(&path, "application/json").await;
        times.push(start.elapsed());
    }
    writing.abort();
    println!(
        "reads of one pod under {WRITES_PER_SECOND} writes/s: p50 {:.2?}, p99 {:.2?}",
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.99)
    );
}

/// The watchers are in this process, too: the figure is for both sides.
async fn watches(http: &Http, registry: &Registry) {
    let revision = registry.cache().revision();
    let before = resident_kib();
    let mut bodies = Vec::new();
    for _ in 0..WATCHES {
        let path = format!("{}/api/v1/pods?watch=true&resourceVersion={revision}", http.base);
        let request = Request::get(path).body(Body::empty()).unwrap();
        bodies.push(http.client.request(request).await.unwrap().into_body());
    }
    let start = Instant::now();
    registry.create(pod(PODS), &WriteOptions::default()).await.unwrap();
    let all = bodies.into_iter().map(|mut body| async move {
        body.frame().await.unwrap().unwrap();
        body
    });
    let bodies = futures::future::join_all(all).await;
    let elapsed = start.elapsed();
    let grown = resident_kib().saturating_sub(before) / 1024;
    println!(
        "{} watches on pods: {grown} MiB for both sides; one event reached all in {elapsed:.1?}",
        bodies.len()
    );
}
