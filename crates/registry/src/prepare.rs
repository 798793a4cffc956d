//! What the system adds to objects before they are written, and takes from what is there.

use quorate_objects::{FieldError, Invalid, Kind, kinds};
use serde_json::{Map, Value};

use crate::commit::now_text;
use crate::error::RegistryError;
use crate::options::Subresource;

/// Sets what the system sets; returns the prefix when a name is to be generated.
pub(crate) fn prepare_create(kind: &Kind, value: &mut Value) -> Option<String> {
    if kind.has_status
        && let Some(object) = value.as_object_mut()
    {
        object.remove("status");
    }
    let meta = metadata_mut(value);
    if !kind.namespaced {
        // Charts give one to all of their objects.
        meta.remove("namespace");
    }
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"]
    {
        meta.remove(field);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), now_text().into());
    meta.insert("generation".into(), 1.into());
    let named = meta.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let prefix = meta.get("generateName").and_then(Value::as_str).map(str::to_owned);
    // So that the rest fits into a label.
    prefix.filter(|_| !named).map(|prefix| prefix.chars().take(58).collect())
}

/// `new` with what may not change taken from `old`, checked; `None` when nothing is different.
pub(crate) fn prepare_update(
    kind: &'static Kind,
    mut new: Value,
    mut old: Value,
    subresource: Subresource,
    manager: Option<&str>,
) -> Result<Option<Value>, RegistryError> {
    let part = matches!(subresource, Subresource::Status | Subresource::Bind);
    if part && !kind.is_custom() && manager.is_none() && new["metadata"]["managedFields"].is_null()
    {
        // The cluster's own writes of these change so little, and are so many, that the rest is
        // neither copied nor compared.
        return Ok(take_part(&mut old, &mut new, subresource).then_some(old));
    }
    let managed = managed_fields(&new, &old);
    match subresource {
        Subresource::Status | Subresource::Bind => {
            let mut whole = old.clone();
            take_part(&mut whole, &mut new, subresource);
            new = whole;
        }
        Subresource::EphemeralContainers => {
            new = add_ephemeral(kind, &new, &old)?;
            kind.default(&mut new)?;
        }
        Subresource::Finalize => {
            let finalizers = new["spec"]["finalizers"].take();
            new = old.clone();
            new["spec"]["finalizers"] = finalizers;
        }
        Subresource::Main => {
            if kind.has_status {
                set_or_remove(&mut new, "status", old.get("status").cloned());
            }
            keep_metadata(&mut new, &old);
            kind.default(&mut new)?;
            if kind == &kinds::NAMESPACE {
                // They are changed by `finalize` only.
                new["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
            }
            crate::alloc::keep(kind, &mut new, &old);
        }
    }
    if let Some(meta) = new.get_mut("metadata") {
        set_or_remove(meta, "managedFields", managed);
    }
    if let Some(manager) = manager {
        crate::apply::record(kind, &mut new, &old, manager, subresource);
    }
    let old_meta = &old["metadata"];
    let generation = old_meta["generation"].as_i64().unwrap_or(1);
    let changed = content(kind, &new) != content(kind, &old);
    let bump = i64::from(subresource == Subresource::Main && changed);
    let meta = metadata_mut(&mut new);
    meta.insert("generation".into(), (generation + bump).into());
    meta.insert("resourceVersion".into(), old_meta["resourceVersion"].clone());
    if new == old {
        return Ok(None);
    }
    match subresource {
        Subresource::Main => kind.validate_update(&new, &old)?,
        // To the rules of updates the whole change would be forbidden.
        Subresource::EphemeralContainers => kind.validate(&new)?,
        // Typed ones were checked when they were decoded, custom ones only their schema can check.
        Subresource::Status if kind.is_custom() => kind.validate(&new)?,
        Subresource::Status | Subresource::Finalize | Subresource::Bind => {}
    }
    Ok(Some(new))
}

/// Moves what a write of the status or of the node is about from `new` to `old`. Says whether
/// that changes anything.
fn take_part(old: &mut Value, new: &mut Value, subresource: Subresource) -> bool {
    let mut changed = take_over(old, "status", new);
    if subresource == Subresource::Bind {
        changed |= take_over(&mut old["spec"], "nodeName", &mut new["spec"]);
    }
    changed
}

/// Moves a field of `from` to the place of that of `to`. Says whether that changes anything.
fn take_over(to: &mut Value, field: &str, from: &mut Value) -> bool {
    let content = from.as_object_mut().and_then(|from| from.remove(field));
    if to.get(field) == content.as_ref() {
        return false;
    }
    set_or_remove(to, field, content);
    true
}

/// `old` with the containers for debugging of `new`: those that are there stay as they are.
fn add_ephemeral(kind: &Kind, new: &Value, old: &Value) -> Result<Value, RegistryError> {
    const FIELD: &str = "ephemeralContainers";
    let list = |value: &Value| value["spec"][FIELD].as_array().cloned().unwrap_or_default();
    let wanted = list(new);
    if !list(old).iter().all(|one| wanted.contains(one)) {
        let text = "existing ephemeral containers may not be changed or removed";
        let error = FieldError::forbidden(format!("spec.{FIELD}"), text);
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Invalid::new(kind, name, vec![error]).into());
    }
    let mut value = old.clone();
    value["spec"][FIELD] = wanted.into();
    Ok(value)
}

/// What counts for the generation: the spec, or of custom kinds everything but the metadata and
/// a status that is a subresource.
fn content<'a>(kind: &Kind, value: &'a Value) -> Vec<(&'a String, &'a Value)> {
    let counts = |field: &str| match field {
        "apiVersion" | "kind" | "metadata" => false,
        "spec" => true,
        "status" => kind.is_custom() && !kind.has_status,
        _ => kind.is_custom(),
    };
    value.as_object().into_iter().flatten().filter(|(field, _)| counts(field)).collect()
}

/// Who owns what after a write: what the writer says of it (clients that move from one way of
/// applying to another do), or what it was. One empty entry means that all is to be forgotten.
fn managed_fields(new: &Value, old: &Value) -> Option<Value> {
    let given = &new["metadata"]["managedFields"];
    match given.as_array().map(Vec::as_slice) {
        None | Some([]) => old["metadata"].get("managedFields").cloned(),
        Some([one]) if one.get("fieldsV1").is_none() => None,
        Some(_) => Some(given.clone()),
    }
}

/// The system's fields of the metadata cannot be written by users.
fn keep_metadata(new: &mut Value, old: &Value) {
    let meta = metadata_mut(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        match old["metadata"].get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
}

pub(crate) fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value["metadata"].is_object() {
        value["metadata"] = Value::Object(Map::new());
    }
    match &mut value["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object two lines above"),
    }
}

fn set_or_remove(value: &mut Value, field: &str, content: Option<Value>) {
    if let Some(object) = value.as_object_mut() {
        match content {
            Some(content) => object.insert(field.into(), content),
            None => object.remove(field),
        };
    }
}
