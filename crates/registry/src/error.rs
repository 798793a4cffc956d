//! What can go wrong with a request for objects.

use quorate_objects::{FieldError, Invalid, SelectorError};
use quorate_store::StoreError;

use crate::apply::ConflictCause;

/// The sort of a [`RegistryError`], for mapping to gRPC and HTTP codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the variant of RegistryError of the same name")]
pub enum Code {
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    Gone,
    TooLarge,
    Forbidden,
    Unavailable,
    OutcomeUnknown,
    Timeout,
    TooManyRequests,
    BadRequest,
    Internal,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no such object.
    #[error("{resource} \"{name}\" not found")]
    NotFound {
        /// `pods`, `deployments.apps`
        resource: String,
        /// The object's name.
        name: String,
    },
    /// The name is taken.
    #[error("{resource} \"{name}\" already exists")]
    AlreadyExists {
        /// `pods`, `deployments.apps`
        resource: String,
        /// The object's name.
        name: String,
    },
    /// The object is not what the caller thinks it is.
    #[error("Operation cannot be fulfilled on {resource} \"{name}\": {message}")]
    Conflict {
        /// `pods`, `deployments.apps`
        resource: String,
        /// The object's name.
        name: String,
        /// What differs.
        message: String,
    },
    /// An applied configuration would change what others own.
    #[error("{message}")]
    ApplyConflict {
        /// The whole story, in Kubernetes' words.
        message: String,
        /// Each field.
        causes: Vec<ConflictCause>,
    },
    /// Fields are wrong.
    #[error(transparent)]
    Invalid(Invalid),
    /// The revision is too old; list again.
    #[error("too old resource version: {requested} (oldest is {oldest})")]
    Gone {
        /// Revision asked for.
        requested: u64,
        /// Oldest revision that can be watched from.
        oldest: u64,
    },
    /// The object is larger than the store takes.
    #[error("Request entity too large: {what} is {size} bytes, limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not allowed as things are (a terminating namespace, a deposed leader).
    #[error("{0}")]
    Forbidden(String),
    /// No leader or no quorum; nothing was written.
    #[error("{reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
        /// Client URL of the leader, when known.
        leader: Option<String>,
    },
    /// The write may or may not take effect.
    #[error("the outcome of the write is unknown: {0}")]
    OutcomeUnknown(String),
    /// The deadline is over; nothing was written.
    #[error("timed out: {0}")]
    Timeout(String),
    /// Not now: a disruption budget forbids it.
    #[error("{message} {cause}")]
    TooManyRequests {
        /// What was refused.
        message: String,
        /// Why, in words for people.
        cause: String,
        /// When to try again; 0: nobody knows.
        retry_after_seconds: u32,
    },
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// A bug or a broken disk.
    #[error("internal error: {0}")]
    Internal(String),
}

impl RegistryError {
    /// The sort of error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Conflict { .. } | Self::ApplyConflict { .. } => Code::Conflict,
            Self::Invalid(_) => Code::Invalid,
            Self::Gone { .. } => Code::Gone,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Forbidden(_) => Code::Forbidden,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::OutcomeUnknown(_) => Code::OutcomeUnknown,
            Self::Timeout(_) => Code::Timeout,
            Self::TooManyRequests { .. } => Code::TooManyRequests,
            Self::BadRequest(_) => Code::BadRequest,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The reason in the words of Kubernetes' `Status`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.code() {
            Code::NotFound => "NotFound",
            Code::AlreadyExists => "AlreadyExists",
            Code::Conflict => "Conflict",
            Code::Invalid => "Invalid",
            Code::Gone => "Expired",
            Code::TooLarge => "RequestEntityTooLarge",
            Code::Forbidden => "Forbidden",
            Code::Unavailable => "ServiceUnavailable",
            Code::OutcomeUnknown => "OutcomeUnknown",
            Code::Timeout => "Timeout",
            Code::TooManyRequests => "TooManyRequests",
            Code::BadRequest => "BadRequest",
            Code::Internal => "InternalError",
        }
    }

    /// The wrong fields, when that is what is wrong.
    #[must_use]
    pub fn fields(&self) -> &[FieldError] {
        match self {
            Self::Invalid(invalid) => &invalid.errors,
            _ => &[],
        }
    }

    /// The fields of other managers that an apply would change.
    #[must_use]
    pub fn conflicts(&self) -> &[ConflictCause] {
        match self {
            Self::ApplyConflict { causes, .. } => causes,
            _ => &[],
        }
    }

    /// May the same request be sent again without harm, and with hope?
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout(_))
    }

    /// Client URL of the leader, when the error carries one.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        match self {
            Self::Unavailable { leader, .. } => leader.as_deref(),
            _ => None,
        }
    }

    /// There is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The object is not what the caller thinks it is.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Code::Conflict
    }
}

impl From<Invalid> for RegistryError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<SelectorError> for RegistryError {
    fn from(error: SelectorError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Unavailable { leader, .. } => Self::Unavailable { reason: text, leader },
            // Another master may be able to: a client that has several tries the next one.
            StoreError::Overloaded(_) | StoreError::NoSpace(_) | StoreError::Corrupt(_) => {
                Self::Unavailable { reason: text, leader: None }
            }
            StoreError::OutcomeUnknown(reason) => Self::OutcomeUnknown(reason),
            StoreError::Fenced(_) => Self::Forbidden(text),
            StoreError::Compacted(oldest) => Self::Gone { requested: 0, oldest },
            StoreError::FutureRevision(_) => Self::Timeout(text),
            StoreError::TooLarge { what, size, limit } => {
                Self::TooLarge { what: what.to_owned(), size, limit }
            }
            StoreError::Invalid(_)
            | StoreError::MemberNotFound(_)
            | StoreError::MemberExists(_)
            | StoreError::Membership(_) => Self::BadRequest(text),
            StoreError::KeyNotFound(_)
            | StoreError::LeaseNotFound(_)
            | StoreError::LeaseExists(_)
            | StoreError::Unsupported(_)
            | StoreError::Internal(_) => Self::Internal(text),
        }
    }
}
