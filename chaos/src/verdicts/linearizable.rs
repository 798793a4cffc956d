//! Histories of all clients are linearizable, unknown outcomes left open.

use super::{Findings, Promise, budget};
use crate::evidence::Evidence;
use crate::history::Operation;
use crate::linear::{Lists, Model, Registers, Sets, Transactions, check};

pub(super) const REGISTERS: Promise = Promise {
    name: "linearizable registers",
    promise: "reads, writes and compare-and-set of single keys appear in one order, each between \
              its call and its answer",
    judge: |evidence: &Evidence| judge::<Registers>(&evidence.registers),
};

pub(super) const TRANSACTIONS: Promise = Promise {
    name: "linearizable transactions",
    promise: "transactions over several keys happen as a whole or not at all, in one order",
    judge: |evidence: &Evidence| judge::<Transactions>(&evidence.transactions),
};

pub(super) const SETS: Promise = Promise {
    name: "linearizable lists of objects",
    promise: "a list shows every object whose creation was acknowledged before it, and none whose \
              deletion was",
    judge: |evidence: &Evidence| judge::<Sets>(&evidence.sets),
};

pub(super) const LISTS: Promise = Promise {
    name: "linearizable appends",
    promise: "every append is there once, and all readers see them in the same order",
    judge: |evidence: &Evidence| judge::<Lists>(&evidence.lists),
};

fn judge<M: Model>(history: &[Operation<M::Input, M::Output>]) -> Findings {
    let found = check::<M>(history, budget());
    Findings {
        checked: found.checked,
        violations: found.violations,
        not_decided: found.not_decided,
        steps: None,
    }
}
