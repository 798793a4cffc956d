//! Preemption: which pods of lower priority are to leave which node, so that a pod fits there.

use std::cmp::Reverse;

use crate::filter::{self, NodeView, PodRules};
use crate::score;
use crate::snapshot::{Class, ClusterSnapshot, Placed, PodId, PodKey, Rule};

/// Who is to leave where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The node on which there will be room.
    pub node: String,
    /// Pods to be deleted, none of which could stay. Empty when what leaves already is enough.
    pub victims: Vec<PodKey>,
    /// How many of them go although a disruption budget forbids it.
    pub violations: usize,
}

/// What is better is smaller: budgets that are not kept, the priority of the most important
/// victim, the sum of priorities, the number of victims, then who started last.
type Cost = (usize, i64, i64, usize, Reverse<i64>, Reverse<u64>);

/// An attempt to make room for a pod.
pub(crate) struct Attempt<'a> {
    pub snapshot: &'a ClusterSnapshot,
    pub key: &'a PodKey,
    pub class: &'a Class,
    pub rules: &'a PodRules<'a>,
    pub volumes: &'a [Rule],
    pub ticket: u64,
}

struct Candidate {
    slot: usize,
    victims: Vec<PodId>,
    violations: usize,
}

impl Attempt<'_> {
    /// The node where it costs least, among the first `most` of `slots` where it is possible.
    pub fn run(&self, slots: &[usize], most: usize) -> Option<Preemption> {
        let priority = self.class.needs().priority;
        let lower = |slot: &&usize| {
            let priorities = &self.snapshot.nodes()[**slot].priorities;
            priorities.first_key_value().is_some_and(|(lowest, _)| *lowest < priority)
        };
        let candidates = slots.iter().filter(lower).filter_map(|slot| self.on(*slot));
        let best = candidates.take(most.max(1)).min_by_key(|candidate| self.cost(candidate))?;
        let keys = best.victims.iter().filter_map(|id| self.snapshot.pod(*id));
        Some(Preemption {
            node: self.snapshot.nodes()[best.slot].name.to_string(),
            victims: keys.map(|pod| pod.key.clone()).collect(),
            violations: best.violations,
        })
    }

    /// The fewest and least important pods of the node that have to leave, if that helps.
    fn on(&self, slot: usize) -> Option<Candidate> {
        let priority = self.class.needs().priority;
        let pods = self.snapshot.nodes()[slot].pods.iter();
        let lower: Vec<(PodId, &Placed)> = pods
            .filter_map(|id| Some((*id, self.snapshot.pod(*id)?)))
            .filter(|(_, pod)| pod.class.needs().priority < priority)
            .collect();
        let mut without: Vec<PodId> = lower.iter().map(|(id, _)| *id).collect();
        if without.is_empty() || !self.fits(slot, &without) {
            return None;
        }
        // Who leaves already costs nothing. Of the others the most important may stay first, and
        // before them those whose budget is used up.
        let mut may_stay: Vec<(bool, PodId, &Placed)> =
            lower.into_iter().filter(|(_, p)| !p.deleting).map(|(id, p)| (true, id, p)).collect();
        may_stay
            .sort_by_key(|(_, _, pod)| (Reverse(pod.class.needs().priority), pod.since, &pod.key));
        let mut account = self.snapshot.budgets.account();
        for (within, _, pod) in may_stay.iter_mut() {
            *within = account.take(pod.class.needs());
        }
        may_stay.sort_by_key(|(within, _, _)| *within);
        let (mut victims, mut violations) = (Vec::new(), 0);
        for (within, id, _) in may_stay {
            let Some(at) = without.iter().position(|other| *other == id) else { continue };
            without.swap_remove(at);
            if !self.fits(slot, &without) {
                without.push(id);
                victims.push(id);
                violations += usize::from(!within);
            }
        }
        Some(Candidate { slot, victims, violations })
    }

    fn fits(&self, slot: usize, without: &[PodId]) -> bool {
        let view = NodeView { snapshot: self.snapshot, slot, without };
        filter::check(self.class.needs(), view, Some(self.key)).is_ok()
            && filter::check_volumes(self.volumes, view.node()).is_ok()
            && self.rules.check(view).is_ok()
    }

    fn cost(&self, candidate: &Candidate) -> Cost {
        let pods = || candidate.victims.iter().filter_map(|id| self.snapshot.pod(*id));
        let priority = |pod: &Placed| i64::from(pod.class.needs().priority);
        let highest = pods().map(priority).max().unwrap_or(i64::MIN);
        let oldest = pods().filter(|pod| priority(pod) == highest).map(|pod| pod.since).min();
        let hash = self.snapshot.nodes()[candidate.slot].hash;
        (
            candidate.violations,
            highest,
            // From the lowest possible priority, so that more victims always cost more.
            pods().map(|pod| priority(pod) - i64::from(i32::MIN)).sum(),
            candidate.victims.len(),
            Reverse(oldest.unwrap_or(i64::MAX)),
            Reverse(score::tie_break(self.ticket, hash)),
        )
    }
}

#[cfg(test)]
#[path = "preempt_test.rs"]
mod tests;
