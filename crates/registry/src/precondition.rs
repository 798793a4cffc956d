//! What an object that is to be written says of the one in its place.

use quorate_objects::{FieldError, Invalid};
use serde_json::Value;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};

pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The revision that it was made of; `None`: it is to be written whatever is there.
pub(crate) fn revision(key: &ObjectKey, value: &Value) -> Result<Option<u64>, RegistryError> {
    match value["metadata"]["resourceVersion"].as_str().unwrap_or_default() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let error = FieldError::invalid("metadata.resourceVersion", text, "must be a number");
            Invalid::new(key.kind, &key.name, vec![error]).into()
        }),
    }
}

/// The uid of the object that is meant, if one in particular is.
pub(crate) fn uid(value: &Value) -> Option<&str> {
    value["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty())
}

/// A patch or a configuration that names the uid must not be meant for another object: one of
/// this name that is gone.
pub(crate) fn same_uid(key: &ObjectKey, value: &Value, old: &Object) -> Result<(), RegistryError> {
    match uid(value) {
        Some(uid) if uid != old.uid() => {
            let error = FieldError::invalid("metadata.uid", uid, "field is immutable");
            Err(Invalid::new(key.kind, &key.name, vec![error]).into())
        }
        _ => Ok(()),
    }
}

pub(crate) fn uid_mismatch(wanted: &str, found: &str) -> String {
    format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}")
}
