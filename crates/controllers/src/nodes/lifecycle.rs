//! Which nodes are alive: from heartbeats in memory to conditions and taints in the store.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use parking_lot::Mutex;
use quorate_objects::node::{self, NETWORK_UNAVAILABLE, RUNTIME_READY};
use quorate_objects::{kinds, time};
use quorate_registry::{EventKind, EventType, Heartbeats, ObjectEvent};
use quorate_store::MemberId;

use super::{NO_NETWORK, NOT_READY, UNREACHABLE, has_taint};
use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// From this many nodes on, and with more than this share of them silent, the fault is more
/// likely the master's own (its network) than theirs: no pod is evicted then.
const GUARD_NODES: usize = 3;
const GUARD_PERCENT: usize = 55;
/// Nodes whose pods are taken away within [`WINDOW`]: this many, or this share of all nodes when
/// that is more. A failure that spreads over the nodes is so slowed down, and one or a few dead
/// nodes are never kept waiting.
const EVICTED_AT_ONCE: usize = 3;
const EVICTED_PERCENT: usize = 10;
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// The grace period is looked at this often within its length.
const LOOKS_PER_GRACE: u32 = 8;
/// A leader that has heard nothing from most nodes for so many grace periods gives way to a
/// master that hears them.
const DEAF: u32 = 2;

/// What the node monitor makes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Heard within the grace period.
    Alive,
    /// Heard, but its container engine does not answer: pods there run on unattended.
    Broken,
    /// Silent for longer.
    Silent,
    /// Silent, but so are most others, or too many have lost their pods just now.
    NotNow,
}

/// What is true of all nodes together.
#[derive(Clone, Copy, Debug)]
struct Situation {
    most_are_silent: bool,
    enough_for_now: bool,
}

/// Have so many nodes lost their pods just now that the next one has to wait?
fn enough_for_now(nodes: &[Arc<Node>], now: Timestamp) -> bool {
    let recent = nodes.iter().filter(|node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let mut ours = taints.filter(|t| t.key == UNREACHABLE && t.effect == "NoExecute");
        // A time in the future was written by a clock that has been turned back since.
        let recent = |at: Timestamp| now.duration_since(at).abs() < WINDOW;
        ours.any(|t| t.time_added.as_ref().is_some_and(|at| recent(at.0)))
    });
    recent.count() >= EVICTED_AT_ONCE.max(nodes.len() * EVICTED_PERCENT / 100)
}

/// The controller of the nodes' condition Ready and of the taints that follow from it.
pub struct NodeLifecycle {
    context: Arc<Context>,
    heartbeats: Arc<Heartbeats>,
    grace: Duration,
    /// Nodes that were never heard, by when they were first seen: a new leader gives all of
    /// them, and later a new Node object, a full grace period.
    first_seen: Mutex<HashMap<String, Instant>>,
    /// When the other masters were last asked, and about which nodes.
    asked: tokio::sync::Mutex<Option<(Instant, HashSet<String>)>>,
}

impl NodeLifecycle {
    /// The controller, over its context. Gives every node a fresh grace period.
    #[must_use]
    pub fn new(context: Arc<Context>, grace: Duration) -> Self {
        let heartbeats = context.registry().heartbeats();
        heartbeats.reset_all(Instant::now());
        let (first_seen, asked) = Default::default();
        Self { context, heartbeats, grace, first_seen, asked }
    }

    /// How often nodes are looked at.
    fn look(&self) -> Duration {
        self.grace / LOOKS_PER_GRACE
    }

