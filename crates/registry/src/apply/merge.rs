//! The pure core: which fields a configuration has, merging, comparing, removing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{Element, FieldSet};
use super::shape::{Place, Shape, element};

/// An applied configuration that cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub(crate) struct MergeError {
    pub path: String,
    pub problem: String,
}

/// The fields of a configuration: its leaves, empty objects and lists, and items of lists.
///
/// # Errors
/// When an item has no key, or two have the same.
pub(crate) fn fields_of(value: &Value, place: Place<'_>) -> Result<FieldSet, MergeError> {
    fields_at(value, place, "")
}

fn fields_at(value: &Value, place: Place<'_>, path: &str) -> Result<FieldSet, MergeError> {
    let shape = place.shape(value);
    match (value, &shape) {
        (Value::Object(map), Shape::Granular) if !map.is_empty() => {
            let mut set = FieldSet::default();
            for (name, value) in map {
                let below = fields_at(value, place.child(name), &format!("{path}.{name}"))?;
                set.insert(Element::field(name), below);
            }
            Ok(set)
        }
        (Value::Array(items), Shape::Set | Shape::Keys(_)) if !items.is_empty() => {
            let mut set = FieldSet::default();
            let mut seen = BTreeSet::new();
            for item in items {
                let wrong = |problem: String| MergeError { path: path.to_owned(), problem };
                let element = element(&shape, item).map_err(wrong)?;
                if !seen.insert(element.clone()) {
                    let name =
                        FieldSet { own: false, children: [(element, FieldSet::leaf())].into() };
                    let name = name.paths().concat();
                    return Err(wrong(format!("duplicate entries for key {name}")));
                }
                let mut below = match shape {
                    Shape::Keys(_) => fields_at(item, place.item(), &format!("{path}[]"))?,
                    _ => FieldSet::default(),
                };
                below.own = true;
                set.insert(element, below);
            }
            Ok(set)
        }
        _ => Ok(FieldSet::leaf()),
    }
}

/// `applied` over `live`.
pub(crate) fn merge(live: &Value, applied: &Value, place: Place<'_>) -> Value {
    let shape = place.shape(applied);
    match (live, applied, &shape) {
        (Value::Object(old), Value::Object(new), Shape::Granular) => {
            let mut out = old.clone();
            for (name, value) in new {
                let merged = match old.get(name) {
                    Some(old) => merge(old, value, place.child(name)),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(old), Value::Array(new), Shape::Set | Shape::Keys(_)) => {
            Value::Array(merge_lists(old, new, place, &shape))
        }
        _ => applied.clone(),
    }
}

/// Items in the order of the applied list, as structured-merge-diff (`typed/merge.go`) orders them:
/// what is only in the live list comes where the walk through it to the next applied item meets it,
/// and items of both that are met too early wait for their turn in the applied list.
fn merge_lists(old: &[Value], new: &[Value], place: Place<'_>, shape: &Shape) -> Vec<Value> {
    // An item without a key is an error that `fields_of` has reported; here it is only itself.
    let name = |item: &Value| element(shape, item).unwrap_or(Element::Item(item.to_string()));
    let applied: Vec<Element> = new.iter().map(name).collect();
    let live: BTreeMap<Element, &Value> = old.iter().map(|item| (name(item), item)).collect();
    let wanted: BTreeSet<&Element> = applied.iter().collect();
    let mut shared = applied.iter().filter(|id| live.contains_key(*id)).peekable();
    let mut rest = old.iter().peekable();
    let mut out = Vec::with_capacity(old.len() + new.len());
    for (item, id) in new.iter().zip(&applied) {
        while let Some(other) = rest.peek() {
            let other_id = name(other);
            if !wanted.contains(&other_id) {
                out.push((*other).clone());
            } else if shared.peek() == Some(&&other_id) && other_id != *id {
                // `item` is new, and comes before the one that is both here and there.
                break;
            }
            rest.next();
            if other_id == *id {
                break;
            }
        }
        shared.next_if_eq(&id);
        match live.get(id) {
            Some(live) if *shape != Shape::Set => out.push(merge(live, item, place.item())),
            _ => out.push(item.clone()),
        }
    }
    out.extend(rest.filter(|other| !wanted.contains(&name(other))).cloned());
    out
}

/// What differs between two states of an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Fields that are new or have another value.
    pub changed: FieldSet,
    /// Fields that are gone.
    pub removed: FieldSet,
}

/// Compares; both are states of one object.
pub(crate) fn compare(old: &Value, new: &Value, place: Place<'_>) -> Difference {
    let mut out = Difference::default();
    if old == new {
        return out;
    }
    let all = |value: &Value| fields_of(value, place).unwrap_or_else(|_| FieldSet::leaf());
    let shape = place.shape(new);
    match (old, new, &shape) {
        // Also when one of them is empty: whoever owns an empty list or object keeps it when others
        // put something in (structured-merge-diff, `typed/compare.go`).
        (Value::Object(before), Value::Object(after), Shape::Granular) => {
            compare_maps(before, after, place, &mut out);
        }
        (Value::Array(before), Value::Array(after), Shape::Set | Shape::Keys(_)) => {
            if !compare_lists(before, after, place, &shape, &mut out) {
                out.changed = FieldSet::leaf();
            }
        }
        _ => {
            out.changed = all(new);
            out.removed = all(old).difference(&out.changed);
        }
    }
    out
}

fn compare_maps(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    place: Place<'_>,
    out: &mut Difference,
) {
    for (name, value) in after {
        let below = match before.get(name) {
            Some(old) => compare(old, value, place.child(name)),
            None => Difference {
                changed: fields_of(value, place.child(name)).unwrap_or_else(|_| FieldSet::leaf()),
                removed: FieldSet::default(),
            },
        };
        out.changed.insert(Element::field(name), below.changed);
        out.removed.insert(Element::field(name), below.removed);
    }
    for (name, value) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
        let mut gone = fields_of(value, place.child(name)).unwrap_or_else(|_| FieldSet::leaf());
        gone.own = true;
        out.removed.insert(Element::field(name), gone);
    }
}

