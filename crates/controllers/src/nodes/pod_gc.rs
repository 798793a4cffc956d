//! Pods whose node will not report their end: it is gone, or has been silent for very long.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use quorate_objects::{kinds, node, pod};
use quorate_registry::{EventKind, Object, ObjectEvent, Propagation};

use super::{OUT_OF_SERVICE, has_taint};
use crate::context::{Context, controller_key, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// The controller that removes what no agent will.
pub struct PodCollector {
    context: Arc<Context>,
    force_delete_after: Duration,
    missing_node_grace: Duration,
    /// Since when a node that pods name has been missing.
    missing: Mutex<HashMap<String, Instant>>,
    silent: Silence,
}

/// For how long nodes have been silent, as far as this leader knows. The times in their conditions
/// come from some master's wall clock, and wall clocks are turned: they only tell one silence from
/// the next.
#[derive(Default)]
struct Silence(Mutex<HashMap<String, (Timestamp, Instant)>>);

impl Silence {
    /// `since`: the time that the node's condition gives for the beginning of its silence.
    fn of(&self, node: &str, since: Timestamp, now: Instant) -> Duration {
        let mut nodes = self.0.lock();
        let seen = nodes.entry(node.to_owned()).or_insert((since, now));
        if seen.0 != since {
            *seen = (since, now);
        }
        now.saturating_duration_since(seen.1)
    }
}

impl PodCollector {
    /// The controller; for the times see [`crate::LeaderOptions`].
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        force_delete_after: Duration,
        missing_node_grace: Duration,
    ) -> Self {
        Self {
            context,
            force_delete_after,
            missing_node_grace,
            missing: Mutex::default(),
            silent: Silence::default(),
        }
    }

    /// How long the pod has to wait for its removal. `None`: its agent takes care of it.
    fn wait(&self, object: &Pod) -> Option<Duration> {
        let name = pod::node_name(object)?;
        let Some(node) = self.context.get::<Node>("", name) else {
            let since = *self.missing.lock().entry(name.to_owned()).or_insert_with(Instant::now);
            return Some(self.missing_node_grace.saturating_sub(since.elapsed()));
        };
        self.missing.lock().remove(name);
        if !pod::is_deleting(object) {
            return None;
        }
        // An administrator vouches for it: what ran there runs no more.
        if has_taint(&node, OUT_OF_SERVICE, "NoExecute") {
            return Some(Duration::ZERO);
        }
        // Its containers may still run, and there must never be two of one identity: it holds its
        // name until its agent, or an administrator, says otherwise.
        if controller_key(&kinds::STATEFUL_SET, &object.metadata).is_some() {
            return None;
        }
        let ready = node::condition(&node, node::READY)
            .filter(|condition| condition.status == "Unknown")?;
        let since = ready.last_transition_time.as_ref()?.0;
        let silent = self.silent.of(name, since, Instant::now());
        Some(self.force_delete_after.saturating_sub(silent))
    }
}

#[async_trait]
impl Controller for PodCollector {
    fn name(&self) -> &'static str {
        "pod-collector"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::NODE {
            let pods = self.context.registry().cache().pods_on(object.name());
            return pods.iter().map(|pod| key_of(pod)).collect();
        }
        let bound = object.field("spec.nodeName").is_some_and(|node| !node.is_empty());
        if *object.kind == kinds::POD && bound && event.kind != EventKind::Deleted {
            return vec![key_of(object)];
        }
        Vec::new()
    }

    fn all(&self) -> Vec<Key> {
        let cache = self.context.registry().cache();
        let nodes = cache.list(&kinds::NODE, None);
        let nodes: HashSet<&str> = nodes.iter().map(|node| node.name()).collect();
        self.missing.lock().retain(|name, _| !nodes.contains(name.as_str()));
        // Of all others their agents take care; to look at each of them would cost a large cluster
        // more than everything else that a new leader does.
        let concerns = |pod: &Object| {
            let node = pod.field("spec.nodeName").filter(|node| !node.is_empty());
            node.is_some_and(|node| pod.is_deleting() || !nodes.contains(node))
        };
        let pods = cache.list(&kinds::POD, None);
        pods.iter().filter(|pod| concerns(pod)).map(|pod| key_of(pod)).collect()
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(object) = self.context.get::<Pod>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        match self.wait(&object) {
            None => Ok(Requeue::Done),
            Some(wait) if wait.is_zero() => {
                tracing::info!(pod = %key, "removed: its node is gone or has been silent for too long");
                self.context
                    .delete(&kinds::POD, &object.metadata, Some(0), Propagation::Background)
                    .await?;
                Ok(Requeue::Done)
            }
            Some(wait) => Ok(Requeue::After(wait)),
        }
    }
}

#[cfg(test)]
#[path = "pod_gc_test.rs"]
mod tests;