    /// A node that is silent here may be heard by another master; then the fault is on the way to
    /// this one, and not the node's.
    async fn ask_others(&self, node: &str, nodes: &[Arc<Node>]) {
        let mut asked = self.asked.lock().await;
        let now = Instant::now();
        let is_fresh = |(at, about): &(Instant, HashSet<String>)| {
            now.saturating_duration_since(*at) < self.look() && about.contains(node)
        };
        if asked.as_ref().is_some_and(is_fresh) {
            return;
        }
        // All that are silent here, whoever heard them before: the answers are compared below.
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone());
        let silent: Vec<String> =
            names.filter(|name| self.silence_here(name, now) >= self.grace).collect();
        let registry = self.context.registry();
        let heard = registry.ask_who_is_heard(silent.clone(), self.grace, self.look()).await;
        let deaf = |name: &&String| self.silence_here(name, now) >= DEAF * self.grace;
        let deaf_to = silent.iter().filter(deaf).count();
        *asked = Some((now, silent.into_iter().collect()));
        // Other nodes are judged while leadership moves.
        drop(asked);
        if let Some(to) = successor(nodes.len(), deaf_to, heard) {
            self.give_way(to, deaf_to).await;
        }
    }

    async fn give_way(&self, to: MemberId, deaf_to: usize) {
        tracing::warn!(to, deaf_to, "another master hears most of the nodes, this one does not");
        if let Err(error) = self.context.registry().hand_over(to).await {
            tracing::warn!(%error, "leadership was not handed over");
        }
    }

    /// How long this master itself has not heard the node.
    fn silence_here(&self, node: &str, now: Instant) -> Duration {
        let last = self.heartbeats.last_here(node);
        now.saturating_duration_since(last.unwrap_or_else(|| self.first_seen(node, now)))
    }

    /// By any master.
    fn heard(&self, node: &str, now: Instant) -> bool {
        let last = self.heartbeats.last(node).unwrap_or_else(|| self.first_seen(node, now));
        now.saturating_duration_since(last) < self.grace
    }

    fn first_seen(&self, node: &str, now: Instant) -> Instant {
        *self.first_seen.lock().entry(node.to_owned()).or_insert(now)
    }

    fn most_are_silent(&self, nodes: &[Arc<Node>], now: Instant) -> bool {
        let silent = nodes
            .iter()
            .filter(|node| !self.heard(node.metadata.name.as_deref().unwrap_or_default(), now))
            .count();
        nodes.len() >= GUARD_NODES && silent * 100 > nodes.len() * GUARD_PERCENT
    }

    /// `situation` is asked for only when the node is silent: there are many nodes.
    fn verdict(&self, node: &Node, situation: impl FnOnce() -> Situation, now: Instant) -> Verdict {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if self.heard(name, now) {
            let works = node::condition(node, RUNTIME_READY).is_none_or(|c| c.status != "False");
            return if works { Verdict::Alive } else { Verdict::Broken };
        }
        let already = has_taint(node, UNREACHABLE, "NoExecute");
        let situation = situation();
        if situation.most_are_silent || (situation.enough_for_now && !already) {
            return Verdict::NotNow;
        }
        Verdict::Silent
    }

    fn situation(&self, nodes: &[Arc<Node>], now: Instant) -> Situation {
        Situation {
            most_are_silent: self.most_are_silent(nodes, now),
            enough_for_now: enough_for_now(nodes, time::timestamp()),
        }
    }
}

/// Who had better lead: a leader that has not heard most of the nodes for long, though another
/// master does, can tell them nothing either. `heard`: how many of the nodes that are silent here
/// each other master hears.
fn successor(nodes: usize, deaf_to: usize, heard: Vec<(MemberId, usize)>) -> Option<MemberId> {
    let most = |count: usize| count * 2 > nodes;
    let (to, hears) = heard.into_iter().max_by_key(|(_, hears)| *hears)?;
    (most(deaf_to) && most(hears)).then_some(to)
}

/// The condition Ready that the node shall have; `None`: it has it.
pub(crate) fn condition(node: &Node, verdict: Verdict) -> Option<NodeCondition> {
    let (status, reason, message) = match verdict {
        Verdict::Alive => ("True", "AgentReady", "the agent is posting ready status"),
        Verdict::Broken => {
            ("False", "RuntimeNotReady", "the agent cannot reach its container engine")
        }
        Verdict::Silent | Verdict::NotNow => {
            ("Unknown", "NodeStatusUnknown", "the agent stopped posting node status")
        }
    };
    let present = node::condition(node, node::READY);
    if present.is_some_and(|condition| condition.status == status) {
        return None;
    }
    Some(NodeCondition {
        type_: node::READY.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(time::now()),
        last_transition_time: Some(time::now()),
    })
}

