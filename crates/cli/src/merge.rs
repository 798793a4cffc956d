//! Three-way merge for `apply`: what the user wrote last time, what the user writes now, and
//! what is there. The result is a patch that sets what the user says, removes what the user
//! said last time and says no longer, and leaves everything else (defaults, status, other
//! people's fields) alone.

use serde_json::{Map, Value, json};

/// The annotation that holds what the user wrote last time.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object with its own text as annotation: what is sent when `apply` creates.
#[must_use]
pub fn annotated(object: &Value) -> Value {
    let mut result = object.clone();
    if !result["metadata"]["annotations"].is_object() {
        result["metadata"]["annotations"] = json!({});
    }
    result["metadata"]["annotations"][LAST_APPLIED] = Value::String(last_applied_text(object));
    result
}

/// The text of an object for the annotation: compact JSON without the annotation itself.
fn last_applied_text(object: &Value) -> String {
    let mut plain = object.clone();
    if let Some(annotations) = plain["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    } else if let Some(metadata) = plain["metadata"].as_object_mut() {
        metadata.insert("annotations".into(), json!({}));
    }
    plain.to_string() + "\n"
}

/// A merge patch (RFC 7396) that brings `current` to what the user wants, or `None` when it is
/// there already.
#[must_use]
pub fn three_way(current: &Value, modified: &Value) -> Option<Value> {
    let original = original(current);
    let modified = annotated(modified);
    let mut patch = diff(original.as_ref(), &modified, current);
    // Which object it is, is not a change. Status is the cluster's to write.
    for key in ["apiVersion", "kind", "status"] {
        patch.remove(key);
    }
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in
            ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"]
        {
            metadata.remove(key);
        }
    }
    if patch.get("metadata").is_some_and(|m| m.as_object().is_some_and(Map::is_empty)) {
        patch.remove("metadata");
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn original(current: &Value) -> Option<Value> {
    let text = current["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(text).ok()
}

fn diff(original: Option<&Value>, modified: &Value, current: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    let Some(wanted) = modified.as_object() else { return patch };
    for (key, want) in wanted {
        let have = current.get(key).unwrap_or(&Value::Null);
        if want.is_null() {
            // A null in a manifest asks for the field's removal.
            if !have.is_null() {
                patch.insert(key.clone(), Value::Null);
            }
            continue;
        }
        if let Some(change) = change(original.and_then(|o| o.get(key)), want, have) {
            patch.insert(key.clone(), change);
        }
    }
    let before = original.and_then(Value::as_object);
    for key in before.into_iter().flat_map(Map::keys) {
        if !wanted.contains_key(key) && current.get(key).is_some_and(|have| !have.is_null()) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

/// What a merge patch must say so that `have` becomes `want`; `None`: nothing.
fn change(original: Option<&Value>, want: &Value, have: &Value) -> Option<Value> {
    match (want, have) {
        (Value::Object(_), Value::Object(_)) => {
            let inner = diff(original, want, have);
            (!inner.is_empty()).then_some(Value::Object(inner))
        }
        (Value::Array(wanted), Value::Array(existing)) => {
            let merged = merge_lists(original, wanted, existing);
            (&merged != existing).then_some(Value::Array(merged))
        }
        _ => (!same(want, have)).then(|| want.clone()),
    }
}

/// A merge patch replaces lists as a whole, so the list that it carries is the merged one:
/// items with the same key are merged, so that defaults inside them survive.
fn merge_lists(original: Option<&Value>, wanted: &[Value], existing: &[Value]) -> Vec<Value> {
    let before = original.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Some(key) = list_key(wanted, existing) else { return wanted.to_vec() };
    let with = |list: &[Value], id: &Value| list.iter().find(|item| &item[key] == id).cloned();
    let merge = |want: &Value| {
        let Some(mut have) = with(existing, &want[key]) else { return want.clone() };
        let patch = diff(with(before, &want[key]).as_ref(), want, &have);
        apply(&mut have, &Value::Object(patch));
        have
    };
    let mut merged: Vec<Value> = wanted.iter().map(merge).collect();
    // What others added stays; what the user wrote last time and not now goes.
    let foreign =
        |item: &&Value| with(wanted, &item[key]).is_none() && with(before, &item[key]).is_none();
    // Without a last time nobody knows whose an item is; then the user's list is the list.
    if !before.is_empty() {
        merged.extend(existing.iter().filter(foreign).cloned());
    }
    merged
}

/// The field that identifies items of both lists: unique and present in every item.
fn list_key(wanted: &[Value], existing: &[Value]) -> Option<&'static str> {
    let unique = |list: &[Value], key: &str| {
        let ids: Vec<&Value> = list.iter().filter_map(|item| item.get(key)).collect();
        ids.len() == list.len() && ids.iter().enumerate().all(|(i, id)| !ids[..i].contains(id))
    };
    ["name", "containerPort", "port", "mountPath", "ip", "uid", "topologyKey"]
        .into_iter()
        .find(|key| !wanted.is_empty() && unique(wanted, key) && unique(existing, key))
}

/// Applies a merge patch (RFC 7396).
pub fn apply(target: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            apply(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Equal, as far as the cluster's own normalisation goes: empty is absent, 1 is 1.0, and
/// quantities that mean the same are the same.
fn same(want: &Value, have: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if want == have || (empty(want) && empty(have)) {
        return true;
    }
    let quantity = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        quorate_objects::quantity::Quantity::parse(&text).ok().map(|q| q.millis())
    };
    // Only texts with a number in front can be quantities; names such as "1" versus "1.0" in
    // string fields would be equal too, which costs nothing but an update.
    match (quantity(want), quantity(have)) {
        (Some(a), Some(b)) => a == b && (want.is_number() || have.is_number()),
        _ => false,
    }
}

#[cfg(test)]
#[path = "merge_test.rs"]
mod tests;
