//! Transactions over several keys of one group: conditions, then writes, then reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Model;

/// Groups of keys; a transaction stays within one.
#[derive(Debug)]
pub struct Transactions;

/// A transaction: when every condition holds, `writes` happen; `reads` are answered either way,
/// after the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionInput {
    /// The group.
    pub group: u32,
    /// Key and the value it must have (`None`: must not exist).
    pub conditions: Vec<(u32, Option<u64>)>,
    /// Key and its new value.
    pub writes: Vec<(u32, u64)>,
    /// Keys to read.
    pub reads: Vec<u32>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionOutput {
    /// Did the conditions hold?
    pub succeeded: bool,
    /// In the order of `reads`.
    pub reads: Vec<Option<u64>>,
}

impl Model for Transactions {
    type Input = TransactionInput;
    type Output = TransactionOutput;
    type State = BTreeMap<u32, u64>;
    type Part = u32;

    fn part(input: &TransactionInput) -> u32 {
        input.group
    }

    fn initial() -> BTreeMap<u32, u64> {
        BTreeMap::new()
    }

    fn step(
        state: &BTreeMap<u32, u64>,
        input: &TransactionInput,
        output: Option<&TransactionOutput>,
    ) -> Option<BTreeMap<u32, u64>> {
        let holds = input.conditions.iter().all(|(key, value)| state.get(key).copied() == *value);
        if output.is_some_and(|output| output.succeeded != holds) {
            return None;
        }
        let mut after = state.clone();
        if holds {
            after.extend(input.writes.iter().copied());
        }
        let fits = output.is_none_or(|output| {
            input.reads.iter().map(|key| after.get(key).copied()).eq(output.reads.iter().copied())
        });
        fits.then_some(after)
    }

    fn reads_only(input: &TransactionInput) -> bool {
        input.writes.is_empty()
    }
}
