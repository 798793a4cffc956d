//! What a kind does with its objects, over JSON.

use std::any::Any;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::{Decoded, ScalePaths, Typed};
use crate::custom::Custom;
use crate::error::{Errors, FieldError};

/// What a kind does with its objects.
pub(crate) enum Ops {
    /// Built in.
    Typed(TypedOps),
    /// Defined by a CustomResourceDefinition.
    Custom(Box<Custom>),
}

/// An object with its defaults, and what its kind's rules say against it.
pub(crate) type Checked = (Value, Vec<FieldError>);

/// A built-in kind's functions, over JSON. Made from its [`Typed`] implementation.
pub(crate) struct TypedOps {
    pub decode: fn(&Value) -> Result<Value, Vec<FieldError>>,
    pub complete: fn(&Value) -> Result<Value, Vec<FieldError>>,
    pub check_complete: fn(&Value) -> Result<Checked, Vec<FieldError>>,
    pub validate: fn(&Value) -> Vec<FieldError>,
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    pub row: fn(&Value, Timestamp) -> Vec<String>,
    pub parse: fn(&[u8]) -> Result<Decoded, serde_json::Error>,
    pub cells: fn(&(dyn Any + Send + Sync), Timestamp) -> Option<Vec<String>>,
    pub scale: Option<ScalePaths>,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Ops {
    pub(crate) const fn of<T: Typed>() -> Self {
        Self::Typed(TypedOps {
            decode: decode_json::<T>,
            complete: complete_json::<T>,
            check_complete: check_complete_json::<T>,
            validate: validate_json::<T>,
            validate_update: validate_update_json::<T>,
            row: row_json::<T>,
            parse: parse_json::<T>,
            cells: cells_of::<T>,
            scale: T::SCALE,
            schema: SchemaGenerator::subschema_for::<T>,
        })
    }
}

/// Decodes and encodes through JSON text: serde code for these large types is then compiled for
/// one deserializer and one serializer only, which halves this crate's build time.
fn typed<T: Typed>(value: &Value) -> Result<T, Vec<FieldError>> {
    let text = value.to_string();
    serde_json::from_slice(text.as_bytes())
        .map_err(|error| vec![crate::decode::type_error(&text, &error)])
}

fn untyped<T: Typed>(object: &T) -> Result<Value, Vec<FieldError>> {
    serde_json::to_vec(object)
        .and_then(|text| serde_json::from_slice(&text))
        .map_err(|error| vec![FieldError::invalid("", "", error.to_string())])
}

fn decode_json<T: Typed>(value: &Value) -> Result<Value, Vec<FieldError>> {
    untyped(&typed::<T>(value)?)
}

/// As the kind knows it, with defaults.
fn complete_json<T: Typed>(value: &Value) -> Result<Value, Vec<FieldError>> {
    let mut object: T = typed(value)?;
    object.set_defaults();
    untyped(&object)
}

/// The same, and what its rules say: without decoding it once more for them.
fn check_complete_json<T: Typed>(value: &Value) -> Result<Checked, Vec<FieldError>> {
    let mut object: T = typed(value)?;
    object.set_defaults();
    Ok((untyped(&object)?, wrong_in(&object)))
}

fn validate_json<T: Typed>(value: &Value) -> Vec<FieldError> {
    typed::<T>(value).map_or_else(|wrong| wrong, |object| wrong_in(&object))
}

fn wrong_in<T: Typed>(object: &T) -> Vec<FieldError> {
    let mut errors = Errors::default();
    crate::meta::validate(T::kind(), object.metadata(), &mut errors);
    object.validate(&mut errors);
    errors.0
}

fn validate_update_json<T: Typed>(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    match (typed::<T>(new), typed::<T>(old)) {
        (Ok(new), Ok(old)) => {
            crate::meta::validate(T::kind(), new.metadata(), &mut errors);
            crate::meta::validate_update(new.metadata(), old.metadata(), &mut errors);
            new.validate(&mut errors);
            new.validate_update(&old, &mut errors);
            errors.0
        }
        (Err(wrong), _) | (_, Err(wrong)) => wrong,
    }
}

fn row_json<T: Typed>(value: &Value, now: Timestamp) -> Vec<String> {
    match typed::<T>(value) {
        Ok(object) => object.cells(now),
        Err(_) => vec!["<unknown>".into(); T::kind().columns.len()],
    }
}

fn parse_json<T: Typed>(json: &[u8]) -> Result<Decoded, serde_json::Error> {
    Ok(Arc::new(T::from_json(json)?))
}

fn cells_of<T: Typed>(object: &(dyn Any + Send + Sync), now: Timestamp) -> Option<Vec<String>> {
    object.downcast_ref::<T>().map(|object| object.cells(now))
}
