//! Scores: which of the nodes that would do is best?
//!
//! Each part is brought to 0 to 100 over the nodes that would do, and counts with its weight.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use quorate_objects::pod::tolerates;

use crate::filter::matches_term;
use crate::needs::Needs;
use crate::snapshot::{Class, ClassState, ClusterSnapshot, NO_DOMAIN, NodeInfo, Term};

/// How much each part of the score counts. The defaults put wishes of users (taints, then
/// affinity and topology) before the even spread of replicas, and that before resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Few `PreferNoSchedule` taints that the pod does not tolerate.
    pub taints: i64,
    /// Preferred node affinity.
    pub node_affinity: i64,
    /// Preferred affinity and anti-affinity to pods, its own and that of others.
    pub pod_affinity: i64,
    /// Topology spread constraints with ScheduleAnyway.
    pub topology_spread: i64,
    /// Few pods of the same owner.
    pub spread: i64,
    /// Much of the node is left.
    pub least_allocated: i64,
    /// Little of the node is left: fills nodes one after the other.
    pub most_allocated: i64,
    /// Processor and memory are used in equal shares.
    pub balance: i64,
    /// The images are there already.
    pub image_locality: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            taints: 30,
            node_affinity: 20,
            pod_affinity: 20,
            topology_spread: 20,
            spread: 10,
            least_allocated: 1,
            most_allocated: 0,
            balance: 1,
            image_locality: 1,
        }
    }
}

/// The text says no weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// Not `NAME=NUMBER`.
    #[error("{0:?} is not NAME=NUMBER, with a number from 0 to 1000")]
    Pair(String),
    /// No such part.
    #[error("there is no score {0:?}; the scores are {known}", known = PARTS.join(", "))]
    Name(String),
}

/// The parts of a score, by the names that `quorate why` shows.
const PARTS: [&str; 9] = [
    "TaintToleration",
    "NodeAffinity",
    "InterPodAffinity",
    "PodTopologySpread",
    "ReplicaSpread",
    "LeastAllocated",
    "MostAllocated",
    "BalancedAllocation",
    "ImageLocality",
];

impl FromStr for Weights {
    type Err = WeightsError;

    /// `LeastAllocated=0,MostAllocated=5`; what is not named keeps its default.
    fn from_str(text: &str) -> Result<Self, WeightsError> {
        const MOST: i64 = 1_000;
        let mut weights = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let wrong = || WeightsError::Pair(pair.to_owned());
            let (name, weight) = pair.split_once('=').ok_or_else(wrong)?;
            let weight: i64 = weight.trim().parse().map_err(|_| wrong())?;
            if !(0..=MOST).contains(&weight) {
                return Err(wrong());
            }
            let part = PARTS.iter().position(|part| part.eq_ignore_ascii_case(name.trim()));
            let part = part.ok_or_else(|| WeightsError::Name(name.trim().to_owned()))?;
            *weights.parts_mut()[part] = weight;
        }
        Ok(weights)
    }
}

impl Weights {
    /// In the order of [`PARTS`].
    fn parts_mut(&mut self) -> [&mut i64; PARTS.len()] {
        [
            &mut self.taints,
            &mut self.node_affinity,
            &mut self.pod_affinity,
            &mut self.topology_spread,
            &mut self.spread,
            &mut self.least_allocated,
            &mut self.most_allocated,
            &mut self.balance,
            &mut self.image_locality,
        ]
    }
}

/// A node's points, part by part: each from 0 to 100 times its weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeScore {
    /// The node.
    pub node: Arc<str>,
    /// See [`Weights::taints`].
    pub taints: i64,
    /// See [`Weights::node_affinity`].
    pub node_affinity: i64,
    /// See [`Weights::pod_affinity`].
    pub pod_affinity: i64,
    /// See [`Weights::topology_spread`].
    pub topology_spread: i64,
    /// See [`Weights::spread`].
    pub spread: i64,
    /// See [`Weights::least_allocated`].
    pub least_allocated: i64,
    /// See [`Weights::most_allocated`].
    pub most_allocated: i64,
    /// See [`Weights::balance`].
    pub balance: i64,
    /// See [`Weights::image_locality`].
    pub image_locality: i64,
}

impl NodeScore {
    /// The parts, by their names.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, i64); PARTS.len()] {
        let points = [
            self.taints,
            self.node_affinity,
            self.pod_affinity,
            self.topology_spread,
            self.spread,
            self.least_allocated,
            self.most_allocated,
            self.balance,
            self.image_locality,
        ];
        std::array::from_fn(|part| (PARTS[part], points[part]))
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.parts().iter().map(|(_, points)| points).sum()
    }
}

