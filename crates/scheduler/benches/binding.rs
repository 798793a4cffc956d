//! How many pods a second are created and bound, registry and scheduler together, on the store in
//! memory: what is left of the way when Raft, disk and network cost nothing. Part of
//! `make bench-scheduler`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use quorate_objects::kinds;
use quorate_registry::{Registry, RegistryOptions, Write, WriteOptions};
use quorate_scheduler::{SchedulerOptions, Standby, run};
use quorate_store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(120);

fn node(number: usize) -> Value {
    let name = format!("node-{number:05}");
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "default", "name": format!("pod-{number}"),
            "labels": {"app": format!("app{}", number / 100)},
        },
        "spec": {"containers": [{"name": "c", "image": "app:1", "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
        }}]},
    })
}

async fn measure(nodes: usize, pods: usize) -> (f64, f64) {
    let cancel = CancellationToken::new();
    let store: quorate_store::SharedStore = MemoryStore::new();
    let options = RegistryOptions { watch_ring: 4 * pods, ..RegistryOptions::default() };
    let registry = Registry::start(store, options, cancel.clone());
    registry.wait_synced(LIMIT).await.unwrap();
    registry.ensure_system_objects(None).await.unwrap();
    for number in 0..nodes {
        registry.create(node(number), &WriteOptions::default()).await.unwrap();
        registry.update_status(node(number), &WriteOptions::default()).await.unwrap();
    }
    let standby = Standby::new(registry.clone(), SchedulerOptions::default());
    let scheduler = tokio::spawn(run(standby, 1, cancel.clone()));
    let start = Instant::now();
    let creation = tokio::spawn({
        let registry = registry.clone();
        async move {
            for first in (0..pods).step_by(1_000) {
                let numbers = first..(first + 1_000).min(pods);
                let writes = numbers.map(|number| Write::Create(pod(number))).collect();
                let results = registry.write_batch(writes, None).await;
                results.into_iter().for_each(|result| drop(result.unwrap()));
            }
            start.elapsed()
        }
    });
    let bound = || {
        registry.cache().read(|view| {
            let all = view.iter(&kinds::POD, None);
            all.filter(|pod| pod.field("spec.nodeName").is_some_and(|n| !n.is_empty())).count()
        })
    };
    while bound() < pods {
        assert!(start.elapsed() < LIMIT, "{} of {pods} pods are bound", bound());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = start.elapsed();
    let created = creation.await.unwrap();
    cancel.cancel();
    scheduler.await.unwrap();
    (pods as f64 / created.as_secs_f64(), pods as f64 / took.as_secs_f64())
}

#[tokio::main]
async fn main() {
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let sizes: &[(usize, usize)] =
        if quick { &[(10, 100)] } else { &[(100, 5_000), (1_000, 20_000)] };
    println!("{:>7}{:>8}{:>13}{:>25}", "nodes", "pods", "created/s", "created and bound/s");
    for (nodes, pods) in sizes {
        let (created, bound) = measure(*nodes, *pods).await;
        println!("{nodes:>7}{pods:>8}{created:>13.0}{bound:>25.0}");
    }
}
