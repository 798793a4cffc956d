//! Strict decoding: unknown and wrong fields are errors that say where they are.

use serde_json::Value;

use crate::error::{FieldError, FieldErrorKind, Invalid};
use crate::kind::{Kind, Typed, name_of};

/// What unknown fields cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// An error that names each.
    #[default]
    Strict,
    /// They are dropped.
    Ignore,
}

/// Decodes strictly: the object as its kind knows it, without nulls and empty lists.
///
/// # Errors
/// Names every unknown field, or the first field of a wrong type.
pub fn decode(value: Value, kind: &Kind) -> Result<Value, Invalid> {
    decode_with(value, kind, FieldValidation::Strict)
}

/// Decodes as [`decode`] does, dropping unknown fields when told so.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(
    value: Value,
    kind: &Kind,
    validation: FieldValidation,
) -> Result<Value, Invalid> {
    let name = name_of(&value).to_owned();
    let errors = identity(&value, kind);
    if !errors.is_empty() {
        return Err(Invalid::new(kind, &name, errors));
    }
    (kind.ops.decode)(value, validation).map_err(|errors| Invalid::new(kind, &name, errors))
}

/// k8s-openapi takes a missing kind or apiVersion silently.
fn identity(value: &Value, kind: &Kind) -> Vec<FieldError> {
    let api_version = kind.api_version();
    let mut errors = Vec::new();
    if !value.is_object() {
        errors.push(FieldError::invalid("", value, "must be an object"));
        return errors;
    }
    for (field, want) in [("apiVersion", api_version.as_str()), ("kind", kind.kind)] {
        match value.get(field).and_then(Value::as_str) {
            None => errors.push(FieldError::required(field, "")),
            Some(got) if got != want => {
                errors.push(FieldError::invalid(field, got, format!("must be \"{want}\"")));
            }
            Some(_) => {}
        }
    }
    errors
}

pub(crate) fn strict<T: Typed>(
    value: Value,
    validation: FieldValidation,
) -> Result<Value, Vec<FieldError>> {
    let mut unknown = Vec::new();
    let mut record = |path: serde_ignored::Path<'_>| {
        let path = join_path(&path.to_string());
        unknown.push(FieldError::new(FieldErrorKind::UnknownField, path, None, ""));
    };
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let object: Result<T, _> = serde_ignored::deserialize(deserializer, &mut record);
    let object = object.map_err(|error| {
        vec![type_error(&serde_path_to_error::Error::new(track.path(), error))]
    })?;
    if validation == FieldValidation::Strict && !unknown.is_empty() {
        return Err(unknown);
    }
    serde_json::to_value(&object)
        .map_err(|error| vec![FieldError::invalid("", "", error.to_string())])
}

/// `spec.containers.0.image` and `metadata.?.name` become `spec.containers[0].image` and
/// `metadata.name`.
fn join_path(path: &str) -> String {
    let mut joined = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            joined.push_str(&format!("[{part}]"));
            continue;
        }
        if !joined.is_empty() {
            joined.push('.');
        }
        joined.push_str(part);
    }
    joined
}

pub(crate) fn type_error(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let path = join_path(&error.path().to_string().replace('[', ".").replace(']', ""));
    FieldError::new(FieldErrorKind::WrongType, path, None, error.inner().to_string())
}
