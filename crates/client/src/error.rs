//! [`ClientError`]: what went wrong, in words that say what to do about it.

use std::error::Error as _;
use std::fmt::Write as _;

use quorate_proto::never_sent;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// One wrong field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// `spec.containers[0].image`
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// What one endpoint answered, or why it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// URL of the master.
    pub endpoint: String,
    /// Did it take the connection?
    pub reached: bool,
    /// What happened there last.
    pub problem: String,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// gRPC's code.
    pub code: Code,
    /// One word for programs: `NotFound`, `Conflict`, `Invalid`, `Expired`, `Unavailable`,
    /// `OutcomeUnknown`, …
    pub reason: String,
    /// For people.
    pub message: String,
    /// The wrong fields, when reason is `Invalid`.
    pub fields: Vec<Field>,
    /// URL of the leader, when the answering master knew one.
    pub leader: Option<String>,
    /// What each endpoint said, when none could carry the call out.
    pub tried: Vec<Attempt>,
}

impl ClientError {
    /// An error made on this side of the wire.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            fields: Vec::new(),
            leader: None,
            tried: Vec::new(),
        }
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// The name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code == Code::AlreadyExists
    }

    /// The object has changed since it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// The revision is compacted: list again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.reason == "Expired"
    }

    /// The object is wrong; see `fields`.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.reason == "Invalid"
    }

    /// The write may or may not have taken effect.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        self.reason == "OutcomeUnknown"
    }

    /// Nothing was written, and the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(
            self.reason.as_str(),
            "Unavailable" | "ServiceUnavailable" | "Overloaded" | "Unreachable" | "Timeout"
        )
    }

    pub(crate) fn outcome_unknown_at(endpoint: &str, what: &str, problem: &str) -> Self {
        Self::new(
            Code::Unknown,
            "OutcomeUnknown",
            format!(
                "{what}: {endpoint} went away before it answered ({problem}), so the change may \
                 or may not have been made; look with `get` before you repeat it"
            ),
        )
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let mut error = Self::new(
            status.code(),
            info.map_or_else(|| default_reason(status.code()), |info| info.reason.as_str()),
            status.message(),
        );
        error.leader = info.and_then(|info| info.metadata.get("leader").cloned());
        if let Some(bad) = details.bad_request() {
            let field = |v: &tonic_types::FieldViolation| Field {
                path: v.field.clone(),
                message: v.description.clone(),
            };
            error.fields = bad.field_violations.iter().map(field).collect();
        }
        error
    }
}

/// For statuses that come from gRPC itself and not from a handler.
fn default_reason(code: Code) -> &'static str {
    match code {
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::Aborted => "Aborted",
        Code::InvalidArgument => "BadRequest",
        Code::OutOfRange => "TooLarge",
        Code::ResourceExhausted => "Overloaded",
        Code::PermissionDenied => "Forbidden",
        Code::Unauthenticated => "Unauthenticated",
        Code::Unavailable => "Unavailable",
        Code::DeadlineExceeded => "Timeout",
        Code::Unimplemented => "NotImplemented",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Cancelled => "Cancelled",
        _ => "Internal",
    }
}

/// What a failed attempt means for the next one.
pub(crate) enum Outcome {
    /// The master answered; this is the answer.
    Final(ClientError),
    /// The master answered that it cannot now; nothing was done.
    Later(ClientError),
    /// The request was never put on a connection; nothing was done.
    NotSent(String),
    /// The connection broke after the request may have been sent.
    Broken(String),
}

pub(crate) fn classify(status: Status) -> Outcome {
    let from_master = status.get_error_details().error_info().is_some();
    if from_master {
        let error = ClientError::from(status);
        return if error.retryable() { Outcome::Later(error) } else { Outcome::Final(error) };
    }
    if let Some(problem) = never_sent(&status) {
        return Outcome::NotSent(innermost(problem));
    }
    if status.source().is_some() || status.code() == Code::Unavailable {
        return Outcome::Broken(innermost(&status));
    }
    Outcome::Final(ClientError::from(status))
}

/// The root cause, without the wrappings and the operating system's number.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    // What hyper's connector says when the connect time-out has passed.
    if text == "deadline has elapsed" { "no answer to the connection attempt".into() } else { text }
}

/// The message for a call that no master could carry out.
pub(crate) fn nobody(what: &str, tried: Vec<Attempt>, leader: Option<String>) -> ClientError {
    let total = tried.len();
    let reached = tried.iter().filter(|attempt| attempt.reached).count();
    let majority = total / 2 + 1;
    let mut message = if reached == 0 {
        format!("{what}: {} answered:", none_of(total))
    } else if reached < majority {
        let (are, verb) = if reached == 1 { ("is", "it says") } else { ("are", "they say") };
        format!(
            "{what}: only {reached} of {total} masters {are} reachable, so there is no majority \
             ({verb} why below):"
        )
    } else {
        format!("{what}: the masters are reachable but could not do it in time:")
    };
    for attempt in &tried {
        let _ = write!(message, "\n  {}: {}", attempt.endpoint, attempt.problem);
    }
    message.push_str(if reached == 0 {
        "\nIs the cluster running? `quorate status` shows it, `quorate up` starts a local one."
    } else if reached < majority {
        "\nReads with --stale work meanwhile; writes wait for a majority. Start the other \
         masters, or see `quorate status`."
    } else {
        "\nTry again in a moment; `quorate status` shows who leads."
    });
    let reason = if reached == 0 { "Unreachable" } else { "Unavailable" };
    let mut error = ClientError::new(Code::Unavailable, reason, message);
    error.tried = tried;
    error.leader = leader;
    error
}

fn none_of(total: usize) -> String {
    match total {
        1 => "the master has not".into(),
        n => format!("none of {n} masters"),
    }
}

#[cfg(test)]
#[path = "error_test.rs"]
mod tests;
