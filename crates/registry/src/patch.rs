//! Patches.

use std::sync::Arc;

use quorate_objects::{FieldError, Invalid, Kind, decode_with};
use serde_json::Value;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{PatchKind, Subresource, WriteOptions};
use crate::registry::Registry;

impl Registry {
    /// Patches an object. `body` is JSON: an object, or for [`PatchKind::Json`] a list.
    /// A metadata.resourceVersion in a merge patch is a precondition.
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
        let asked = kind;
        let kind = crate::write::stored_kind(kind);
        let key = ObjectKey::new(kind, namespace, name);
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| RegistryError::BadRequest(format!("the patch is no JSON: {error}")))?;
        let given = body["metadata"]["resourceVersion"].as_str();
        let given = given.and_then(|revision| revision.parse().ok());
        let options = WriteOptions { revision: options.revision.or(given), ..options.clone() };
        self.edit(&key, subresource, &options, &mut |old| {
            let patched = apply(&key, patch_kind, &body, old.value())?;
            let (kind, patched) = crate::write::in_storage(asked, patched);
            Ok(Some(decode_with(patched, kind, options.field_validation)?))
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
            let patch: json_patch::Patch = serde_json::from_value(body.clone())
                .map_err(|error| bad(format!("the body is no JSON patch: {error}")))?;
            json_patch::patch(&mut value, &patch).map_err(|error| {
                let message = format!("the JSON patch does not apply: {error}");
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
    Ok(value)
}
