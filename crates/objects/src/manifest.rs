//! Manifests: several objects in one text, YAML or JSON.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::Invalid;
use crate::kind::Kind;

/// One object of a manifest, decoded strictly. Defaults are the master's business.
#[derive(Clone, Debug)]
pub struct Document {
    /// Number of the document in the text, from 1. Items of a List share it.
    pub index: usize,
    /// First line of the document, from 1.
    pub line: usize,
    /// The object.
    pub value: Value,
    /// Its kind.
    pub kind: &'static Kind,
}

impl Document {
    /// `metadata.name`, or "".
    #[must_use]
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`, or "".
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// What is wrong with one document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("document {document} (line {line}): {problem}")]
pub struct ManifestError {
    /// Number of the document, from 1.
    pub document: usize,
    /// Line in the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither YAML nor JSON.
    #[error("{0}")]
    Syntax(String),
    /// `kind` or `apiVersion` is missing.
    #[error("{0}: Required value")]
    Missing(&'static str),
    /// No such kind here.
    #[error("no matches for kind \"{kind}\" in version \"{api_version}\"")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// The version.
        api_version: String,
    },
    /// The object is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Parses all documents. Empty documents are skipped.
///
/// # Errors
/// Everything that is wrong, in order, at least one entry.
pub fn parse(text: &str) -> Result<Vec<Document>, Vec<ManifestError>> {
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    for (index, (line, source)) in split(text).into_iter().enumerate() {
        let place = Place { index: index + 1, line };
        match source_value(&source) {
            Ok(Value::Null) => {}
            Ok(value) => collect(value, place, &mut documents, &mut errors),
            Err((offset, message)) => {
                let line = line + offset;
                errors.push(Place { line, ..place }.error(Problem::Syntax(message)));
            }
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

#[derive(Clone, Copy)]
struct Place {
    index: usize,
    line: usize,
}

impl Place {
    fn error(self, problem: Problem) -> ManifestError {
        ManifestError { document: self.index, line: self.line, problem }
    }
}

/// One object, or the items of a List.
fn collect(
    value: Value,
    place: Place,
    documents: &mut Vec<Document>,
    errors: &mut Vec<ManifestError>,
) {
    if value["kind"] == "List" && value["apiVersion"] == "v1" {
        for item in value["items"].as_array().into_iter().flatten() {
            collect(item.clone(), place, documents, errors);
        }
        return;
    }
    match object(value) {
        Ok((value, kind)) => {
            documents.push(Document { index: place.index, line: place.line, value, kind });
        }
        Err(problem) => errors.push(place.error(problem)),
    }
}

fn object(value: Value) -> Result<(Value, &'static Kind), Problem> {
    let text = |field: &'static str| {
        let text = value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or(Problem::Missing(field))
    };
    let api_version = text("apiVersion")?;
    let kind_name = text("kind")?;
    let kind = Kind::by_gvk(&api_version, &kind_name)
        .ok_or(Problem::UnknownKind { kind: kind_name, api_version })?;
    Ok((crate::decode(value, kind)?, kind))
}

/// The documents with their first lines (from 1). Lines of `---` part them.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = Vec::new();
    let mut current = String::new();
    let mut first = 1;
    for (index, line) in text.lines().enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])) {
            parts.push((first, std::mem::take(&mut current)));
            first = index + 2;
            // A document may begin on the marker's line.
            let rest = line[3..].trim_start();
            if !rest.is_empty() && !rest.starts_with('#') {
                first = index + 1;
                current.push_str(rest);
                current.push('\n');
            }
            continue;
        }
        if line.trim_end() == "..." {
            continue;
        }
        current.push_str(line);
        current.push('\n');
    }
    parts.push((first, current));
    let blank = |source: &str| {
        source.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    };
    parts.retain(|(_, source)| !blank(source));
    for (first, source) in &mut parts {
        let leading = source
            .lines()
            .take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
            .count();
        *first += leading;
        *source = source.lines().skip(leading).collect::<Vec<_>>().join("\n");
    }
    parts
}

/// The value of one document; the error has the offset of the line.
fn source_value(source: &str) -> Result<Value, (usize, String)> {
    let value = if source.trim_start().starts_with('{') {
        // JSON is YAML too, but its own parser says better what is wrong.
        parse_json(source.as_bytes()).map_err(|e| (e.line(), e.to_string()))
    } else {
        parse_yaml(source.as_bytes())
            .map_err(|e| (e.location().map_or(1, |at| at.line()), e.to_string()))
    };
    value.map_err(|(line, message)| (line.saturating_sub(1), message))
}

/// One JSON value, in which no object has the same field twice.
///
/// # Errors
/// When it is no JSON, or a field is given twice.
pub fn parse_json(text: &[u8]) -> Result<Value, serde_json::Error> {
    let budget = Budget::of(text);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Unique(&budget).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// One YAML value, in which no map has the same key twice.
///
/// # Errors
/// When it is no YAML, is several documents, a key is given twice, or its aliases make much more
/// of it than was written.
pub fn parse_yaml(text: &[u8]) -> Result<Value, serde_yaml_ng::Error> {
    let budget = Budget::of(text);
    Unique(&budget).deserialize(serde_yaml_ng::Deserializer::from_slice(text))
}

/// What may still be made of a text. Each alias of YAML is a copy of what it names, so that a
/// small text can stand for more than any memory holds.
struct Budget {
    limit: usize,
    left: Cell<usize>,
}

impl Budget {
    /// What one value costs besides its text.
    const VALUE: usize = 4;
    /// More, for each byte, than any text costs without aliases: at worst `a,` in a map, a key of
    /// one byte and its null, costs 9 for 2 bytes.
    const TIMES: usize = 5;
    /// Small texts may use their aliases as they like.
    const FLOOR: usize = 1 << 20;

    fn of(text: &[u8]) -> Self {
        let limit = text.len().saturating_mul(Self::TIMES).max(Self::FLOOR);
        Self { limit, left: Cell::new(limit) }
    }

    fn spend<E: de::Error>(&self, cost: usize) -> Result<(), E> {
        let Some(left) = self.left.get().checked_sub(cost) else {
            let limit = self.limit;
            return Err(E::custom(format_args!("aliases expand to more than {limit} bytes")));
        };
        self.left.set(left);
        Ok(())
    }

    fn value<E: de::Error>(&self, value: impl Into<Value>) -> Result<Value, E> {
        self.spend::<E>(Self::VALUE)?;
        Ok(value.into())
    }
}

/// Makes a value in which no map has the same key twice, within a budget.
#[derive(Clone, Copy)]
struct Unique<'b>(&'b Budget);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.0.value(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.0.value(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.0.value(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.value(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.0.value(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.0.value(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.spend::<E>(value.len())?;
        self.0.value(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.0.spend::<A::Error>(Budget::VALUE)?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.0.spend::<A::Error>(Budget::VALUE)?;
        let mut object = serde_json::Map::new();
        while let Some(key) = map.next_key_seed(self)? {
            // YAML allows keys that are no strings, such as 8080 or true.
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            if object.contains_key(&key) {
                return Err(de::Error::custom(format_args!("key \"{key}\" already set in map")));
            }
            object.insert(key, map.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
#[path = "manifest_test.rs"]
mod tests;
