//! Scores: which of the nodes that would do is best?

use std::hash::{DefaultHasher, Hash, Hasher};

use quorate_objects::pod::tolerates;

use crate::filter::matches_term;
use crate::needs::Needs;
use crate::snapshot::NodeInfo;

/// Points for each further pod of the same group on the node. More than all the points for
/// resources together (200), so that replicas are spread first.
const SPREAD: i64 = -1_000;
/// Points for each PreferNoSchedule taint that is not tolerated: like two more replicas.
const PREFER_NO_SCHEDULE: i64 = -2_000;
/// Points for each unit of weight (1 to 100) of preferred node affinity.
const AFFINITY: i64 = 50;

/// A node's points, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeScore {
    /// The node.
    pub node: String,
    /// For pods of the same group that are there already (0 or negative).
    pub spread: i64,
    /// For taints that ask pods to stay away (0 or negative).
    pub taints: i64,
    /// For preferred node affinity (0 or positive).
    pub affinity: i64,
    /// For what is left on it, the pod included (0 to 100).
    pub least_allocated: i64,
    /// For using processor and memory in equal shares (0 to 100).
    pub balance: i64,
}

impl NodeScore {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.spread + self.taints + self.affinity + self.least_allocated + self.balance
    }
}

/// The node's points for a pod.
#[must_use]
pub fn score(needs: &Needs, node: &NodeInfo) -> NodeScore {
    let same = needs.group.and_then(|group| node.groups.get(&group)).copied().unwrap_or_default();
    let repelled = node.taints.iter().filter(|taint| {
        taint.effect == "PreferNoSchedule"
            && !needs.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    });
    let attracted = needs.preferred.iter().filter(|term| matches_term(&term.preference, node));
    let weight: i64 = attracted.map(|term| i64::from(term.weight)).sum();
    let (least_allocated, balance) = resources(needs, node);
    NodeScore {
        node: node.name.clone(),
        spread: SPREAD * i64::from(same),
        taints: PREFER_NO_SCHEDULE * i64::try_from(repelled.count()).unwrap_or(i64::MAX / 4_000),
        affinity: AFFINITY * weight,
        least_allocated,
        balance,
    }
}

/// Shares in hundredths of what would be used with the pod. Pods without requests count a
/// little (as in Kubernetes: 100m and 200 MiB), or they would all go to one node.
fn resources(needs: &Needs, node: &NodeInfo) -> (i64, i64) {
    const CPU_DEFAULT: i64 = 100;
    const MEMORY_DEFAULT: i64 = 200 * 1024 * 1024;
    let share = |used: i64, more: i64, default: i64, all: i64, pods: i64| {
        if all <= 0 {
            return 100;
        }
        let more = if more > 0 { more } else { default };
        let used = used.max(pods.saturating_mul(default).min(all / 2));
        (used.saturating_add(more).saturating_mul(100) / all).clamp(0, 100)
    };
    let (want, used, all) = (needs.requests, node.allocated, node.allocatable);
    let cpu = share(used.cpu_millis, want.cpu_millis, CPU_DEFAULT, all.cpu_millis, used.pods);
    let memory =
        share(used.memory_bytes, want.memory_bytes, MEMORY_DEFAULT, all.memory_bytes, used.pods);
    (100 - i64::midpoint(cpu, memory), 100 - (cpu - memory).abs())
}

/// Decides between nodes with the same points: differently for each pod, alike in a replay.
#[must_use]
pub fn tie_break(seed: u64, pod_uid: &str, node: &str) -> u64 {
    // DefaultHasher::new() has fixed keys.
    let mut hasher = DefaultHasher::new();
    (seed, pod_uid, node).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "score_test.rs"]
mod tests;
