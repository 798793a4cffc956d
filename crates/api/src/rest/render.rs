//! Objects, lists and events as clients want to see them. Stored JSON is copied, not parsed
//! again.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use quorate_objects::Kind;
use quorate_registry::{EventKind, Object, ObjectEvent};
use serde_json::{Value, json};

use super::accept::{Accept, Form};
use super::failure::{Failure, Result};
use super::versions::Version;

/// Which object goes with each row of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// # Errors
    /// When it is none of the three.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Failure::bad_request(format!(
                "includeObject {other:?} is none of None, Metadata, Object"
            ))),
        }
    }
}

/// How to show objects of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Renderer {
    pub kind: &'static Kind,
    /// Set when the client speaks another version than the one that is stored.
    pub version: Option<Version>,
    pub accept: Accept,
    pub include: IncludeObject,
    /// Ages are counted up to here.
    pub now: Timestamp,
}

/// What a list's metadata says.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            meta["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

impl Renderer {
    fn api_version(&self) -> String {
        self.version.as_ref().map_or_else(|| self.kind.api_version(), Version::api_version)
    }

    /// The kind whose columns are shown.
    fn shown(&self) -> &'static Kind {
        self.version.map_or(self.kind, |version| version.shown)
    }

    fn cells(&self, object: &Object) -> Vec<String> {
        let shown = self.shown();
        if std::ptr::eq(shown, object.kind) {
            return object.cells(self.now);
        }
        shown.row(&object.value(), self.now)
    }

    /// The object in the version of the client.
    fn json(&self, object: &Object) -> Bytes {
        let Some(version) = self.version else { return object.json.clone() };
        let mut value = object.value();
        version.serve(&mut value);
        value.to_string().into()
    }

    /// One object.
    ///
    /// # Errors
    /// When its metadata cannot be encoded, which is a bug.
    pub fn object(&self, object: &Object) -> Result<Vec<u8>> {
        match self.accept.form {
            Form::Object => Ok(self.json(object).to_vec()),
            Form::Partial => partial(object).map(String::into_bytes),
            Form::Table => {
                let meta = json!({"resourceVersion": object.revision.to_string()});
                self.table(&meta, std::iter::once(object), true)
            }
        }
    }

    /// A list.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub fn list<'a>(
        &self,
        meta: &ListMeta,
        objects: impl ExactSizeIterator<Item = &'a Object>,
    ) -> Result<Vec<u8>> {
        let meta = meta.json();
        let (api_version, kind) = match self.accept.form {
            Form::Table => return self.table(&meta, objects, true),
            Form::Partial => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
            Form::Object => (self.api_version(), format!("{}List", self.kind.kind)),
        };
        let mut text = Vec::with_capacity(1024 * objects.len() + 256);
        let head = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":["
        );
        text.extend_from_slice(head.as_bytes());
        for (index, object) in objects.enumerate() {
            if index > 0 {
                text.push(b',');
            }
            match self.accept.form {
                Form::Partial => text.extend_from_slice(partial(object)?.as_bytes()),
                _ => text.extend_from_slice(&self.json(object)),
            }
        }
        text.extend_from_slice(b"]}");
        Ok(text)
    }

    /// One event of a watch, with the line feed that ends it. `first`: tables say their columns.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub fn event(&self, event: &ObjectEvent, first: bool) -> Result<Bytes> {
        let word = match event.kind {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
            EventKind::Bookmark => "BOOKMARK",
        };
        let content = match (&event.object, self.accept.form) {
            (Some(object), Form::Table) => {
                let meta = json!({"resourceVersion": event.revision.to_string()});
                self.table(&meta, std::iter::once(&**object), first)?
            }
            (Some(object), _) => self.object(object)?,
            (None, _) => self.bookmark(event.revision, false),
        };
        Ok(frame(word, &content))
    }

    /// The object of a bookmark; `initial`: all objects that there were have been sent.
    pub fn bookmark(&self, revision: u64, initial: bool) -> Vec<u8> {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = match self.accept.form {
            Form::Object => json!({
                "kind": self.kind.kind, "apiVersion": self.api_version(), "metadata": meta,
            }),
            Form::Partial => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
            }),
            Form::Table => {
                let object = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": meta,
                });
                json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": [], "rows": [{"cells": [], "object": object}],
                })
            }
        };
        value.to_string().into_bytes()
    }

    fn table<'a>(
        &self,
        meta: &Value,
        objects: impl Iterator<Item = &'a Object>,
        columns: bool,
    ) -> Result<Vec<u8>> {
        let definitions = if columns { columns_of(self.shown()) } else { Value::Array(Vec::new()) };
        let mut text = format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{meta},\
             \"columnDefinitions\":{definitions},\"rows\":["
        );
        for (index, object) in objects.enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let cells = json!(self.cells(object));
            let _ = write!(text, "{comma}{{\"cells\":{cells}");
            match self.include {
                IncludeObject::None => {}
                IncludeObject::Metadata => {
                    let _ = write!(text, ",\"object\":{}", partial(object)?);
                }
                IncludeObject::Object => {
                    let _ = write!(text, ",\"object\":{}", String::from_utf8_lossy(&object.json));
                }
            }
            text.push('}');
        }
        text.push_str("]}");
        Ok(text.into_bytes())
    }

    /// The answer with this content.
    ///
    /// # Errors
    /// When YAML is wanted and cannot be made.
    pub fn response(&self, code: StatusCode, json: Vec<u8>) -> Result<Response> {
        respond(self.accept, code, json)
    }
}

/// A line of a watch.
pub(crate) fn frame(word: &str, content: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(content.len() + 40);
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(word.as_bytes());
    text.extend_from_slice(b"\",\"object\":");
    text.extend_from_slice(content);
    text.extend_from_slice(b"}\n");
    text.into()
}

/// JSON, or YAML when that is wanted, as an answer.
///
/// # Errors
/// When YAML cannot be made.
pub(crate) fn respond(accept: Accept, code: StatusCode, json: Vec<u8>) -> Result<Response> {
    let content = if accept.yaml {
        let value: Value = serde_json::from_slice(&json).map_err(Failure::internal)?;
        serde_yaml_ng::to_string(&value).map_err(Failure::internal)?.into_bytes()
    } else {
        json
    };
    let mut response = Response::new(Body::from(content));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(accept.content_type()));
    Ok(response)
}

/// The object's metadata as an object of its own.
fn partial(object: &Object) -> Result<String> {
    let meta = serde_json::to_string(&object.meta).map_err(Failure::internal)?;
    Ok(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{meta}}}"
    ))
}

fn columns_of(kind: &Kind) -> Value {
    let definitions = kind.columns.iter().map(|column| {
        json!({
            "name": title(column.name), "type": "string",
            "format": if column.name == "NAME" { "name" } else { "" },
            "description": "", "priority": i32::from(column.wide),
        })
    });
    definitions.collect()
}

/// `UP-TO-DATE` is a heading; a column's name is `Up-To-Date`.
fn title(heading: &str) -> String {
    let mut upper = true;
    let one = |character: char| {
        let keep = std::mem::replace(&mut upper, !character.is_alphanumeric());
        if keep { character } else { character.to_ascii_lowercase() }
    };
    heading.chars().map(one).collect()
}

#[cfg(test)]
#[path = "render_test.rs"]
mod tests;
