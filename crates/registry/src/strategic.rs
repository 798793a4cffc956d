//! Strategic merge patch: Kubernetes' merge that knows the keys of lists.
//!
//! Rules from Kubernetes' documentation of the patch format; which lists are merged by item is
//! in `apply/shape.rs`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListRule {
    /// Items with the same value of this field are the same item.
    ByKey(&'static str),
    /// A set of plain values.
    Set,
    /// Replaced as a whole.
    Atomic,
}

fn rule(parent: &str, field: &str) -> ListRule {
    match crate::apply::list_rule(parent, field).map(|rule| rule.strategic) {
        None => ListRule::Atomic,
        Some("") => ListRule::Set,
        Some(key) => ListRule::ByKey(key),
    }
}

/// Merges `patch` into `target`.
///
/// # Errors
/// What is wrong with the patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) -> Result<(), String> {
    let patch = patch.as_object().ok_or("a strategic merge patch must be an object")?;
    merge_object(target, patch, "")
}

fn directive(patch: &Map<String, Value>) -> Result<&str, String> {
    match patch.get("$patch") {
        None => Ok("merge"),
        Some(Value::String(text)) if ["merge", "replace", "delete"].contains(&text.as_str()) => {
            Ok(text)
        }
        Some(other) => Err(format!("unknown value of $patch: {other}")),
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn merge_object(target: &mut Value, patch: &Map<String, Value>, name: &str) -> Result<(), String> {
    match directive(patch)? {
        "replace" => {
            *target = Value::Object(without_directives(patch));
            return Ok(());
        }
        "delete" => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return Ok(()) };
    if let Some(Value::Array(keys)) = patch.get("$retainKeys") {
        map.retain(|key, _| keys.iter().any(|kept| kept == key));
    }
    for (key, list) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = list.as_array().ok_or_else(|| format!("{key} must be a list"))?;
            if let Some(Value::Array(values)) = map.get_mut(field) {
                let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
                values.retain(|value| !gone.contains(&value.to_string()));
            }
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(inner) if directive(inner)? == "delete" => {
                map.remove(key);
            }
            Value::Object(inner) => {
                merge_object(map.entry(key.clone()).or_insert(Value::Null), inner, key)?;
            }
            Value::Array(items) => {
                let entry = map.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(entry, items, rule(name, key), key)?;
            }
            plain => {
                map.insert(key.clone(), plain.clone());
            }
        }
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix("$setElementOrder/") {
            let order = order.as_array().ok_or_else(|| format!("{key} must be a list"))?;
            if let Some(Value::Array(items)) = map.get_mut(field) {
                reorder(items, order, rule(name, field));
            }
        }
    }
    Ok(())
}

fn merge_list(
    target: &mut Value,
    patch: &[Value],
    rule: ListRule,
    name: &str,
) -> Result<(), String> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(items) = target else { return Ok(()) };
    match rule {
        ListRule::Atomic => *items = patch.to_vec(),
        ListRule::Set => {
            let mut present: HashSet<String> = items.iter().map(Value::to_string).collect();
            let new = patch.iter().filter(|value| present.insert(value.to_string()));
            items.extend(new.cloned());
        }
        ListRule::ByKey(key) => {
            let replace = |item: &Value| item["$patch"] == "replace";
            if patch.iter().any(replace) {
                *items = patch.iter().filter(|item| !replace(item)).cloned().collect();
                return Ok(());
            }
            return merge_items(items, patch, key, name);
        }
    }
    Ok(())
}

fn merge_items(
    items: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    name: &str,
) -> Result<(), String> {
    let mut slots: Vec<Option<Value>> = items.drain(..).map(Some).collect();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, item) in slots.iter().enumerate() {
        if let Some(id) = item.as_ref().and_then(|item| item.get(key)) {
            places.entry(id.to_string()).or_default().push(place);
        }
    }
    for item in patch {
        let object = item.as_object().ok_or_else(|| format!("items of {name} must be objects"))?;
        let id = object
            .get(key)
            .ok_or_else(|| format!("an item of {name} has no {key}, which identifies it"))?;
        let known = places.entry(id.to_string()).or_default();
        if directive(object)? == "delete" {
            for place in known.drain(..) {
                slots[place] = None;
            }
            continue;
        }
        match known.first().and_then(|place| slots.get_mut(*place)) {
            Some(Some(item)) => merge_object(item, object, name)?,
            _ => {
                let mut item = Value::Object(Map::new());
                merge_object(&mut item, object, name)?;
                known.push(slots.len());
                slots.push(Some(item));
            }
        }
    }
    items.extend(slots.into_iter().flatten());
    Ok(())
}

/// Items in the order given; those that are not in it keep their place behind what was before
/// them.
fn reorder(items: &mut Vec<Value>, order: &[Value], rule: ListRule) {
    let id = |item: &Value| match rule {
        ListRule::ByKey(key) => item.get(key).map(Value::to_string),
        ListRule::Set | ListRule::Atomic => Some(item.to_string()),
    };
    let mut ranks = HashMap::new();
    for (rank, entry) in order.iter().enumerate() {
        ranks.entry(id(entry)).or_insert(rank);
    }
    let mut last = 0;
    let mut ranked: Vec<(usize, Value)> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        last = ranks.get(&id(&item)).copied().unwrap_or(last);
        ranked.push((last, item));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    items.extend(ranked.into_iter().map(|(_, item)| item));
}

#[cfg(test)]
#[path = "strategic_test.rs"]
mod tests;
