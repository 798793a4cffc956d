//! Server-side apply: a manager says what it wants, and owns what it has said.
//!
//! ```text
//!  live object ─┐
//!  configuration ┼─ merge ─ prune what is applied no longer ─ decode ─ conflicts? ─ new owners
//!  managedFields ┘
//! ```
//!
//! `set.rs`, `shape.rs` and `merge.rs` are pure; `managed.rs` knows managedFields; this file
//! makes writes of it.

mod managed;
mod merge;
mod set;
mod shape;

use std::sync::Arc;

use quorate_objects::{Kind, decode_with};
use serde_json::{Value, json};

use crate::commit::now_text;
use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{Subresource, WriteOptions};
use crate::precondition;
use crate::registry::Registry;

pub use managed::ConflictCause;
pub(crate) use shape::list_rule;

use managed::{ApplyError, Writer};
use shape::Place;

/// Longest name of a field manager, in bytes.
const MANAGER_MAX: usize = 128;

/// How a configuration is applied.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// Who applies it; must not be empty.
    pub manager: String,
    /// Take over fields of other managers instead of failing.
    pub force: bool,
    /// As for every write; its `field_manager` is not looked at.
    pub write: WriteOptions,
}

/// What came of an apply.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object as it is now.
    pub object: Arc<Object>,
    /// Was it created?
    pub created: bool,
}

/// Where merging begins in objects of a kind: a custom one has a schema.
fn top(structure: Option<&Value>) -> Place<'_> {
    structure.map_or(Place::TOP, Place::CustomTop)
}

/// Checks the name of a field manager.
///
/// # Errors
/// [`RegistryError::BadRequest`]
pub fn check_manager(name: &str) -> Result<(), RegistryError> {
    if name.len() > MANAGER_MAX {
        let text = format!("fieldManager may not be more than {MANAGER_MAX} bytes");
        return Err(RegistryError::BadRequest(text));
    }
    if name.chars().any(char::is_control) {
        let text = "fieldManager should only contain printable characters";
        return Err(RegistryError::BadRequest(text.into()));
    }
    Ok(())
}

/// Records a plain write in `new`'s managedFields.
pub(crate) fn record(
    kind: &Kind,
    new: &mut Value,
    old: &Value,
    manager: &str,
    subresource: Subresource,
) {
    let (now, api_version, structure) = (now_text(), kind.api_version(), kind.structure());
    managed::record_update(
        new,
        old,
        &Writer {
            manager,
            apply: false,
            api_version: &api_version,
            subresource,
            has_status: kind.has_status,
            place: top(structure.as_deref()),
            now: &now,
        },
    );
}

impl Registry {
    /// Applies a configuration; creates the object when there is none.
    ///
    /// # Errors
    /// [`RegistryError::ApplyConflict`] when other managers own what would change;
    /// [`RegistryError::BadRequest`] when there is no manager or the configuration is another
    /// object's; and those of [`Registry::update`] and [`Registry::create`].
    pub async fn apply(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        applied: &Value,
        subresource: Subresource,
        options: &ApplyOptions,
    ) -> Result<Applied, RegistryError> {
        let key = ObjectKey::new(kind, namespace, name);
        let applied = check(&key, applied, options)?;
        // Names what is wrong in the user's own words; the merged object is checked again below.
        decode_with(applied.clone(), kind, options.write.field_validation)?;
        let given = precondition::revision(&key, &applied)?;
        let write = WriteOptions {
            revision: options.write.revision.or(given),
            field_manager: None,
            ..options.write.clone()
        };
        loop {
            let mut change = |live: &Object| {
                precondition::same_uid(&key, &applied, live)?;
                let merged = merged(&key, &live.value(), &applied, subresource, options)?;
                Ok(Some(merged.into()))
            };
            match self.edit(&key, subresource, &write, &mut change).await {
                Err(error) if error.is_not_found() && subresource == Subresource::Main => {}
                other => return Ok(Applied { object: other?, created: false }),
            }
            if write.revision.is_some() {
                let text = "cannot apply to a given resourceVersion: the object does not exist";
                return Err(key.conflict(text));
            }
            if let Some(uid) = precondition::uid(&applied) {
                return Err(key.conflict(format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing \
                     object was found"
                )));
            }
            let new = merged(&key, &Value::Null, &applied, subresource, options)?;
            match self.create(new, &write).await {
                // Somebody was faster: now there is something to apply to.
                Err(RegistryError::AlreadyExists { .. }) if !write.dry_run => {}
                other => return Ok(Applied { object: other?, created: true }),
            }
        }
    }
}

/// The configuration with its identity filled in, or why it cannot be applied.
fn check(key: &ObjectKey, applied: &Value, options: &ApplyOptions) -> Result<Value, RegistryError> {
    let bad = |text: String| Err(RegistryError::BadRequest(text));
    if options.manager.is_empty() {
        return bad("fieldManager is required for apply patch".into());
    }
    check_manager(&options.manager)?;
    let Some(map) = applied.as_object() else {
        return bad("the applied configuration must be an object".into());
    };
    let mut applied = Value::Object(map.clone());
    let meta = crate::prepare::metadata_mut(&mut applied);
    if meta.get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return bad("metadata.managedFields must be nil".into());
    }
    if !key.kind.namespaced {
        meta.remove("namespace");
    }
    for (field, want) in [("name", &key.name), ("namespace", &key.namespace)] {
        match meta.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(got) if got != want => {
                return bad(format!(
                    "the {field} of the object ({got}) does not match the {field} on the URL \
                     ({want})"
                ));
            }
            Some(_) => {}
            None if want.is_empty() => {}
            None => {
                meta.insert(field.to_owned(), want.as_str().into());
            }
        }
    }
    Ok(applied)
}

fn merged(
    key: &ObjectKey,
    live: &Value,
    applied: &Value,
    subresource: Subresource,
    options: &ApplyOptions,
) -> Result<Value, RegistryError> {
    let kind = key.kind;
    let (now, api_version, structure) = (now_text(), kind.api_version(), kind.structure());
    let writer = Writer {
        manager: &options.manager,
        apply: true,
        api_version: &api_version,
        subresource,
        has_status: kind.has_status,
        place: top(structure.as_deref()),
        now: &now,
    };
    let failed = |error: ApplyError| match error {
        ApplyError::Merge(error) => RegistryError::BadRequest(format!(
            "failed to create manager for existing fields: {error}"
        )),
        ApplyError::Conflicts(causes) => {
            RegistryError::ApplyConflict { message: managed::conflict_text(&causes), causes }
        }
    };
    let start = if live.is_null() { json!({}) } else { live.clone() };
    let applying = managed::begin(&start, applied, &writer).map_err(failed)?;
    let decoded =
        decode_with(applying.merged.clone(), kind, quorate_objects::FieldValidation::Ignore)?;
    applying.finish(&start, decoded, &writer, options.force).map_err(failed)
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
