//! What nodes and containers use, as their agents measured it last. In memory only, on every
//! master: it never goes through Raft.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// Figures that are older than this say nothing any more.
pub const STALE: Duration = Duration::from_secs(60);

/// A use of processor and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a core.
    pub cpu_nanocores: u64,
    /// Bytes of the working set.
    pub memory_bytes: u64,
}

/// What a node's agent measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// Unix time of the measurement, in milliseconds.
    pub time_ms: u64,
    /// The time that the processor figures are an average of, in milliseconds.
    pub window_ms: u32,
    /// The whole node.
    pub node: Usage,
    /// Its pods.
    pub pods: Vec<PodUsage>,
}

/// What a pod's containers use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Name and use of each container that runs.
    pub containers: Vec<(String, Usage)>,
}

/// The newest measurement of each node.
#[derive(Default)]
pub struct Metrics {
    nodes: RwLock<HashMap<String, (Instant, Arc<NodeUsage>)>>,
    /// Node of each pod, by namespace and name.
    pods: RwLock<HashMap<(String, String), String>>,
}

impl Metrics {
    /// A node has measured.
    pub fn put(&self, node: &str, usage: NodeUsage) {
        let new: Vec<_> = usage.pods.iter().map(key).collect();
        let old = self.nodes.write().insert(node.to_owned(), (Instant::now(), Arc::new(usage)));
        let mut pods = self.pods.write();
        forget(&mut pods, node, old);
        pods.extend(new.into_iter().map(|key| (key, node.to_owned())));
    }

    /// Forgets a node.
    pub fn remove(&self, node: &str) {
        let old = self.nodes.write().remove(node);
        forget(&mut self.pods.write(), node, old);
    }

    /// A node's last measurement, unless it is too old.
    #[must_use]
    pub fn node(&self, node: &str) -> Option<Arc<NodeUsage>> {
        let nodes = self.nodes.read();
        nodes.get(node).filter(|(at, _)| at.elapsed() < STALE).map(|(_, usage)| Arc::clone(usage))
    }

    /// The last measurement of each node that is not too old, in order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<NodeUsage>)> {
        let nodes = self.nodes.read();
        let fresh = nodes.iter().filter(|(_, (at, _))| at.elapsed() < STALE);
        let mut all: Vec<_> =
            fresh.map(|(name, (_, usage))| (name.clone(), Arc::clone(usage))).collect();
        drop(nodes);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// A pod's last measurement, unless it is too old, with that of its node.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<(PodUsage, Arc<NodeUsage>)> {
        let key = (namespace.to_owned(), name.to_owned());
        let node = self.pods.read().get(&key).cloned()?;
        let usage = self.node(&node)?;
        let pod = usage.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name)?;
        Some((pod.clone(), Arc::clone(&usage)))
    }
}

fn key(pod: &PodUsage) -> (String, String) {
    (pod.namespace.clone(), pod.name.clone())
}

/// Takes out the pods of a node's measurement that are not on another node by now. (Not by a look
/// at all pods there are: thousands of nodes come and go at once when a master has died.)
fn forget(
    pods: &mut HashMap<(String, String), String>,
    node: &str,
    old: Option<(Instant, Arc<NodeUsage>)>,
) {
    for pod in old.iter().flat_map(|(_, old)| &old.pods) {
        let key = key(pod);
        if pods.get(&key).is_some_and(|at| at == node) {
            pods.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(pods: &[&str]) -> NodeUsage {
        let pod = |name: &&str| PodUsage {
            namespace: "d".into(),
            name: (*name).into(),
            containers: vec![("c".into(), Usage { cpu_nanocores: 5, memory_bytes: 7 })],
            ..PodUsage::default()
        };
        NodeUsage { time_ms: 1, pods: pods.iter().map(pod).collect(), ..NodeUsage::default() }
    }

    #[test]
    fn the_newest_measurement_of_a_node_replaces_the_one_before() {
        let metrics = Metrics::default();
        metrics.put("n1", usage(&["a", "b"]));
        metrics.put("n2", usage(&["b"]));
        metrics.put("n1", usage(&["a"]));
        assert_eq!(metrics.pod("d", "a").unwrap().0.containers[0].1.memory_bytes, 7);
        assert!(metrics.pod("d", "b").is_some(), "it has moved to n2");
        metrics.remove("n1");
        assert!(metrics.pod("d", "a").is_none() && metrics.pod("d", "b").is_some());
        metrics.remove("n2");
        assert!(metrics.pod("d", "b").is_none() && metrics.node("n2").is_none());
    }
}