/// False when items cannot be told apart.
fn compare_lists(
    before: &[Value],
    after: &[Value],
    place: Place<'_>,
    shape: &Shape,
    out: &mut Difference,
) -> bool {
    let named = |items: &[Value]| -> Option<Vec<(Element, Value)>> {
        let named = items.iter().map(|item| Some((element(shape, item).ok()?, item.clone())));
        let named: Vec<_> = named.collect::<Option<_>>()?;
        let distinct: BTreeSet<&Element> = named.iter().map(|(element, _)| element).collect();
        (distinct.len() == named.len()).then_some(named)
    };
    let (Some(before), Some(after)) = (named(before), named(after)) else { return false };
    let item_fields = |item: &Value| {
        let mut set = match shape {
            Shape::Keys(_) => fields_of(item, place.item()).unwrap_or_else(|_| FieldSet::leaf()),
            _ => FieldSet::default(),
        };
        set.own = true;
        set
    };
    let new: BTreeSet<&Element> = after.iter().map(|(element, _)| element).collect();
    let old: BTreeMap<&Element, &Value> = before.iter().map(|(id, item)| (id, item)).collect();
    for (element, item) in &after {
        match old.get(element) {
            Some(old) => {
                let below = compare(old, item, place.item());
                out.changed.insert(element.clone(), below.changed);
                out.removed.insert(element.clone(), below.removed);
            }
            None => out.changed.insert(element.clone(), item_fields(item)),
        }
    }
    for (element, item) in &before {
        if !new.contains(element) {
            out.removed.insert(element.clone(), item_fields(item));
        }
    }
    true
}

/// Removes the fields `gone`, but for those that are in `kept` or have something of it in them.
/// Objects and lists that become empty by it go too.
pub(crate) fn prune(value: &mut Value, gone: &FieldSet, kept: &FieldSet, place: Place<'_>) {
    let none = FieldSet::default();
    let shape = place.shape(value);
    match value {
        Value::Object(map) => {
            for (element, below) in &gone.children {
                let Element::Field(name) = element else { continue };
                let Some(inner) = map.get_mut(name) else { continue };
                let theirs = kept.children.get(element).unwrap_or(&none);
                if below.own && theirs.is_empty() {
                    map.remove(name);
                } else if !below.children.is_empty() {
                    prune(inner, below, theirs, place.child(name));
                    if is_empty(inner) && !theirs.own {
                        map.remove(name);
                    }
                }
            }
        }
        Value::Array(items) => {
            items.retain_mut(|item| {
                let Ok(id) = element(&shape, item) else { return true };
                let Some(below) = gone.children.get(&id) else { return true };
                let theirs = kept.children.get(&id).unwrap_or(&none);
                if below.own && theirs.is_empty() {
                    return false;
                }
                if let Shape::Keys(keys) = &shape {
                    // An item that stays keeps what it is known by.
                    let mut below = below.clone();
                    for key in keys {
                        below.children.remove(&Element::field(&key.name));
                    }
                    prune(item, &below, theirs, place.item());
                }
                true
            });
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