/// The points of each of the nodes, in their order.
pub(crate) fn score(
    snapshot: &ClusterSnapshot,
    class: &Class,
    weights: &Weights,
    slots: &[usize],
) -> Vec<NodeScore> {
    let needs = class.needs();
    let state = snapshot.topology().class(class);
    let wishes = Wishes::new(snapshot, state);
    let nodes = || slots.iter().map(|slot| &snapshot.nodes()[*slot]);
    let mut scores: Vec<NodeScore> = nodes()
        .map(|node| {
            let (least, balance) = resources(needs, node);
            NodeScore {
                node: Arc::clone(&node.name),
                least_allocated: least * weights.least_allocated,
                most_allocated: (100 - least) * weights.most_allocated,
                balance: balance * weights.balance,
                image_locality: images(snapshot, needs, node) * weights.image_locality,
                ..NodeScore::default()
            }
        })
        .collect();
    let mut add = |raw: Vec<i64>, weight: i64, set: fn(&mut NodeScore) -> &mut i64| {
        for (score, points) in scores.iter_mut().zip(normalised(&raw)) {
            *set(score) = points * weight;
        }
    };
    // Parts that have nothing to say say nothing.
    if nodes().any(|node| !node.taints.is_empty()) {
        let raw = nodes().map(|node| -repelled(needs, &node.taints)).collect();
        add(raw, weights.taints, |score| &mut score.taints);
    }
    if !needs.preferred.is_empty() {
        let raw = nodes().map(|node| attracted(needs, node)).collect();
        add(raw, weights.node_affinity, |score| &mut score.node_affinity);
    }
    if wishes.has_pods() {
        let raw = slots.iter().map(|slot| wishes.pods(snapshot, *slot)).collect();
        add(raw, weights.pod_affinity, |score| &mut score.pod_affinity);
    }
    if !wishes.spread.is_empty() {
        let raw = slots.iter().map(|slot| wishes.spread(snapshot, *slot)).collect();
        add(raw, weights.topology_spread, |score| &mut score.topology_spread);
    }
    if let Some(group) = needs.group {
        let same = |node: &NodeInfo| node.groups.get(&group).copied().unwrap_or_default();
        let raw: Vec<i64> = nodes().map(|node| -i64::from(same(node))).collect();
        if raw.iter().any(|count| *count != 0) {
            add(raw, weights.spread, |score| &mut score.spread);
        }
    }
    scores
}

/// Brings numbers to 0 (the worst) to 100 (the best); all to 100 when they are equal. When all
/// are counted from 0 in one direction, 0 stays an end of the scale: 10 and 11 replicas are
/// nearly the same, 0 and 1 are not.
fn normalised(raw: &[i64]) -> Vec<i64> {
    let worst = raw.iter().copied().min().unwrap_or_default();
    let best = raw.iter().copied().max().unwrap_or_default();
    let (low, high) = (worst.min(0), best.max(0));
    let (low, high) = if low < 0 && high > 0 { (worst, best) } else { (low, high) };
    if low == high {
        return vec![100; raw.len()];
    }
    raw.iter().map(|points| (points - low).saturating_mul(100) / (high - low)).collect()
}

fn repelled(needs: &Needs, taints: &[Taint]) -> i64 {
    let repelling = taints.iter().filter(|taint| {
        taint.effect == "PreferNoSchedule"
            && !needs.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    });
    i64::try_from(repelling.count()).unwrap_or(i64::MAX / 100)
}

fn attracted(needs: &Needs, node: &NodeInfo) -> i64 {
    let terms = needs.preferred.iter().filter(|term| matches_term(&term.preference, node));
    terms.map(|term| i64::from(term.weight)).sum()
}

/// Shares in hundredths of what would be used with the pod: what is left, and how even. Pods
/// without requests count a little (as in Kubernetes: 100m and 200 MiB), or they would all go to
/// one node.
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

