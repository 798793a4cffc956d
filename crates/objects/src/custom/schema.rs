//! Structural schemas of custom kinds: pruning, defaults, validation.
//!
//! A schema is kept as the JSON that the CustomResourceDefinition holds. Messages are those of
//! Kubernetes' validator. Rules in CEL (`x-kubernetes-validations`) are not evaluated.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Value};

use super::structural;
use crate::error::{Errors, FieldError, FieldErrorKind};

/// Schemas within schemas that are looked at; deeper ones are refused with their definition.
pub(super) const MAX_DEPTH: usize = 64;

/// What is checked of every object before its schema is asked.
const HEAD: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The schema of one version of a custom kind, ready for use.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub root: Arc<Value>,
    /// By its text; a pattern that cannot be compiled is refused with the definition.
    patterns: HashMap<String, Regex>,
}

impl Schema {
    /// Prepares a schema.
    ///
    /// # Errors
    /// Path and message of what cannot be used.
    pub fn new(root: Value) -> Result<Self, (String, String)> {
        let patterns = structural::patterns(&root)?;
        Ok(Self { root: Arc::new(root), patterns })
    }

    /// Removes what the schema does not know, and nulls that it does not allow.
    pub fn prune(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let kept: Vec<(String, Value)> =
            HEAD.into_iter().filter_map(|field| map.remove_entry(field)).collect();
        prune(object, &self.root, 0);
        if let Some(map) = object.as_object_mut() {
            map.extend(kept);
        }
    }

    /// Fills in what was left out.
    pub fn default(&self, object: &mut Value) {
        default(object, &self.root, 0);
    }

    /// Checks everything but the metadata, which is checked alike for all kinds.
    pub fn validate(&self, object: &Value, errors: &mut Errors) {
        self.check(object, &self.root, "", errors, 0);
    }

    /// Checks a value against a schema within this one.
    pub fn validate_part(&self, value: &Value, schema: &Value, path: &str, errors: &mut Errors) {
        self.check(value, schema, path, errors, 1);
    }

    fn check(&self, value: &Value, schema: &Value, path: &str, errors: &mut Errors, depth: usize) {
        if depth > MAX_DEPTH || (value.is_null() && schema["nullable"] == true) {
            return;
        }
        if !self.check_type(value, schema, path, errors) {
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let texts: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            let message = format!("supported values: {}", texts.join(", "));
            let kind = FieldErrorKind::NotSupported;
            errors.push(FieldError::new(kind, path, Some(value.to_string()), message));
        }
        match value {
            Value::String(text) => self.check_text(text, schema, path, errors),
            Value::Number(_) => check_number(value, schema, path, errors),
            Value::Array(items) => {
                check_list(items, schema, path, errors);
                let inner = &schema["items"];
                if inner.is_object() {
                    for (index, item) in items.iter().enumerate() {
                        self.check(item, inner, &format!("{path}[{index}]"), errors, depth + 1);
                    }
                }
            }
            Value::Object(map) => self.check_object(map, schema, path, errors, depth),
            _ => {}
        }
        self.check_combined(value, schema, path, errors, depth);
    }

    fn check_type(&self, value: &Value, schema: &Value, path: &str, errors: &mut Errors) -> bool {
        let is = type_of(value);
        let wanted = if schema["x-kubernetes-int-or-string"] == true {
            if matches!(is, "integer" | "string") {
                return true;
            }
            "integer,string"
        } else {
            match schema["type"].as_str() {
                None => return true,
                Some(wanted) if wanted == is || (wanted, is) == ("number", "integer") => {
                    return true;
                }
                Some(wanted) => wanted,
            }
        };
        let text = format!("{} in body must be of type {wanted}: {is:?}", shown(path));
        errors.invalid(path, is, text);
        false
    }

    fn check_text(&self, text: &str, schema: &Value, path: &str, errors: &mut Errors) {
        let length = text.chars().count() as u64;
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            let message = format!("{} in body should be at least {least} chars long", shown(path));
            errors.invalid(path, text, message);
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            let message = format!("may not be more than {most} bytes");
            errors.push(FieldError::new(FieldErrorKind::TooLong, path, None, message));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            let message = format!("{} in body should match '{pattern}'", shown(path));
            errors.invalid(path, text, message);
        }
        if let Some(format) = schema["format"].as_str().filter(|format| !is_format(format, text)) {
            let message = format!("{} in body must be of type {format}: {text:?}", shown(path));
            errors.invalid(path, text, message);
        }
    }

    fn check_object(
        &self,
        map: &Map<String, Value>,
        schema: &Value,
        path: &str,
        errors: &mut Errors,
        depth: usize,
    ) {
        let count = map.len() as u64;
        if let Some(least) = schema["minProperties"].as_u64().filter(|least| count < *least) {
            let text = format!("{} in body should have at least {least} properties", shown(path));
            errors.invalid(path, count, text);
        }
        if let Some(most) = schema["maxProperties"].as_u64().filter(|most| count > *most) {
            let text = format!("must have at most {most} items");
            errors.push(FieldError::new(FieldErrorKind::TooLong, path, None, text));
        }
        for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(field) {
                errors.required(join(path, field), "");
            }
        }
        let top = depth == 0;
        for (field, value) in map.iter().filter(|(field, _)| !top || !HEAD.contains(&&***field)) {
            let own = schema["properties"].get(field);
            let inner = own.or_else(|| schema.get("additionalProperties"));
            if let Some(inner) = inner.filter(|inner| inner.is_object()) {
                self.check(value, inner, &join(path, field), errors, depth + 1);
            }
        }
    }

    /// allOf, anyOf, oneOf, not.
    fn check_combined(
        &self,
        value: &Value,
        schema: &Value,
        path: &str,
        errors: &mut Errors,
        depth: usize,
    ) {
        let fits = |inner: &Value| {
            let mut inside = Errors::default();
            self.check(value, inner, path, &mut inside, depth + 1);
            inside.0.is_empty()
        };
        let list = |field: &str| schema[field].as_array().map(Vec::as_slice).unwrap_or_default();
        for inner in list("allOf") {
            self.check(value, inner, path, errors, depth + 1);
        }
        let any = list("anyOf");
        if !any.is_empty() && !any.iter().any(fits) {
            let text = format!("{} in body must validate at least one schema (anyOf)", shown(path));
            errors.invalid(path, value, text);
        }
        let one = list("oneOf");
        if !one.is_empty() && one.iter().filter(|inner| fits(inner)).count() != 1 {
            let text =
                format!("{} in body must validate one and only one schema (oneOf)", shown(path));
            errors.invalid(path, value, text);
        }
        if schema["not"].is_object() && fits(&schema["not"]) {
            let text = format!("{} in body must not validate the schema (not)", shown(path));
            errors.invalid(path, value, text);
        }
    }
}

