//! What can go wrong in leader work.

use quorate_registry::RegistryError;

/// Why a reconciliation ended early.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Somebody changed the object meanwhile; look again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The object is gone.
    #[error("not found: {0}")]
    NotFound(String),
    /// An object of that name is there already.
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// The store is in a newer term: this leader's work is over.
    #[error("the term of this leader is over: {0}")]
    Fenced(String),
    /// The write may or may not take effect.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// Anything else; tried again with back-off.
    #[error("{0}")]
    Other(String),
}

impl ControllerError {
    /// Is it part of normal life, and not worth a warning?
    #[must_use]
    pub fn is_benign(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::NotFound(_) | Self::Fenced(_))
    }
}

impl From<serde_json::Error> for ControllerError {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(format!("cannot encode an object: {error}"))
    }
}

impl From<RegistryError> for ControllerError {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match &error {
            RegistryError::Conflict { .. } => Self::Conflict(text),
            RegistryError::NotFound { .. } => Self::NotFound(text),
            RegistryError::AlreadyExists { .. } => Self::AlreadyExists(text),
            _ if quorate_scheduler::is_fenced(&error) => Self::Fenced(text),
            RegistryError::OutcomeUnknown(_) => Self::OutcomeUnknown(text),
            _ => Self::Other(text),
        }
    }
}

/// Why leader work ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// A task of leader work panicked: a bug. The process must not go on half alive.
    #[error("{task} has failed: {reason}")]
    TaskFailed {
        /// Which.
        task: String,
        /// Its panic message or error.
        reason: String,
    },
}
