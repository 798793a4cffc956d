//! Pods that do not tolerate a NoExecute taint of their node are deleted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use quorate_objects::{kinds, pod};
use quorate_registry::{EventKind, EventType, ObjectEvent, Propagation};

use super::{NOT_READY, UNREACHABLE};
use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// On a node that answers but whose container engine does not, containers run on: an engine that
/// is restarted or upgraded costs no pod. As long as in Kubernetes.
const BROKEN_SECONDS: u64 = 300;

/// The controller that evicts.
pub struct TaintEviction {
    context: Arc<Context>,
    default_seconds: u64,
}

impl TaintEviction {
    /// The controller; `default_seconds`: how long pods without a toleration of their own stay
    /// on a node that does not answer.
    #[must_use]
    pub fn new(context: Arc<Context>, default_seconds: u64) -> Self {
        Self { context, default_seconds }
    }
}

/// How long the pod may stay. `None`: for ever.
pub(crate) fn stays(
    object: &Pod,
    taints: &[Taint],
    default: u64,
    now: Timestamp,
) -> Option<Duration> {
    let spec = object.spec.as_ref();
    let tolerations = spec.and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let executing = taints.iter().filter(|taint| taint.effect == "NoExecute");
    let seconds = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let left = executing.filter_map(|taint| {
        let matching: Vec<_> = tolerations.iter().filter(|t| pod::tolerates(t, taint)).collect();
        let seconds = if matching.is_empty() {
            match taint.key.as_str() {
                UNREACHABLE => seconds(default),
                NOT_READY => seconds(default.max(BROKEN_SECONDS)),
                _ => 0,
            }
        } else {
            // A toleration without limit is outlived by one with a limit, as in Kubernetes.
            matching.iter().filter_map(|t| t.toleration_seconds).min()?
        };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0).as_second();
        // A taint of the future was written by a clock that has been turned back since.
        let passed = (now.as_second() - since).max(0);
        let left = seconds.saturating_sub(passed);
        Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
    });
    left.min()
}

#[async_trait]
impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if event.kind == EventKind::Deleted {
            return Vec::new();
        }
        if *object.kind == kinds::POD {
            let bound = object.field("spec.nodeName").is_some_and(|node| !node.is_empty());
            return if bound { vec![key_of(object)] } else { Vec::new() };
        }
        if *object.kind != kinds::NODE {
            return Vec::new();
        }
        let node = self.context.get::<Node>("", object.name());
        if node.is_some_and(|node| executes(&node)) {
            self.keys_on(object.name())
        } else {
            Vec::new()
        }
    }

    fn all(&self) -> Vec<Key> {
        // Everywhere else pods stay for ever.
        let nodes = self.context.list::<Node>(None).into_iter().filter(|node| executes(node));
        let names = nodes.filter_map(|node| node.metadata.name.clone());
        names.flat_map(|name| self.keys_on(&name)).collect()
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(object) = self.context.get::<Pod>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        if !pod::is_active(&object) {
            return Ok(Requeue::Done);
        }
        let node = pod::node_name(&object).and_then(|name| self.context.get::<Node>("", name));
        let Some(node) = node else { return Ok(Requeue::Done) };
        match stays(
            &object,
            taints_of(&node),
            self.default_seconds,
            quorate_objects::time::timestamp(),
        ) {
            None => Ok(Requeue::Done),
            Some(left) if left.is_zero() => {
                let context = &self.context;
                context.event(
                    &*object,
                    EventType::Normal,
                    "TaintManagerEviction",
                    "Marking for deletion Pod",
                );
                context
                    .delete(&kinds::POD, &object.metadata, None, Propagation::Background)
                    .await?;
                Ok(Requeue::Done)
            }
            Some(left) => Ok(Requeue::After(left)),
        }
    }
}

impl TaintEviction {
    fn keys_on(&self, node: &str) -> Vec<Key> {
        self.context.registry().cache().pods_on(node).iter().map(|pod| key_of(pod)).collect()
    }
}

fn taints_of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn executes(node: &Node) -> bool {
    taints_of(node).iter().any(|taint| taint.effect == "NoExecute")
}

#[cfg(test)]
#[path = "eviction_test.rs"]
mod tests;
