//! Bodies of requests: bounded, and decoded by their media type.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use quorate_objects::manifest;
use quorate_proto::kubernetes::{self, MEDIA_TYPE as PROTOBUF};
use serde_json::{Map, Value};

use super::accept::MediaType;
use super::failure::{Failure, Result};
use super::query::Validation;
use crate::limits::MAX_REQUEST_BYTES;

/// Reads the body.
///
/// # Errors
/// 413 when it is too large, 400 when the client has gone away in the middle of it.
pub(crate) async fn read(body: Body) -> Result<Bytes> {
    axum::body::to_bytes(body, MAX_REQUEST_BYTES).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(inner) = source {
            if inner.is::<http_body_util::LengthLimitError>() {
                let text = format!("Request entity too large: limit is {MAX_REQUEST_BYTES} bytes");
                let code = StatusCode::PAYLOAD_TOO_LARGE;
                return Failure::new(code, "RequestEntityTooLarge", text);
            }
            source = inner.source();
        }
        Failure::bad_request(format!("the body could not be read: {error}"))
    })
}

/// The media type of a body without its parameters; `""` when none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    MediaType::parse(text.unwrap_or_default()).essence
}

/// Decodes a body that holds one object.
///
/// # Errors
/// 415 for media types that are not known, 400 for what is not of the media type.
pub(crate) fn decode(media_type: &str, body: &[u8], validation: Validation) -> Result<Value> {
    let strict = validation == Validation::Strict;
    let value = match media_type {
        // The Python client says nothing.
        "" | "application/json" if strict => manifest::parse_json(body).map_err(broken)?,
        "" | "application/json" => serde_json::from_slice(body).map_err(broken)?,
        "application/yaml" => manifest::parse_yaml(body).map_err(broken)?,
        PROTOBUF => kubernetes::decode(body).map_err(broken)?,
        other => {
            return Err(Failure::media_type(format!(
                "the body of the request was in an unknown format {other:?} - accepted media \
                 types include: application/json, application/yaml, {PROTOBUF}"
            )));
        }
    };
    if !value.is_object() {
        return Err(Failure::bad_request("the body is no object"));
    }
    Ok(value)
}

/// Decodes a body that may be empty: an object without fields then.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_optional(media_type: &str, body: &[u8]) -> Result<Value> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    decode(media_type, body, Validation::Ignore)
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::bad_request(format!("the object provided is unrecognized: {error}"))
}
