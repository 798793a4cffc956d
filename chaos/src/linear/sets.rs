//! Sets: elements come and go, and a read shows all of them. An object list by label is one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Model;

/// One set per name.
#[derive(Debug)]
pub struct Sets;

/// Asked of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetInput {
    /// Put an element in.
    Add {
        /// Which set.
        set: String,
        /// The element.
        element: u64,
    },
    /// Take an element out.
    Remove {
        /// Which set.
        set: String,
        /// The element.
        element: u64,
    },
    /// Read all elements.
    Read {
        /// Which set.
        set: String,
    },
}

/// Answered by a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetOutput {
    /// Carried out.
    Done,
    /// It was there already (Add), or was not there (Remove).
    Unchanged,
    /// All elements.
    Elements(BTreeSet<u64>),
}

impl Model for Sets {
    type Input = SetInput;
    type Output = SetOutput;
    type State = BTreeSet<u64>;
    type Part = String;

    fn part(input: &SetInput) -> String {
        let (SetInput::Add { set, .. } | SetInput::Remove { set, .. } | SetInput::Read { set }) =
            input;
        set.clone()
    }

    fn initial() -> BTreeSet<u64> {
        BTreeSet::new()
    }

    fn step(
        state: &BTreeSet<u64>,
        input: &SetInput,
        output: Option<&SetOutput>,
    ) -> Option<BTreeSet<u64>> {
        let mut after = state.clone();
        let changed = match input {
            SetInput::Add { element, .. } => after.insert(*element),
            SetInput::Remove { element, .. } => after.remove(element),
            SetInput::Read { .. } => {
                let fits = match output {
                    None => true,
                    Some(SetOutput::Elements(elements)) => elements == state,
                    Some(_) => false,
                };
                return fits.then_some(after);
            }
        };
        let fits = match output {
            None => true,
            Some(SetOutput::Done) => changed,
            Some(SetOutput::Unchanged) => !changed,
            Some(SetOutput::Elements(_)) => false,
        };
        fits.then_some(after)
    }

    fn reads_only(input: &SetInput) -> bool {
        matches!(input, SetInput::Read { .. })
    }
}
