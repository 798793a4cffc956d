//! Which schemas are taken: structural ones, as apiextensions.k8s.io/v1 demands them.
//!
//! A schema is structural when every field has one type, said outside of allOf, anyOf, oneOf and
//! not, so that pruning and defaults have one meaning.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::schema::{MAX_DEPTH, Schema};
use crate::error::{Errors, FieldError, FieldErrorKind};

/// A schema as JSON, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// A compiled pattern, in bytes.
const MAX_PATTERN: usize = 1024 * 1024;
/// Schemas of one version, counting all that are inside.
const MAX_SCHEMAS: usize = 20_000;
/// Errors that are told at once.
const MAX_ERRORS: usize = 20;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Not allowed in v1: what they mean depends on other schemas, or they would not be structural.
const FORBIDDEN: [&str; 5] =
    ["$ref", "additionalItems", "definitions", "dependencies", "patternProperties"];
/// What allOf, anyOf, oneOf and not may not say: it would be no longer clear what a field is.
const NOT_IN_JUNCTORS: [&str; 8] = [
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
];

/// Checks the schema of a version; `place` is its path in the definition.
pub(crate) fn check(root: &Value, place: &str, errors: &mut Errors) {
    let size = root.to_string().len();
    if size > MAX_BYTES {
        let text = format!("may not be more than {MAX_BYTES} bytes, is {size}");
        errors.push(FieldError::new(FieldErrorKind::TooLong, place, None, text));
        return;
    }
    if root["type"] != "object" {
        errors.invalid(format!("{place}.type"), &root["type"], "must be object at the root");
    }
    if root["nullable"] == true {
        errors.push(FieldError::forbidden(
            format!("{place}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let schema = match Schema::new(root.clone()) {
        Ok(schema) => schema,
        Err((below, message)) => {
            errors.invalid(format!("{place}{below}"), "", message);
            return;
        }
    };
    let mut check = Check { schema: &schema, count: 0, errors: Errors::default() };
    check.visit(root, place, false, 0);
    for error in check.errors.0.into_iter().take(MAX_ERRORS) {
        errors.push(error);
    }
}

struct Check<'a> {
    schema: &'a Schema,
    count: usize,
    errors: Errors,
}

impl Check<'_> {
    fn visit(&mut self, schema: &Value, place: &str, in_junctor: bool, depth: usize) {
        self.count += 1;
        if self.count > MAX_SCHEMAS {
            if self.count == MAX_SCHEMAS + 1 {
                let text = format!("has more than {MAX_SCHEMAS} schemas inside");
                self.errors.push(FieldError::new(FieldErrorKind::TooLong, place, None, text));
            }
            return;
        }
        for field in FORBIDDEN.iter().filter(|field| is_set(&schema[**field])) {
            self.errors.push(FieldError::forbidden(format!("{place}.{field}"), "is not supported"));
        }
        if schema["uniqueItems"] == true {
            let text = "uniqueItems cannot be set to true since the runtime complexity becomes \
                        quadratic";
            self.errors.push(FieldError::forbidden(format!("{place}.uniqueItems"), text));
        }
        if in_junctor {
            for field in NOT_IN_JUNCTORS.iter().filter(|field| is_set(&schema[**field])) {
                let text = "must not be set within allOf, anyOf, oneOf and not";
                self.errors.push(FieldError::forbidden(format!("{place}.{field}"), text));
            }
        } else {
            self.check_type(schema, place, depth);
            self.check_list(schema, place);
            self.check_default(schema, place);
        }
        self.visit_inner(schema, place, in_junctor, depth);
    }

    fn check_type(&mut self, schema: &Value, place: &str, depth: usize) {
        let free = schema["x-kubernetes-int-or-string"] == true
            || (schema["x-kubernetes-preserve-unknown-fields"] == true && depth > 0);
        match schema["type"].as_str().filter(|text| !text.is_empty()) {
            None if free => {}
            None => {
                let text = "must not be empty for specified object fields";
                self.errors.required(format!("{place}.type"), text);
            }
            Some(_) if schema["x-kubernetes-int-or-string"] == true => {
                let text = "must be empty if x-kubernetes-int-or-string is true";
                self.errors.invalid(format!("{place}.type"), &schema["type"], text);
            }
            Some(text) if TYPES.contains(&text) => {}
            Some(other) => {
                let error = FieldError::not_supported(format!("{place}.type"), other, &TYPES);
                self.errors.push(error);
            }
        }
        if schema["type"] == "array" && !schema["items"].is_object() {
            let text = "must be specified";
            self.errors.required(format!("{place}.items"), text);
        }
        if is_set(&schema["properties"]) && schema["additionalProperties"].is_object() {
            let text = "additionalProperties and properties are mutual exclusive";
            let path = format!("{place}.additionalProperties");
            self.errors.push(FieldError::forbidden(path, text));
        }
    }

    /// What makes a list a set or a map must be such that items can be told apart.
    fn check_list(&mut self, schema: &Value, place: &str) {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let is_map = schema["x-kubernetes-list-type"] == "map";
        if let Some(kind) = schema["x-kubernetes-list-type"].as_str() {
            let path = format!("{place}.x-kubernetes-list-type");
            if !["atomic", "set", "map"].contains(&kind) {
                let all = ["atomic", "map", "set"];
                self.errors.push(FieldError::not_supported(path, kind, &all));
            } else if schema["type"] != "array" {
                let text = "must be array if x-kubernetes-list-type is specified";
                self.errors.invalid(format!("{place}.type"), &schema["type"], text);
            }
        }
        let path = format!("{place}.x-kubernetes-list-map-keys");
        match keys {
            None if is_map => {
                let text = "must not be empty if x-kubernetes-list-type is map";
                self.errors.required(path, text);
            }
            Some(_) if !is_map => {
                let text = "must be empty if x-kubernetes-list-type is not map";
                self.errors.push(FieldError::forbidden(path, text));
            }
            _ => {}
        }
        let items = &schema["items"];
        for (index, key) in keys.into_iter().flatten().filter_map(Value::as_str).enumerate() {
            let known = &items["properties"][key];
            let path = format!("{place}.x-kubernetes-list-map-keys[{index}]");
            if !known.is_object() {
                let text = "must be the name of a property of the items";
                self.errors.invalid(path, key, text);
            } else if !["boolean", "integer", "number", "string"]
                .iter()
                .any(|t| known["type"] == *t)
            {
                self.errors.invalid(path, key, "the property must be a scalar");
            } else if known.get("default").is_none()
                && !items["required"].as_array().is_some_and(|all| all.iter().any(|f| f == key))
            {
                self.errors.invalid(path, key, "the property must be required or have a default");
            }
        }
    }

    fn check_default(&mut self, schema: &Value, place: &str) {
        if let Some(given) = schema.get("default") {
            let path = format!("{place}.default");
            self.schema.validate_part(given, schema, &path, &mut self.errors);
        }
    }

    fn visit_inner(&mut self, schema: &Value, place: &str, in_junctor: bool, depth: usize) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            // Of the metadata nothing may be said but what its name is like.
            if depth == 0 && name == "metadata" {
                continue;
            }
            self.visit(inner, &format!("{place}.properties[{name}]"), in_junctor, depth + 1);
        }
        for field in ["items", "additionalProperties"] {
            if schema[field].is_object() {
                self.visit(&schema[field], &format!("{place}.{field}"), in_junctor, depth + 1);
            } else if schema[field].is_array() {
                let text = "must be one schema";
                self.errors.push(FieldError::forbidden(format!("{place}.{field}"), text));
            }
        }
        // An int-or-string says of itself that it is one of two types.
        let in_or = schema["x-kubernetes-int-or-string"] == true;
        for field in ["allOf", "anyOf", "oneOf"] {
            for (index, inner) in schema[field].as_array().into_iter().flatten().enumerate() {
                let path = format!("{place}.{field}[{index}]");
                if in_or && ["integer", "string"].iter().any(|t| inner["type"] == *t) {
                    continue;
                }
                self.visit(inner, &path, true, depth + 1);
            }
        }
        if schema["not"].is_object() {
            self.visit(&schema["not"], &format!("{place}.not"), true, depth + 1);
        }
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// All patterns of a schema, ready for use, by their text.
///
/// # Errors
/// Path and message of the first that cannot be used, or of a schema that is too deep.
pub(super) fn patterns(root: &Value) -> Result<HashMap<String, Regex>, (String, String)> {
    let mut found = HashMap::new();
    collect(root, "", &mut found, 0)?;
    Ok(found)
}

fn collect(
    schema: &Value,
    path: &str,
    found: &mut HashMap<String, Regex>,
    depth: usize,
) -> Result<(), (String, String)> {
    if depth > MAX_DEPTH {
        let text = format!("schemas may be nested {MAX_DEPTH} deep");
        return Err((path.to_owned(), text));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !found.contains_key(pattern)
    {
        let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
        let compiled = compiled.map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().to_owned();
            (format!("{path}.pattern"), format!("must be a valid regular expression: {reason}"))
        })?;
        found.insert(pattern.to_owned(), compiled);
    }
    let empty = Map::new();
    for (name, inner) in schema["properties"].as_object().unwrap_or(&empty) {
        collect(inner, &format!("{path}.properties[{name}]"), found, depth + 1)?;
    }
    for field in ["items", "additionalProperties", "not"] {
        if schema[field].is_object() {
            collect(&schema[field], &format!("{path}.{field}"), found, depth + 1)?;
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in schema[field].as_array().into_iter().flatten().enumerate() {
            collect(inner, &format!("{path}.{field}[{index}]"), found, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "structural_test.rs"]
mod tests;