/// Kubernetes' rule: bytes that are there already, less when few nodes have them (so that not
/// all pods of an image go to one node), between 23 MB and 1 GB for each container.
fn images(snapshot: &ClusterSnapshot, needs: &Needs, node: &NodeInfo) -> i64 {
    const LEAST: i64 = 23 * 1024 * 1024;
    const MOST_EACH: i64 = 1000 * 1024 * 1024;
    if node.images.is_empty() {
        return 0;
    }
    let nodes = i64::try_from(snapshot.node_count().max(1)).unwrap_or(i64::MAX);
    let there = needs.images.iter().filter_map(|image| Some((image, node.images.get(image)?)));
    let bytes: i64 = there
        .map(|(image, size)| {
            size.saturating_mul(i64::from(snapshot.nodes_with_image(image))) / nodes
        })
        .sum();
    let most = MOST_EACH.saturating_mul(i64::try_from(needs.images.len()).unwrap_or(i64::MAX));
    (bytes.clamp(LEAST, most) - LEAST).saturating_mul(100) / (most - LEAST).max(1)
}

/// What is wished of the places of other pods.
struct Wishes<'a> {
    own: Vec<(i64, &'a Term)>,
    /// Terms of others that mean the pod.
    others: Vec<&'a Term>,
    /// Terms with a weight that grows with the number of domains (as in Kubernetes: with its
    /// logarithm), in thousandths, and the skew that is allowed.
    spread: Vec<(i64, i64, &'a Term)>,
}

impl<'a> Wishes<'a> {
    fn new(snapshot: &'a ClusterSnapshot, state: &'a ClassState) -> Self {
        let topology = snapshot.topology();
        let own = state.preferred.iter();
        let others = state.matched.iter().filter_map(|id| topology.term(*id));
        let spread = state.needs.spread.iter().zip(&state.spread);
        Self {
            own: own.filter_map(|(weight, id)| Some((*weight, topology.term(*id)?))).collect(),
            others: others
                .filter(|term| !term.wished.is_empty() || !term.attracted.is_empty())
                .collect(),
            spread: spread
                .filter(|(spread, _)| !spread.required)
                .filter_map(|(spread, id)| {
                    let term = topology.term(*id)?;
                    let domains = topology.keys[term.key].count();
                    Some((thousandths_of_log(domains + 2), spread.max_skew, term))
                })
                .collect(),
        }
    }

    fn has_pods(&self) -> bool {
        !self.own.is_empty() || !self.others.is_empty()
    }

    fn pods(&self, snapshot: &ClusterSnapshot, slot: usize) -> i64 {
        let topology = snapshot.topology();
        let mut points = 0;
        for (weight, term) in &self.own {
            let domain = topology.domain(term, slot);
            if domain != NO_DOMAIN {
                points += weight * term.matching.get(domain);
            }
        }
        for term in &self.others {
            let domain = topology.domain(term, slot);
            if domain != NO_DOMAIN {
                // Who requires to be with such pods is glad of another one (weight 1).
                points += term.wished.get(domain) + term.attracted.get(domain);
            }
        }
        points
    }

    fn spread(&self, snapshot: &ClusterSnapshot, slot: usize) -> i64 {
        let topology = snapshot.topology();
        let cost = |(weight, skew, term): &(i64, i64, &Term)| {
            match topology.domain(term, slot) {
                // Worse than any domain with pods.
                NO_DOMAIN => i64::from(u32::MAX),
                domain => crate::filter::staying(term, domain) * weight + skew - 1,
            }
        };
        -self.spread.iter().map(cost).sum::<i64>()
    }
}

/// 1000 · ln(n), in whole numbers so that it is the same everywhere: from the binary logarithm,
/// with a straight line between its whole values.
fn thousandths_of_log(n: usize) -> i64 {
    const LN_2: i64 = 693;
    let bits = n.max(1).ilog2();
    let base = 1_usize << bits;
    let fraction = i64::try_from((n.max(1) - base).saturating_mul(1_000) / base).unwrap_or(0);
    LN_2 * i64::from(bits) + LN_2 * fraction / 1_000
}

/// A number for a pod: the same in a replay, different for other pods and seeds.
pub(crate) fn ticket(seed: u64, pod_uid: &str) -> u64 {
    // DefaultHasher::new() has fixed keys.
    let mut hasher = DefaultHasher::new();
    (seed, pod_uid).hash(&mut hasher);
    hasher.finish()
}

/// Decides between nodes with the same points: differently for each pod, alike in a replay.
#[must_use]
pub(crate) fn tie_break(ticket: u64, node: u64) -> u64 {
    // The finaliser of SplitMix64: every bit of the input changes every bit of the output.
    let mut mixed = ticket ^ node;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
#[path = "score_test.rs"]
mod tests;
