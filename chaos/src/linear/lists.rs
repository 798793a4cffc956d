//! Lists that only grow: a read shows the whole history of appends in its order.

use serde::{Deserialize, Serialize};

use super::Model;

/// One list per name.
#[derive(Debug)]
pub struct Lists;

/// Asked of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListInput {
    /// Put an element at the end.
    Append {
        /// Which list.
        list: String,
        /// The element.
        element: u64,
    },
    /// Read all of it.
    Read {
        /// Which list.
        list: String,
    },
}

/// Answered by a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListOutput {
    /// Appended.
    Done,
    /// All elements, oldest first.
    Elements(Vec<u64>),
}

impl Model for Lists {
    type Input = ListInput;
    type Output = ListOutput;
    type State = Vec<u64>;
    type Part = String;

    fn part(input: &ListInput) -> String {
        let (ListInput::Append { list, .. } | ListInput::Read { list }) = input;
        list.clone()
    }

    fn initial() -> Vec<u64> {
        Vec::new()
    }

    fn step(state: &Vec<u64>, input: &ListInput, output: Option<&ListOutput>) -> Option<Vec<u64>> {
        match (input, output) {
            (ListInput::Append { element, .. }, None | Some(ListOutput::Done)) => {
                let mut after = state.clone();
                after.push(*element);
                Some(after)
            }
            (ListInput::Read { .. }, None) => Some(state.clone()),
            (ListInput::Read { .. }, Some(ListOutput::Elements(elements))) => {
                (elements == state).then(|| state.clone())
            }
            _ => None,
        }
    }

    fn reads_only(input: &ListInput) -> bool {
        matches!(input, ListInput::Read { .. })
    }
}
