//! Errors as Kubernetes' `Status`.

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quorate_objects::kinds;
use quorate_objects::{FieldError, FieldErrorKind, Invalid};
use quorate_registry::{Code, RegistryError};
use serde_json::{Map, Value, json};

/// Seconds after which a client shall try again when no leader was there.
const RETRY_SECONDS: u32 = 1;

/// A request that failed, as the client is told.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub code: StatusCode,
    pub reason: Cow<'static, str>,
    pub message: String,
    /// `Status.details`, when there is any.
    pub details: Map<String, Value>,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(
        code: StatusCode,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: Map::new() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// What asks for something that is not served at all.
    pub fn no_resource() -> Self {
        let text = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", text)
    }

    pub fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text)
    }

    pub fn media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        tracing::error!(%message, "internal error");
        let text = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
    }

    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
            .retry_after(RETRY_SECONDS)
    }

    /// One wrong field of a request's options or of an object that is not stored.
    pub fn invalid(kind: &str, name: &str, error: FieldError) -> Self {
        invalid(&Invalid { kind: kind.to_owned(), name: name.to_owned(), errors: vec![error] })
    }

    /// `Status.details` names the object.
    pub fn about(mut self, resource: &str, name: &str) -> Self {
        let (kind, group) = resource.split_once('.').unwrap_or((resource, ""));
        for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                self.details.insert(field.into(), value.into());
            }
        }
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.insert("retryAfterSeconds".into(), seconds.into());
        self
    }

    pub fn cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let causes = self.details.entry("causes").or_insert_with(|| json!([]));
        if let Some(causes) = causes.as_array_mut() {
            causes.push(cause(reason, message, field));
        }
        self
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if !self.details.is_empty() {
            status["details"] = Value::Object(self.details.clone());
        }
        status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.code, self.status().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.details.get("retryAfterSeconds").and_then(Value::as_u64) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        let code = match error.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists | Code::Conflict => StatusCode::CONFLICT,
            Code::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Gone => StatusCode::GONE,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::OutcomeUnknown | Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::Internal => return Self::internal(text),
        };
        // Kubernetes has no word for a write whose fate is not known; its clients know Timeout.
        let reason = match error.code() {
            Code::OutcomeUnknown => "Timeout",
            _ => error.reason(),
        };
        let failure = Self::new(code, reason, text);
        match error {
            RegistryError::NotFound { resource, name }
            | RegistryError::AlreadyExists { resource, name }
            | RegistryError::Conflict { resource, name, .. } => failure.about(&resource, &name),
            RegistryError::ApplyConflict { causes, .. } => {
                causes.iter().fold(failure, |failure, one| {
                    failure.cause("FieldManagerConflict", &one.message, &one.field)
                })
            }
            RegistryError::Invalid(invalid) => self::invalid(&invalid),
            RegistryError::Unavailable { .. } => failure.retry_after(RETRY_SECONDS),
            RegistryError::TooManyRequests { message, cause, retry_after_seconds } => {
                let failure = Self { message, ..failure }.cause("DisruptionBudget", &cause, "");
                // Clients repeat by themselves what has a time, and `drain` when it has none.
                match retry_after_seconds {
                    0 => failure,
                    seconds => failure.retry_after(seconds),
                }
            }
            _ => failure,
        }
    }
}

fn cause(reason: &str, message: &str, field: &str) -> Value {
    json!({"reason": reason, "message": message, "field": field})
}

/// Is it the form of the object that is wrong, not what it says?
fn is_form(error: &FieldError) -> bool {
    use FieldErrorKind::{DuplicateField, UnknownField, WrongType};
    matches!(error.kind, UnknownField | DuplicateField | WrongType)
}

fn invalid(invalid: &Invalid) -> Failure {
    if invalid.errors.iter().all(is_form) {
        return malformed(invalid);
    }
    let (kind, group) = invalid.kind.split_once('.').unwrap_or((&invalid.kind, ""));
    let resource = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let code = StatusCode::UNPROCESSABLE_ENTITY;
    let failure =
        Failure::new(code, "Invalid", invalid.to_string()).about(&resource, &invalid.name);
    invalid.errors.iter().fold(failure, |failure, error| {
        failure.cause(cause_reason(error.kind), &error.description(), &error.path)
    })
}

/// In the words of a decoder that refuses.
fn malformed(invalid: &Invalid) -> Failure {
    let (kind, group) = invalid.kind.split_once('.').unwrap_or((&invalid.kind, ""));
    let known = kinds::find(|known| known.kind == kind && known.group == group);
    let api_version = known.map(|known| known.api_version()).unwrap_or_default();
    let head = format!("{kind} in version \"{api_version}\" cannot be handled as a {kind}");
    let strict: Vec<String> = invalid
        .errors
        .iter()
        .filter(|error| error.kind != FieldErrorKind::WrongType)
        .map(ToString::to_string)
        .collect();
    if strict.is_empty() {
        let texts: Vec<String> = invalid.errors.iter().map(ToString::to_string).collect();
        let text = texts.join(", ");
        return Failure::bad_request(format!("{head}: {text}"));
    }
    Failure::bad_request(format!("{head}: strict decoding error: {}", strict.join(", ")))
}

fn cause_reason(kind: FieldErrorKind) -> &'static str {
    match kind {
        FieldErrorKind::Required => "FieldValueRequired",
        FieldErrorKind::Invalid => "FieldValueInvalid",
        FieldErrorKind::NotSupported => "FieldValueNotSupported",
        FieldErrorKind::Forbidden | FieldErrorKind::UnknownField => "FieldValueForbidden",
        FieldErrorKind::Duplicate | FieldErrorKind::DuplicateField => "FieldValueDuplicate",
        FieldErrorKind::NotFound => "FieldValueNotFound",
        FieldErrorKind::TooLong => "FieldValueTooLong",
        FieldErrorKind::WrongType => "FieldValueTypeInvalid",
    }
}

#[cfg(test)]
#[path = "failure_test.rs"]
mod tests;
