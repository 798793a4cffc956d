//! Patches.

use std::sync::Arc;

use json_patch::{Patch, PatchOperation};
use quorate_objects::{FieldError, Invalid, Kind, decode_with};
use serde_json::Value;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{PatchKind, Subresource, WriteOptions};
use crate::precondition::{self, MODIFIED};
use crate::registry::Registry;

/// Operations of one JSON patch, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the copies of one JSON patch may have together, as in Kubernetes: each may double
/// what is there.
const MAX_COPIED: usize = 3 << 20;
/// Levels of what a JSON patch makes. What is read has 128 at most, by the decoder's own limit.
const MAX_DEPTH: usize = 100;

impl Registry {
    /// Patches an object. `body` is JSON: an object, or for [`PatchKind::Json`] a list.
    /// A metadata.resourceVersion that it sets is a precondition.
    ///
    /// # Errors
    /// [`RegistryError::BadRequest`] when the body is no such patch, [`RegistryError::Invalid`]
    /// when it does not apply or its result is not valid, and those of [`Registry::update`].
    #[expect(clippy::too_many_arguments, reason = "they are what a PATCH request carries")]
    pub async fn patch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        patch_kind: PatchKind,
        body: &[u8],
        subresource: Subresource,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        let key = ObjectKey::new(kind, namespace, name);
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| RegistryError::BadRequest(format!("the patch is no JSON: {error}")))?;
        self.edit(&key, subresource, options, &mut |old| {
            let patched = apply(&key, patch_kind, &body, old.value())?;
            precondition::same_uid(&key, &patched, old)?;
            // What the patch has not set is the object's own.
            if precondition::revision(&key, &patched)?.is_some_and(|given| given != old.revision) {
                return Err(key.conflict(MODIFIED));
            }
            Ok(Some(decode_with(patched, kind, options.field_validation)?.into()))
        })
        .await
    }
}

/// Applies a patch to a value; `key` is for error messages.
///
/// # Errors
/// [`RegistryError::BadRequest`] when the body is no such patch, [`RegistryError::Invalid`] when
/// it does not apply.
pub fn apply(
    key: &ObjectKey,
    patch_kind: PatchKind,
    body: &Value,
    mut value: Value,
) -> Result<Value, RegistryError> {
    let bad = |message: String| RegistryError::BadRequest(message);
    match patch_kind {
        PatchKind::Json => {
            let patch: Patch = serde_json::from_value(body.clone())
                .map_err(|error| bad(format!("the body is no JSON patch: {error}")))?;
            if patch.len() > MAX_OPERATIONS {
                return Err(bad(format!(
                    "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                    patch.len()
                )));
            }
            operate(&mut value, &patch).map_err(|problem| {
                let message = format!("the JSON patch does not apply: {problem}");
                let error = FieldError::invalid("", body, message);
                RegistryError::from(Invalid::new(key.kind, &key.name, vec![error]))
            })?;
        }
        PatchKind::Merge | PatchKind::Strategic if !body.is_object() => {
            return Err(bad("a merge patch must be an object".into()));
        }
        PatchKind::Merge => json_patch::merge(&mut value, body),
        PatchKind::Strategic => {
            crate::strategic::merge(&mut value, body).map_err(bad)?;
        }
    }
    // Whoever goes on with it may take this for granted.
    if value.get("metadata").is_some_and(Value::is_object) {
        return Ok(value);
    }
    let error = FieldError::invalid("metadata", "", "the patch leaves no object with metadata");
    Err(Invalid::new(key.kind, &key.name, vec![error]).into())
}

/// Carries out a JSON patch, one operation at a time, within bounds.
fn operate(value: &mut Value, patch: &[PatchOperation]) -> Result<(), String> {
    let mut copied = 0;
    for (number, operation) in patch.iter().enumerate() {
        let source = match operation {
            PatchOperation::Add(one) => Some(&one.value),
            PatchOperation::Replace(one) => Some(&one.value),
            PatchOperation::Move(one) => value.pointer(one.from.as_str()),
            PatchOperation::Copy(one) => value.pointer(one.from.as_str()),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        let at = operation.path().as_str().matches('/').count();
        if source.is_some_and(|source| !fits(source, MAX_DEPTH.saturating_sub(at))) {
            return Err(format!("operation {number} nests deeper than {MAX_DEPTH} levels"));
        }
        if let (PatchOperation::Copy(_), Some(source)) = (operation, source) {
            copied += source.to_string().len();
            if copied > MAX_COPIED {
                return Err(format!("its copies are more than {MAX_COPIED} bytes"));
            }
        }
        json_patch::patch(value, std::slice::from_ref(operation))
            .map_err(|error| format!("operation {number} at {:?}: {}", error.path, error.kind))?;
    }
    Ok(())
}

/// Has it at most so many levels?
fn fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(map) => levels > 0 && map.values().all(|inner| fits(inner, levels - 1)),
        Value::Array(items) => levels > 0 && items.iter().all(|inner| fits(inner, levels - 1)),
        _ => true,
    }
}

#[cfg(test)]
#[path = "patch_test.rs"]
mod tests;
