//! Pods that are created all the time, and when they are bound.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use quorate_client::{Client, DeleteOptions, Event, WatchOptions, WriteOptions};
use quorate_objects::Typed;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::probe::{Shared, lock};
use crate::history::Clock;
use crate::target::Target;

/// Pause between two pods of one client.
const PAUSE: Duration = Duration::from_millis(60);
/// Clients that create; each begins at another master.
const CLIENTS: u32 = 3;
const LABEL: &str = "quorate.dev/failover";

pub(super) fn start(
    target: &Target,
    clock: Clock,
    notes: &Shared,
    cancel: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    for number in 0..CLIENTS {
        let client = target.client(number)?;
        // Tasks "pod creator" and "pod watcher": they end when cancelled.
        tasks.spawn(create(client.clone(), number, clock, cancel.clone()));
        tasks.spawn(watch(client, clock, Arc::clone(notes), cancel.clone()));
    }
    Ok(())
}

/// The name of a pod says when its creation was sent.
async fn create(client: Client, number: u32, clock: Clock, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": format!("failover-{number}-{}", clock.now()),
                "namespace": "default",
                "labels": {LABEL: "yes"},
            },
            "spec": {"containers": [{"name": "idle", "image": "idle"}]},
        });
        // A creation that fails is not bound: that is all there is to know of it.
        let _ = client.create(&pod, &WriteOptions::default()).await;
        sleep(PAUSE).await;
    }
}

async fn watch(client: Client, clock: Clock, notes: Shared, cancel: CancellationToken) {
    let kind = <Pod as Typed>::kind();
    while !cancel.is_cancelled() {
        let options = WatchOptions { labels: LABEL.to_owned(), ..WatchOptions::default() };
        let mut watch = client.watch(kind, options);
        while let Some(Ok(event)) = cancel.run_until_cancelled(watch.next()).await {
            let (Event::Added(pod) | Event::Modified(pod)) = event else { continue };
            let bound = pod.value.pointer("/spec/nodeName").is_some();
            let deleting = pod.value.pointer("/metadata/deletionTimestamp").is_some();
            let created = pod.name.rsplit('-').next().and_then(|text| text.parse().ok());
            let (Some(created), true, false) = (created, bound, deleting) else { continue };
            lock(&notes).bound.push((created, clock.now()));
            let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
            let (client, name) = (client.clone(), pod.name);
            // Task "pod deleter": another watcher's may have been quicker.
            tokio::spawn(async move {
                let _ = client.delete(<Pod as Typed>::kind(), "default", &name, &options).await;
            });
        }
    }
}
