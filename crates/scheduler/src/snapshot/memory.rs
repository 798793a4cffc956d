//! [`Memory`]: what has been found out about a class of pods, and still holds.

use std::sync::Arc;

use super::topology::Domain;
use crate::filter::Reason;

/// More reasons than this are not kept apart.
const REASONS_MAX: usize = 1 << REASON_BITS;
/// Of what is remembered of a node: the rest is the change.
const REASON_BITS: u32 = 10;

/// Which nodes refused pods of the class, by themselves (whatever is on other nodes). It holds
/// until the node changes, so that a pod for which most of the cluster is full does not cost a
/// check of each node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// By the node's slot: the change of the node after which this was found, and the reason. In
    /// one number: a search reads those of most of the cluster.
    refused: Vec<u64>,
    reasons: Vec<Reason>,
    /// The domains over which each of the class's spread constraints counts, since this change
    /// of nodes.
    pub domains: Option<(u64, Arc<Vec<Vec<Domain>>>)>,
    /// Is it one of those that are remembered now?
    pub kept: bool,
}

impl Memory {
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.domains.is_none()
    }

    /// Before a decision: forgets all when there is no room for new reasons.
    pub fn make_room(&mut self) {
        if self.reasons.len() >= REASONS_MAX {
            self.reasons.clear();
            self.refused.clear();
        }
    }

    /// The number of the reason for which the node refused, if it did so and has not changed
    /// since. (`changed` is never 0.)
    pub fn refusal(&self, slot: usize, changed: u64) -> Option<usize> {
        let found = *self.refused.get(slot)?;
        let reason = usize::try_from(found % REASONS_MAX as u64).ok()?;
        (found >> REASON_BITS == changed).then_some(reason)
    }

    /// A reason by its number.
    pub fn reason(&self, number: usize) -> Option<&Reason> {
        self.reasons.get(number)
    }

    /// Remembers a refusal; returns the number of the reason, or the reason itself when there is
    /// no room for it.
    pub fn refuse(&mut self, slot: usize, changed: u64, reason: Reason) -> Result<usize, Reason> {
        let known = self.reasons.iter().position(|known| *known == reason);
        let number = match known {
            Some(number) => number,
            None if self.reasons.len() >= REASONS_MAX => return Err(reason),
            None => {
                self.reasons.push(reason);
                self.reasons.len() - 1
            }
        };
        if self.refused.len() <= slot {
            self.refused.resize(slot + 1, 0);
        }
        // Changes are counted one by one: 54 bits are never used up.
        self.refused[slot] = changed << REASON_BITS | number as u64;
        Ok(number)
    }
}
