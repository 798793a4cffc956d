//! Pods as a watch shows them, and the Deployments that make them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use quorate_client::{Client, Event, Object, WatchOptions};
use quorate_objects::{Typed, pod};
use tokio_util::sync::CancellationToken;

use super::{Book, lock};
use crate::evidence::{PodSighting, Resources};

/// Watches all pods until cancelled.
pub(super) async fn watch(client: Client, book: Arc<Book>, cancel: CancellationToken) {
    let mut alive = BTreeMap::new();
    while !cancel.is_cancelled() {
        let mut watch = client.watch(<Pod as Typed>::kind(), WatchOptions::default());
        // What is there comes first, up to a bookmark.
        let mut initial = Some(BTreeMap::new());
        while let Some(Ok(event)) = cancel.run_until_cancelled(watch.next()).await {
            let sighting = match event {
                Event::Added(object) | Event::Modified(object) => sighting(&object, false),
                Event::Deleted(object) => sighting(&object, true),
                Event::Bookmark(_) => {
                    if let Some(initial) = initial.take() {
                        lock(&book.pods).extend(relisted(&mut alive, initial));
                    }
                    continue;
                }
            };
            let Some(sighting) = sighting else { continue };
            if let Some(initial) = &mut initial {
                initial.insert(sighting.uid.clone(), sighting);
                continue;
            }
            if sighting.gone {
                alive.remove(&sighting.uid);
            } else {
                alive.insert(sighting.uid.clone(), sighting.clone());
            }
            lock(&book.pods).push(sighting);
        }
    }
}

/// What a new list says: first who has gone since the last one, then who is there.
fn relisted(
    alive: &mut BTreeMap<String, PodSighting>,
    initial: BTreeMap<String, PodSighting>,
) -> Vec<PodSighting> {
    let before = std::mem::replace(alive, initial);
    let gone = before.into_values().filter(|pod| !alive.contains_key(&pod.uid));
    let mut sightings: Vec<_> = gone.map(|pod| PodSighting { gone: true, ..pod }).collect();
    sightings.extend(alive.values().cloned());
    sightings
}

fn sighting(object: &Object, gone: bool) -> Option<PodSighting> {
    let typed: Pod = object.typed().ok()?;
    let requests = pod::requests(&typed);
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    Some(PodSighting {
        revision: object.revision,
        uid: object.uid.clone(),
        name: format!("{}/{}", object.namespace, object.name),
        node: pod::node_name(&typed).map(str::to_owned),
        requests: Resources {
            cpu_milli: positive(requests.cpu_millis),
            memory: positive(requests.memory_bytes),
            pods: 1,
        },
        finished: pod::is_terminal(&typed),
        gone,
    })
}

/// Keeps a template's pods away from hollow nodes, where nothing answers and nothing ends: a line
/// of the pod's spec.
pub const WITH_CONTAINERS: &str = "affinity: {nodeAffinity: \
    {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: \
    [{key: quorate.dev/hollow, operator: DoesNotExist}]}]}}}";

/// A Deployment of small pods. `place`: a line of the pods' spec that says where they may be, or
/// "".
#[must_use]
pub fn deployment(name: &str, image: &str, replicas: u32, place: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: \
         {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: \
         {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         {place}\n      containers:\n      - name: web\n        image: '{image}'\n        \
         resources: {{requests: {{cpu: 10m, memory: 8Mi}}}}\n"
    )
}

/// A Service in front of a Deployment's pods, at the same port of every node.
#[must_use]
pub fn service(name: &str, node_port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: NodePort\n  \
         selector: {{app: {name}}}\n  ports: [{{port: 80, targetPort: 8080, nodePort: \
         {node_port}}}]\n"
    )
}

/// A StatefulSet of small pods that have containers; see [`deployment`]. Somebody looks into them
/// all the time whether they live: what hangs is not the container when Docker does.
#[must_use]
pub fn stateful_set(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: {name}}}\nspec:\n  replicas: \
         {replicas}\n  serviceName: {name}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      {WITH_CONTAINERS}\n      containers:\n      - \
         name: web\n        image: '{image}'\n        livenessProbe: {{exec: {{command: [sh, -c, \
         'exit 0']}}, periodSeconds: 2, timeoutSeconds: 10, failureThreshold: 1}}\n        \
         resources: {{requests: {{cpu: 10m, memory: 8Mi}}}}\n"
    )
}

/// A Job of short pods that have containers.
#[must_use]
pub fn job(name: &str, image: &str, completions: u32) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, labels: {{chaos: job}}}}\n\
         spec:\n  completions: {completions}\n  parallelism: 2\n  backoffLimit: 50\n  template:\n    \
         metadata: {{labels: {{chaos: job}}}}\n    spec:\n      restartPolicy: Never\n      \
         terminationGracePeriodSeconds: 1\n      {WITH_CONTAINERS}\n      containers:\n      - \
         name: work\n        image: '{image}'\n        command: [sh, -c, 'sleep 0.3']\n        \
         resources: {{requests: {{cpu: 10m, memory: 8Mi}}}}\n"
    )
}
