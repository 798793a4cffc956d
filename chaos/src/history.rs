//! What clients asked, what they were answered, and when: the raw material of all verdicts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the beginning of the run.
pub type Nanos = u64;

/// The run's clock: monotonic, shared by all clients of one process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that reads zero now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// One call of one client. Calls that were definitely refused are not part of a history: they
/// had no effect, and the verdict on refused writes looks at them separately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation<I, O> {
    /// Who asked.
    pub client: u32,
    /// When the call began.
    pub sent: Nanos,
    /// When the answer was there. `None`: nobody knows whether it was carried out, and if so,
    /// it may have been at any time after `sent`.
    pub answered: Option<Nanos>,
    /// What was asked.
    pub input: I,
    /// What was answered; `None` exactly when `answered` is.
    pub output: Option<O>,
}

/// A growing history that many clients write to.
#[derive(Debug)]
pub struct History<I, O> {
    operations: Arc<Mutex<Vec<Operation<I, O>>>>,
}

impl<I, O> Clone for History<I, O> {
    fn clone(&self) -> Self {
        Self { operations: Arc::clone(&self.operations) }
    }
}

impl<I, O> Default for History<I, O> {
    fn default() -> Self {
        Self { operations: Arc::default() }
    }
}

impl<I, O> History<I, O> {
    /// Adds an operation.
    pub fn push(&self, operation: Operation<I, O>) {
        self.lock().push(operation);
    }

    /// Takes everything out.
    #[must_use]
    pub fn take(&self) -> Vec<Operation<I, O>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Operation<I, O>>> {
        // Operations are pushed whole: a panic elsewhere leaves no half of one.
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
