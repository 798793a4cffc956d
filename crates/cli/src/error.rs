//! What can go wrong, in the words that users of `kubectl` know.

use std::io;

/// Why a command failed. Its text is what goes to standard error.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Found out on this side.
    #[error("error: {0}")]
    Local(String),
    /// A master's refusal.
    #[error("Error from server ({reason}): {message}")]
    Server {
        /// `NotFound`, `AlreadyExists`, …
        reason: String,
        /// The master's words.
        message: String,
    },
    /// A complete message.
    #[error("{0}")]
    Plain(String),
    /// Everything has been said already.
    #[error("")]
    Reported,
    /// Whoever read standard output has gone; not an error.
    #[error("")]
    BrokenPipe,
}

/// Result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// A mistake that needs no master to be found.
    pub fn local(message: impl Into<String>) -> Self {
        Self::Local(message.into())
    }

    /// Is it a master's answer with this reason?
    #[must_use]
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Server { reason, .. } if reason == wanted)
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is("NotFound")
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::Local(error.to_string())
        }
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::Local(format!("cannot write JSON: {error}"))
    }
}

impl From<quorate_client::ClientError> for CliError {
    fn from(error: quorate_client::ClientError) -> Self {
        // Nobody answered, or nobody knows: the client's message tells the whole story.
        if !error.tried.is_empty() || error.outcome_unknown() {
            return Self::Local(error.message);
        }
        if error.is_invalid() && error.message.contains(" is invalid: ") {
            return Self::Plain(format!("The {}", error.message));
        }
        Self::Server { reason: error.reason, message: error.message }
    }
}

impl From<quorate_client::ClusterFileError> for CliError {
    fn from(error: quorate_client::ClusterFileError) -> Self {
        Self::Local(error.to_string())
    }
}
