//! A gentle rebalance, when it is asked for: after nodes have returned or joined, pods move to
//! them, a few at a time and as disruption budgets allow.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_objects::{kinds, node, pod};
use quorate_registry::{Code, DeleteOptions, EventType, ObjectEvent};

use crate::context::Context;
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use plan::{Move, State};

/// Settings of the rebalance; the same on all masters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebalanceOptions {
    /// Pods that are moving at the same time, at most; 0: none is ever moved.
    pub max_moves: usize,
    /// Between two looks.
    pub interval: Duration,
    /// A node has to be ready for this long before pods are moved to it.
    pub settled: Duration,
}

impl Default for RebalanceOptions {
    fn default() -> Self {
        Self { max_moves: 0, interval: Duration::from_secs(10), settled: Duration::from_secs(30) }
    }
}

/// The controller that moves pods. Its one key stands for the cluster.
pub struct Rebalance {
    context: Arc<Context>,
    options: RebalanceOptions,
}

impl Rebalance {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>, options: RebalanceOptions) -> Self {
        Self { context, options }
    }

    fn state(&self, now: Timestamp) -> State {
        let settled = |node: &Arc<Node>| {
            let ready =
                node::condition(node, node::READY).filter(|condition| condition.status == "True");
            let since = ready.and_then(|condition| condition.last_transition_time.as_ref());
            let since = since.map_or(now, |time| time.0);
            let seconds = u64::try_from(now.as_second() - since.as_second()).unwrap_or_default();
            let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
            ready.is_some() && !cordoned && Duration::from_secs(seconds) >= self.options.settled
        };
        let nodes = self.context.list::<Node>(None).into_iter().filter(settled).collect();
        let pods = self.context.list::<Pod>(None);
        let pods = pods.into_iter().filter(|p| pod::is_active(p) && pod::node_name(p).is_some());
        State { nodes, pods: pods.collect() }
    }

    /// Pods that are on their way: going, or not yet ready where they came to.
    fn moving(&self) -> usize {
        let pods = self.context.list::<Pod>(None);
        let replaced = |object: &&Arc<Pod>| {
            pod::controller_of(&object.metadata).is_some_and(|owner| owner.kind == "ReplicaSet")
        };
        let on_the_way = |object: &&Arc<Pod>| {
            !pod::is_terminal(object) && (pod::is_deleting(object) || !pod::is_ready(object))
        };
        pods.iter().filter(replaced).filter(on_the_way).count()
    }

    /// Says whether the pod goes.
    async fn carry_out(&self, step: &Move) -> Result<bool, ControllerError> {
        let meta = &step.pod.metadata;
        let options = DeleteOptions {
            uid: meta.uid.clone(),
            fence: Some(self.context.term()),
            ..DeleteOptions::default()
        };
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        match self.context.registry().evict(namespace, name, &options).await {
            Ok(_) => {
                let text = format!("Evicted to even out the nodes: {} has room", step.towards);
                self.context.event(&*step.pod, EventType::Normal, "Rebalanced", &text);
                Ok(true)
            }
            Err(error) if error.code() == Code::TooManyRequests => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Controller for Rebalance {
    fn name(&self) -> &'static str {
        "rebalance"
    }

    /// It has time: it looks in intervals only.
    fn wants(&self, _event: &ObjectEvent) -> Vec<Key> {
        Vec::new()
    }

    fn all(&self) -> Vec<Key> {
        vec![Key { kind: &kinds::NODE, namespace: String::new(), name: "*".to_owned() }]
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.options.interval)
    }

    fn workers(&self) -> Option<usize> {
        Some(1)
    }

    async fn reconcile(&self, _key: &Key) -> Result<Requeue, ControllerError> {
        let mut room = self.options.max_moves.saturating_sub(self.moving());
        if room == 0 {
            return Ok(Requeue::Done);
        }
        for step in plan::moves(&self.state(quorate_objects::time::timestamp())) {
            if room == 0 {
                break;
            }
            if self.carry_out(&step).await? {
                room -= 1;
            }
        }
        Ok(Requeue::Done)
    }
}