fn prune(value: &mut Value, schema: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            let keep = schema["x-kubernetes-preserve-unknown-fields"] == true;
            let embedded = schema["x-kubernetes-embedded-resource"] == true;
            let more = schema.get("additionalProperties");
            let known = |field: &str| schema["properties"].get(field);
            map.retain(|field, value| {
                let inner = known(field).or(more.filter(|more| more.is_object()));
                match inner {
                    Some(inner) => !value.is_null() || inner["nullable"] == true,
                    None => {
                        keep || more == Some(&Value::Bool(true))
                            || (embedded && HEAD.contains(&field.as_str()))
                    }
                }
            });
            for (field, value) in map {
                if let Some(inner) = known(field).or(more.filter(|more| more.is_object())) {
                    prune(value, inner, depth + 1);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                prune(item, &schema["items"], depth + 1);
            }
        }
        _ => {}
    }
}

fn default(value: &mut Value, schema: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(given) = inner.get("default").filter(|_| !map.contains_key(field)) {
                    map.insert(field.clone(), given.clone());
                }
            }
            for (field, value) in map {
                let own = schema["properties"].get(field);
                let inner = own.or_else(|| schema.get("additionalProperties"));
                if let Some(inner) = inner.filter(|inner| inner.is_object()) {
                    default(value, inner, depth + 1);
                }
            }
        }
        Value::Array(items) if schema["items"].is_object() => {
            for item in items {
                default(item, &schema["items"], depth + 1);
            }
        }
        _ => {}
    }
}

fn check_number(value: &Value, schema: &Value, path: &str, errors: &mut Errors) {
    let Some(number) = value.as_f64() else { return };
    let bounds = [
        ("minimum", "exclusiveMinimum", "greater than"),
        ("maximum", "exclusiveMaximum", "less than"),
    ];
    for (field, exclusive, words) in bounds {
        let Some(bound) = schema[field].as_f64() else { continue };
        let strict = schema[exclusive] == true;
        let beyond = if field == "minimum" { number < bound } else { number > bound };
        if beyond || (strict && number == bound) {
            let or_equal = if strict { "" } else { " or equal to" };
            let text = format!("{} in body should be {words}{or_equal} {bound}", shown(path));
            errors.invalid(path, value, text);
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step > 0.0) {
        let times = number / step;
        if (times - times.round()).abs() > 1e-9 {
            let text = format!("{} in body should be a multiple of {step}", shown(path));
            errors.invalid(path, value, text);
        }
    }
}

fn check_list(items: &[Value], schema: &Value, path: &str, errors: &mut Errors) {
    let count = items.len() as u64;
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        let text = format!("{} in body should have at least {least} items", shown(path));
        errors.invalid(path, count, text);
    }
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        let text = format!("must have at most {most} items");
        errors.push(FieldError::new(FieldErrorKind::TooLong, path, None, text));
    }
    let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        Some("set") => Vec::new(),
        _ if schema["uniqueItems"] == true => Vec::new(),
        _ => return,
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let id = if keys.is_empty() {
            item.clone()
        } else {
            keys.iter()
                .map(|key| ((*key).to_owned(), item[*key].clone()))
                .collect::<Map<_, _>>()
                .into()
        };
        if !seen.insert(id.to_string()) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), id));
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            // 1.0 is an integer to JSON schema.
            Some(number) if number.fract() == 0.0 => "integer",
            _ => "number",
        },
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Formats that Kubernetes checks; others say nothing.
fn is_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, length)| {
            address.parse::<std::net::IpAddr>().is_ok() && length.parse::<u8>().is_ok()
        }),
        "uuid" => {
            let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let parts: Vec<&str> = text.split('-').collect();
            parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|p| hex(p))
        }
        "hostname" => crate::names::dns1123_subdomain(&text.to_ascii_lowercase()).is_ok(),
        "email" => text.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.')),
        "byte" => text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)),
        _ => true,
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

#[cfg(test)]
#[path = "schema_test.rs"]
mod tests;
