//! Strict decoding: unknown and wrong fields are errors that say where they are.

use serde_json::Value;

use crate::error::{FieldError, FieldErrorKind, Invalid};
use crate::kind::{Kind, name_of};

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
    let invalid = |errors| Invalid::new(kind, name_of(&value), errors);
    let errors = identity(&value, kind);
    if !errors.is_empty() {
        return Err(invalid(errors));
    }
    let known = kind.known(&value).map_err(invalid)?;
    let mut errors = Vec::new();
    if validation == FieldValidation::Strict && !covers(&known, &value) {
        unknown_fields(&value, &known, "", &mut errors);
    }
    if errors.is_empty() { Ok(known) } else { Err(invalid(errors)) }
}

/// [`decode_with`] and [`Kind::default`] in one step, with the verdict of [`Kind::validate`] on the
/// result.
///
/// # Errors
/// As [`decode`].
pub fn decode_complete(
    value: Value,
    kind: &Kind,
    validation: FieldValidation,
) -> Result<(Value, Result<(), Invalid>), Invalid> {
    let invalid = |errors| Invalid::new(kind, name_of(&value), errors);
    let errors = identity(&value, kind);
    if !errors.is_empty() {
        return Err(invalid(errors));
    }
    let (complete, errors) = kind.check_complete(&value).map_err(invalid)?;
    if validation == FieldValidation::Strict && !covers(&complete, &value) {
        // Something is not known, or was moved by the defaults.
        decode_with(value, kind, validation)?;
    }
    let verdict = kind.verdict(&complete, errors);
    Ok((complete, verdict))
}

/// Has `known` everything that `given` has? [`unknown_fields`] then finds nothing.
fn covers(known: &Value, given: &Value) -> bool {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().all(|(key, value)| {
            known.get(key).map_or(value.is_null(), |known| covers(known, value))
        }),
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).all(|(given, known)| covers(known, given))
        }
        _ => true,
    }
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

/// What `given` has and `known` has not. Types of k8s-openapi write every field that is set, so
/// what does not come back was not understood.
fn unknown_fields(given: &Value, known: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => unknown_fields(value, known, &path, errors),
                    None if value.is_null() => {}
                    None => {
                        let kind = FieldErrorKind::UnknownField;
                        errors.push(FieldError::new(kind, path, None, ""));
                    }
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown_fields(given, known, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

/// An error of serde_json about `text` (one line), with the path of the wrong field.
pub(crate) fn type_error(text: &str, error: &serde_json::Error) -> FieldError {
    let (path, value) = position(text, error.column());
    let message = error.to_string();
    // "… at line 1 column 17" says nothing to the user, whose text was another one.
    let message = message.split(" at line ").next().unwrap_or_default();
    FieldError::new(FieldErrorKind::WrongType, path, value, message)
}

/// Path and text of the value that ends, or goes on, at `column` (from 1).
fn position(text: &str, column: usize) -> (String, Option<String>) {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return (String::new(), None) };
    let mut found = (String::new(), None);
    walk(&value, "", 0, column, &mut found);
    found
}

/// Walks the compact text of `value`, which starts at `start`, and returns where it ends. The
/// last value that does not start after `column` is the one looked for: serde_json stops before a
/// list or an object that it does not want, but behind a scalar.
fn walk(
    value: &Value,
    path: &str,
    start: usize,
    column: usize,
    found: &mut (String, Option<String>),
) -> usize {
    if start > column {
        return start;
    }
    let scalar = !value.is_object() && !value.is_array();
    *found = (path.to_owned(), scalar.then(|| value.to_string()));
    let mut at = start + 1;
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                // "key":value,
                at += Value::from(key.as_str()).to_string().len() + 1;
                at = walk(value, &inner, at, column, found) + 1;
                if at > column {
                    break;
                }
            }
            at.max(start + 2)
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                at = walk(value, &format!("{path}[{index}]"), at, column, found) + 1;
                if at > column {
                    break;
                }
            }
            at.max(start + 2)
        }
        scalar => start + scalar.to_string().len(),
    }
}
