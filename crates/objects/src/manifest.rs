//! Manifests: several objects in one text, YAML or JSON.

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
    let value: Result<UniqueKeys, _> = if source.trim_start().starts_with('{') {
        // JSON is YAML too, but its own parser says better what is wrong.
        serde_json::from_str(source).map_err(|e| (e.line(), e.to_string()))
    } else {
        serde_yaml_ng::from_str(source)
            .map_err(|e| (e.location().map_or(1, |at| at.line()), e.to_string()))
    };
    value.map(|unique| unique.0).map_err(|(line, message)| (line.saturating_sub(1), message))
}

/// One JSON value, in which no object has the same field twice.
///
/// # Errors
/// When it is no JSON, or a field is given twice.
pub fn parse_json(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<UniqueKeys>(text).map(|unique| unique.0)
}

/// One YAML value, in which no map has the same key twice.
///
/// # Errors
/// When it is no YAML, is several documents, or a key is given twice.
pub fn parse_yaml(text: &[u8]) -> Result<Value, serde_yaml_ng::Error> {
    serde_yaml_ng::from_slice::<UniqueKeys>(text).map(|unique| unique.0)
}

/// A value in which no map has the same key twice.
struct UniqueKeys(Value);

impl<'de> serde::Deserialize<'de> for UniqueKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> serde::de::Visitor<'de> for UniqueVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(Value::Null))
    }

    fn visit_none<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys(value.into()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<UniqueKeys, A::Error> {
        let mut items = Vec::new();
        while let Some(UniqueKeys(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(UniqueKeys(Value::Array(items)))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(UniqueKeys(key)) = map.next_key()? {
            // YAML allows keys that are no strings, such as 8080 or true.
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            if object.contains_key(&key) {
                let text = format!("key \"{key}\" already set in map");
                return Err(serde::de::Error::custom(text));
            }
            let UniqueKeys(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(UniqueKeys(Value::Object(object)))
    }
}

#[cfg(test)]
#[path = "manifest_test.rs"]
mod tests;