/// The taints that the node shall have; `None`: it has them.
pub(crate) fn taints(node: &Node, verdict: Verdict) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = match verdict {
        Verdict::Alive => vec![],
        Verdict::Broken => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        Verdict::Silent => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        Verdict::NotNow => vec![(UNREACHABLE, "NoSchedule")],
    };
    if node::condition(node, NETWORK_UNAVAILABLE).is_some_and(|c| c.status == "True") {
        wanted.push((NO_NETWORK, "NoSchedule"));
    }
    let ours = |taint: &Taint| [UNREACHABLE, NOT_READY, NO_NETWORK].contains(&taint.key.as_str());
    let present = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let right = present.iter().filter(|taint| ours(taint)).count() == wanted.len()
        && wanted.iter().all(|(key, effect)| has_taint(node, key, effect));
    if right {
        return None;
    }
    // Those that stay keep their time: evictions count from it.
    let (kept, mut taints): (Vec<_>, Vec<_>) = present.into_iter().partition(ours);
    for (key, effect) in wanted {
        let old = kept.iter().find(|t| t.key == key && t.effect == effect).cloned();
        taints.push(old.unwrap_or_else(|| Taint {
            key: key.to_owned(),
            value: None,
            effect: effect.to_owned(),
            time_added: Some(time::now()),
        }));
    }
    Some(taints)
}

#[async_trait]
impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = event.object.as_ref().filter(|o| *o.kind == kinds::NODE) else {
            return Vec::new();
        };
        if event.kind == EventKind::Deleted {
            self.first_seen.lock().remove(object.name());
        }
        vec![key_of(object)]
    }

    /// Only nodes of which something has to be written: this runs several times a second.
    fn all(&self) -> Vec<Key> {
        let nodes = self.context.list::<Node>(None);
        let now = Instant::now();
        let situation = OnceCell::new();
        let situation = || *situation.get_or_init(|| self.situation(&nodes, now));
        let changed =
            nodes.iter().filter_map(|node| {
                let name = node.metadata.name.clone()?;
                let verdict = self.verdict(node, situation, now);
                (condition(node, verdict).is_some() || taints(node, verdict).is_some())
                    .then(|| Key { kind: &kinds::NODE, namespace: String::new(), name })
            });
        changed.collect()
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.look())
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(node) = self.context.get::<Node>("", &key.name) else {
            return Ok(Requeue::Done);
        };
        let nodes = || self.context.list::<Node>(None);
        if !self.heard(&key.name, Instant::now()) {
            self.ask_others(&key.name, &nodes()).await;
        }
        let now = Instant::now();
        let verdict = self.verdict(&node, || self.situation(&nodes(), now), now);
        let mut node = Node::clone(&node);
        if let Some(condition) = condition(&node, verdict) {
            let ready = condition.status == "True";
            let word = match verdict {
                Verdict::Alive => "ready",
                Verdict::Broken => "not ready: its container engine does not answer",
                Verdict::Silent | Verdict::NotNow => "unknown: its agent does not answer",
            };
            let status = node.status.get_or_insert_default();
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|old| old.type_ != condition.type_);
            conditions.push(condition);
            node = Node::clone(&*self.context.update_status(&node).await?.typed::<Node>()?);
            let (type_, reason) = if ready {
                (EventType::Normal, "NodeReady")
            } else {
                (EventType::Warning, "NodeNotReady")
            };
            let message = format!("Node {} status is now: {word}", key.name);
            self.context.event(&node, type_, reason, &message);
            tracing::info!(node = key.name, ?verdict, "{message}");
        }
        if let Some(taints) = taints(&node, verdict) {
            node.spec.get_or_insert_default().taints = Some(taints);
            self.context.update(&node).await?;
        }
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
#[path = "lifecycle_test.rs"]
mod tests;
