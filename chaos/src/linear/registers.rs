//! Registers with a revision and compare-and-set on it: objects under a `resourceVersion`, or
//! etcd's keys under their mod revision.

use serde::{Deserialize, Serialize};

use super::Model;

/// One register per key.
#[derive(Debug)]
pub struct Registers;

/// What a register holds, and the revision at which it got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned {
    /// Unique in the whole history.
    pub value: u64,
    /// The store's revision.
    pub revision: u64,
}

/// Asked of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterInput {
    /// Read it.
    Read {
        /// Which.
        key: String,
    },
    /// Make it, if there is nothing.
    Create {
        /// Which.
        key: String,
        /// Its first value.
        value: u64,
    },
    /// Write it, whatever it holds.
    Write {
        /// Which.
        key: String,
        /// The new value.
        value: u64,
    },
    /// Write it if it was last changed at `expected`.
    CompareAndSet {
        /// Which.
        key: String,
        /// The revision it must be at.
        expected: u64,
        /// The new value.
        value: u64,
    },
    /// Remove it.
    Delete {
        /// Which.
        key: String,
    },
}

impl RegisterInput {
    /// Which register.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Read { key }
            | Self::Create { key, .. }
            | Self::Write { key, .. }
            | Self::CompareAndSet { key, .. }
            | Self::Delete { key } => key,
        }
    }
}

/// Answered by a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterOutput {
    /// What was read; `None`: there is nothing.
    Found(Option<Versioned>),
    /// Written, at this revision.
    Written(u64),
    /// It was at another revision.
    Mismatch,
    /// Removed.
    Deleted,
    /// There was nothing to remove or to replace.
    Missing,
}

/// What is known of the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevisionIs {
    /// This one.
    Known(u64),
    /// Some revision after this one: the writer's answer was lost.
    After(u64),
}

impl RevisionIs {
    fn least(self) -> u64 {
        match self {
            Self::Known(revision) => revision,
            Self::After(revision) => revision + 1,
        }
    }

    /// A revision that the present one is not before. For an unknown one this may be one less
    /// than is known: states that differ by that alone would only multiply the search.
    fn floor(self) -> u64 {
        let (Self::Known(revision) | Self::After(revision)) = self;
        revision
    }

    fn may_be(self, revision: u64) -> bool {
        match self {
            Self::Known(known) => known == revision,
            Self::After(before) => revision > before,
        }
    }
}

/// The register's state. A register that was removed still knows after which revision the next
/// write must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegisterState {
    value: Option<u64>,
    revision: RevisionIs,
}

impl Model for Registers {
    type Input = RegisterInput;
    type Output = RegisterOutput;
    type State = RegisterState;
    type Part = String;

    fn part(input: &RegisterInput) -> String {
        input.key().to_owned()
    }

    fn initial() -> RegisterState {
        RegisterState { value: None, revision: RevisionIs::Known(0) }
    }

    fn step(
        state: &RegisterState,
        input: &RegisterInput,
        output: Option<&RegisterOutput>,
    ) -> Option<RegisterState> {
        match input {
            RegisterInput::Read { .. } => read(state, output),
            RegisterInput::Create { value, .. } => create(state, *value, output),
            RegisterInput::Write { value, .. } => write(state, *value, output),
            RegisterInput::CompareAndSet { expected, value, .. } => {
                compare_and_set(state, *expected, *value, output)
            }
            RegisterInput::Delete { .. } => delete(state, output),
        }
    }

    fn reads_only(input: &RegisterInput) -> bool {
        matches!(input, RegisterInput::Read { .. })
    }
}

fn read(state: &RegisterState, output: Option<&RegisterOutput>) -> Option<RegisterState> {
    match output {
        None => Some(*state),
        Some(RegisterOutput::Found(None)) => state.value.is_none().then_some(*state),
        Some(RegisterOutput::Found(Some(found))) => {
            let fits = state.value == Some(found.value) && state.revision.may_be(found.revision);
            // From now on the revision is known.
            fits.then_some(RegisterState {
                value: state.value,
                revision: RevisionIs::Known(found.revision),
            })
        }
        Some(_) => None,
    }
}

fn create(
    state: &RegisterState,
    value: u64,
    output: Option<&RegisterOutput>,
) -> Option<RegisterState> {
    match output {
        Some(RegisterOutput::Mismatch) => state.value.is_some().then_some(*state),
        None if state.value.is_some() => Some(*state),
        None | Some(RegisterOutput::Written(_)) if state.value.is_none() => {
            write(state, value, output)
        }
        _ => None,
    }
}

fn write(
    state: &RegisterState,
    value: u64,
    output: Option<&RegisterOutput>,
) -> Option<RegisterState> {
    let revision = match output {
        None => RevisionIs::After(state.revision.floor()),
        Some(RegisterOutput::Written(revision)) if *revision > state.revision.least() => {
            RevisionIs::Known(*revision)
        }
        // An unconditional update of an object needs the object.
        Some(RegisterOutput::Missing) => return state.value.is_none().then_some(*state),
        Some(_) => return None,
    };
    Some(RegisterState { value: Some(value), revision })
}

fn compare_and_set(
    state: &RegisterState,
    expected: u64,
    value: u64,
    output: Option<&RegisterOutput>,
) -> Option<RegisterState> {
    let may_match = state.value.is_some() && state.revision.may_be(expected);
    match output {
        // Unknown: carried out where it matches; where it does not, it changes nothing.
        None if may_match => {
            Some(RegisterState { value: Some(value), revision: RevisionIs::After(expected) })
        }
        None => Some(*state),
        Some(RegisterOutput::Written(revision)) => {
            (may_match && *revision > expected).then_some(RegisterState {
                value: Some(value),
                revision: RevisionIs::Known(*revision),
            })
        }
        Some(RegisterOutput::Mismatch) => {
            let must_match = state.value.is_some() && state.revision == RevisionIs::Known(expected);
            (!must_match).then_some(*state)
        }
        Some(RegisterOutput::Missing) => state.value.is_none().then_some(*state),
        Some(_) => None,
    }
}

fn delete(state: &RegisterState, output: Option<&RegisterOutput>) -> Option<RegisterState> {
    let removed =
        RegisterState { value: None, revision: RevisionIs::After(state.revision.floor()) };
    match output {
        None if state.value.is_none() => Some(*state),
        None => Some(removed),
        Some(RegisterOutput::Deleted) => state.value.is_some().then_some(removed),
        Some(RegisterOutput::Missing) => state.value.is_none().then_some(*state),
        Some(_) => None,
    }
}
