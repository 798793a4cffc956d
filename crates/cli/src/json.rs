//! Short reads from objects' JSON.

use serde_json::Value;

/// The text at a JSON pointer; "" when it is missing or no text.
#[must_use]
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer; 0 when it is missing or none.
#[must_use]
pub fn int(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a JSON pointer; empty when it is missing or none.
#[must_use]
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The pairs of the map at a JSON pointer, as `key<separator>value`, sorted.
#[must_use]
pub fn pairs(value: &Value, pointer: &str, separator: &str) -> Vec<String> {
    let Some(map) = value.pointer(pointer).and_then(Value::as_object) else { return Vec::new() };
    let mut all: Vec<String> =
        map.iter().map(|(k, v)| format!("{k}{separator}{}", plain(v))).collect();
    all.sort();
    all
}

/// A scalar without quotes, anything else as JSON.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `metadata.name`
#[must_use]
pub fn name(value: &Value) -> &str {
    text(value, "/metadata/name")
}

/// `metadata.namespace`
#[must_use]
pub fn namespace(value: &Value) -> &str {
    text(value, "/metadata/namespace")
}

/// Is the condition of this type `True`?
#[must_use]
pub fn condition(value: &Value, condition_type: &str) -> bool {
    list(value, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == condition_type && text(c, "/status") == "True")
}
