//! Errors as gRPC statuses with google.rpc details.

use std::collections::HashMap;

use quorate_registry::{Code as RegistryCode, RegistryError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of every error of ours.
pub const DOMAIN: &str = "quorate.dev";

/// The status that tells a client what the registry says.
#[must_use]
pub fn registry_status(error: RegistryError) -> Status {
    let code = match error.code() {
        RegistryCode::NotFound => Code::NotFound,
        RegistryCode::AlreadyExists => Code::AlreadyExists,
        RegistryCode::Conflict => Code::Aborted,
        RegistryCode::Invalid | RegistryCode::BadRequest => Code::InvalidArgument,
        RegistryCode::Gone => Code::OutOfRange,
        RegistryCode::TooLarge | RegistryCode::TooManyRequests => Code::ResourceExhausted,
        RegistryCode::Forbidden => Code::PermissionDenied,
        RegistryCode::Unavailable => Code::Unavailable,
        RegistryCode::OutcomeUnknown => Code::Unknown,
        RegistryCode::Timeout => Code::DeadlineExceeded,
        RegistryCode::Internal => Code::Internal,
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason(), DOMAIN, metadata(error.leader()));
    for field in error.fields() {
        details.add_bad_request_violation(&field.path, field.description());
    }
    if code == Code::Internal {
        tracing::error!(%error, "internal error");
    }
    Status::with_error_details(code, error.to_string(), details)
}

fn metadata(leader: Option<&str>) -> HashMap<String, String> {
    leader.map(|url| ("leader".to_owned(), url.to_owned())).into_iter().collect()
}

/// A status that this crate makes up itself.
pub(crate) fn status(code: Code, reason: &str, text: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, text, details)
}

pub(crate) fn bad_request(text: impl Into<String>) -> Status {
    status(Code::InvalidArgument, "BadRequest", text)
}

pub(crate) fn unavailable(text: impl Into<String>) -> Status {
    status(Code::Unavailable, "ServiceUnavailable", text)
}

/// A bug; the text goes to the log too.
#[must_use]
pub fn internal(text: impl std::fmt::Display) -> Status {
    tracing::error!(%text, "internal error");
    status(Code::Internal, "InternalError", text.to_string())
}

#[cfg(test)]
#[path = "error_test.rs"]
mod tests;
