//! An object as the registry hands it out, and the keys under which objects live.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use quorate_objects::{FieldSelector, Kind, Typed};
use serde_json::Value;

use crate::decoded::Form;
use crate::error::RegistryError;
use crate::part::Part;
use crate::prepare::metadata_mut;
use crate::stored::{self, Fields, Places, Stored};

/// Everything that is an object is below this prefix.
pub(crate) const PREFIX: &str = "/registry/";

/// Where an object is: kind, namespace ("" for kinds without), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind.
    pub kind: &'static Kind,
    /// "" for kinds without namespaces.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The object's key.
    #[must_use]
    pub fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced { namespace } else { "" };
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// `/registry/<plural>[.<group>]/[<namespace>/]<name>`
    #[must_use]
    pub fn store_key(&self) -> Bytes {
        let Self { kind, namespace, name } = self;
        let resource = kind.resource();
        if kind.namespaced {
            format!("{PREFIX}{resource}/{namespace}/{name}").into()
        } else {
            format!("{PREFIX}{resource}/{name}").into()
        }
    }

    /// The reverse of [`Self::store_key`]; `None` for keys of kinds that are not served.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
        let (resource, rest) = rest.split_once('/')?;
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let kind =
            quorate_objects::kinds::find(|kind| kind.plural == plural && kind.group == group)?;
        let (namespace, name) = if kind.namespaced { rest.split_once('/')? } else { ("", rest) };
        Some(Self::new(kind, namespace, name))
    }

    pub(crate) fn not_found(&self) -> RegistryError {
        RegistryError::NotFound { resource: self.kind.resource(), name: self.name.clone() }
    }

    pub(crate) fn conflict(&self, message: impl Into<String>) -> RegistryError {
        RegistryError::Conflict {
            resource: self.kind.resource(),
            name: self.name.clone(),
            message: message.into(),
        }
    }
}

/// One object at one revision. Immutable and shared.
pub struct Object {
    /// The kind.
    pub kind: &'static Kind,
    /// The metadata, with the resourceVersion.
    pub meta: ObjectMeta,
    /// The revision at which it last changed (of a deleted object: at which it was deleted).
    pub revision: u64,
    /// The complete object with apiVersion, kind and metadata.resourceVersion.
    pub json: Bytes,
    /// Where in `json` the resourceVersion begins, and where it ends with its comma.
    inside: usize,
    behind: usize,
    /// In `json` as well.
    places: Places,
    /// Fields that selectors and indexes ask for.
    fields: Fields,
    typed: Form,
}

impl Object {
    /// From JSON; sets the resourceVersion.
    ///
    /// # Errors
    /// [`RegistryError::Internal`] when the metadata is broken.
    pub fn from_value(
        kind: &'static Kind,
        mut value: Value,
        revision: u64,
    ) -> Result<Self, RegistryError> {
        if kind.is_custom() {
            // It may have been written before another version became the one that is stored.
            value["apiVersion"] = kind.api_version().into();
        }
        Self::of_text(kind, &without_revision(&mut value), revision)
    }

    /// From the bytes in the store, which have no resourceVersion.
    pub(crate) fn decode(
        kind: &'static Kind,
        stored: &[u8],
        revision: u64,
    ) -> Result<Self, RegistryError> {
        if !kind.is_custom()
            && let Some(seen) = stored::look(kind, stored).map_err(|e| broken(kind, &e))?
            && seen.inside.is_some()
            && seen.meta.resource_version.is_none()
        {
            return Self::of_stored(kind, seen, stored, revision);
        }
        // Not as the registry writes it now.
        let value = serde_json::from_slice(stored).map_err(|e| broken(kind, &e))?;
        Self::from_value(kind, value, revision)
    }

    /// From text as the registry writes it.
    fn of_text(kind: &'static Kind, text: &[u8], revision: u64) -> Result<Self, RegistryError> {
        Self::of_stored(kind, look(kind, text)?, text, revision)
    }

    /// From text and what a look at it has shown.
    pub(crate) fn of_stored(
        kind: &'static Kind,
        seen: Stored,
        text: &[u8],
        revision: u64,
    ) -> Result<Self, RegistryError> {
        let Some(inside) = seen.inside else { return Err(without_metadata(kind)) };
        let Stored { meta, fields, places, .. } = seen;
        Ok(Self::assemble(kind, meta, fields, places, (text, inside), revision))
    }

    /// `text` with the place inside its metadata where the resourceVersion goes.
    fn assemble(
        kind: &'static Kind,
        mut meta: ObjectMeta,
        fields: Fields,
        places: Places,
        (text, inside): (&[u8], usize),
        revision: u64,
    ) -> Self {
        let (before, after) = text.split_at(inside);
        let number = revision.to_string();
        let mut json = BytesMut::with_capacity(text.len() + number.len() + 22);
        json.put_slice(before);
        json.put_slice(b"\"resourceVersion\":\"");
        json.put_slice(number.as_bytes());
        json.put_slice(if after.first() == Some(&b'}') { b"\"" } else { b"\"," });
        let behind = json.len();
        json.put_slice(after);
        // What is not behind the metadata is not where it is expected.
        let moved = |place: usize| (place >= inside).then(|| place - inside + behind);
        let places = Places {
            spec: places.spec.and_then(moved),
            status: places.status.and_then(|(begin, end)| Some((moved(begin)?, moved(end)?))),
        };
        meta.resource_version = Some(number);
        let typed = Form::new(json.len());
        let json = json.freeze();
        Self { kind, meta, revision, json, inside, behind, places, fields, typed }
    }

    /// The same object with another revision: events of deletion carry the deletion's.
    pub(crate) fn at_revision(&self, revision: u64) -> Self {
        let text = [&self.json[..self.inside], &self.json[self.behind..]].concat();
        let (meta, fields) = (self.meta.clone(), self.fields.clone());
        // Of what is deleted no part is written any more.
        let places = Places::default();
        Self::assemble(self.kind, meta, fields, places, (&text, self.inside), revision)
    }

    /// The text to store when only this part changes: `Some(None)` when it does not, and `None`
    /// when that has to be found out the long way.
    pub(crate) fn with_part(&self, part: &Part) -> Option<Option<Bytes>> {
        let end = self.json.len().checked_sub(1)?;
        let (from, to) = self.places.status.unwrap_or((end, end));
        let spec = self.places.spec.filter(|spec| *spec <= from)?;
        // Something else may have to happen to what is being deleted.
        if self.is_deleting() || (part.node.is_some() && self.field("spec.nodeName").is_some()) {
            return None;
        }
        if part.node.is_none() && self.json[from..to] == *part.status {
            return Some(None);
        }
        let mut text = BytesMut::with_capacity(self.json.len() + part.status.len() + 64);
        text.put_slice(&self.json[..self.inside]);
        text.put_slice(&self.json[self.behind..spec]);
        if let Some(node) = &part.node {
            text.put_slice(format!("\"nodeName\":{}", Value::from(node.as_str())).as_bytes());
            text.put_slice(if self.json.get(spec) == Some(&b'}') { b"" } else { b"," });
        }
        text.put_slice(&self.json[spec..from]);
        text.put_slice(if from == to { b",\"status\":" } else { b"" });
        text.put_slice(&part.status);
        text.put_slice(&self.json[to..]);
        Some(Some(text.freeze()))
    }

    /// The text of the status, when it is where it is expected.
    pub(crate) fn status_text(&self) -> Option<&[u8]> {
        let (from, to) = self.places.status?;
        self.json.get(from..to)
    }

    /// The same object after its kind has changed: the definition of a custom kind was.
    pub(crate) fn as_kind(&self, kind: &'static Kind) -> Result<Self, RegistryError> {
        Self::from_value(kind, self.value(), self.revision)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    /// The namespace; "" for kinds without.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }

    /// The uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.meta.labels.as_ref().unwrap_or(&NONE)
    }

    /// Is it being deleted?
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// Where it is.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kind, self.namespace(), self.name())
    }

    /// The complete JSON.
    #[must_use]
    pub fn value(&self) -> Value {
        // `json` was written by `from_value`, so it is JSON.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The object as its type, decoded once and shared for as long as it is read now and then.
    ///
    /// # Errors
    /// [`RegistryError::Internal`] when it is of another kind.
    pub fn typed<T: Typed>(&self) -> Result<Arc<T>, RegistryError> {
        let wrong = || {
            RegistryError::Internal(format!("{} was read as {}", self.kind.kind, T::kind().kind))
        };
        if T::kind() != self.kind {
            return Err(wrong());
        }
        if let Some(ready) = self.typed.get() {
            return ready.downcast::<T>().map_err(|_| wrong());
        }
        let decoded = Arc::new(T::from_json(&self.json).map_err(|error| {
            RegistryError::Internal(format!("{} cannot be decoded: {error}", self.kind.kind))
        })?);
        self.typed.keep(decoded).downcast::<T>().map_err(|_| wrong())
    }

    /// Something newer is in its place.
    pub(crate) fn grow_old(&self) {
        self.typed.grow_old();
    }

    /// So that [`Self::typed`] has nothing left to do. What cannot be decoded is left to it.
    pub(crate) fn decode_ahead(&self) {
        if self.typed.is_wanted()
            && let Ok(decoded) = self.kind.parse(&self.json)
        {
            self.typed.keep(decoded);
        }
    }

    /// One cell for each column of the kind; `<unknown>` in all when it cannot be decoded.
    #[must_use]
    pub fn cells(&self, now: Timestamp) -> Vec<String> {
        if let Some(ready) = self.typed.get() {
            return self.kind.cells(&*ready, now);
        }
        match self.kind.parse(&self.json) {
            Ok(decoded) => self.kind.cells(&*self.typed.keep(decoded), now),
            Err(_) => vec!["<unknown>".into(); self.kind.columns.len()],
        }
    }

    /// A field that selectors may name.
    #[must_use]
    pub fn field(&self, path: &str) -> Option<&str> {
        match path {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => {
                let found = self.fields.iter().find(|(p, _)| *p == path).map(|(_, v)| v.as_str());
                found.or_else(|| stored::unset(self.kind, path))
            }
        }
    }

    /// Is a member, at whatever depth, or a text called so? A `false` spares decoding the object,
    /// and costs a fiftieth of it.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        memchr::memmem::find(&self.json, format!("\"{name}\"").as_bytes()).is_some()
    }

    /// Does it satisfy the field selector?
    #[must_use]
    pub fn matches_fields(&self, selector: &FieldSelector) -> bool {
        selector.is_everything() || selector.matches(|path| self.field(path))
    }
}

/// Looks at text as the registry writes it.
pub(crate) fn look(kind: &'static Kind, text: &[u8]) -> Result<Stored, RegistryError> {
    let seen = stored::look(kind, text).map_err(|e| broken(kind, &e))?;
    seen.ok_or_else(|| without_metadata(kind))
}

fn without_metadata(kind: &Kind) -> RegistryError {
    RegistryError::Internal(format!("a stored {} has no metadata", kind.kind))
}

fn broken(kind: &Kind, error: &serde_json::Error) -> RegistryError {
    RegistryError::Internal(format!("a stored {} cannot be decoded: {error}", kind.kind))
}

/// The text of an object as it is stored: without the resourceVersion, which is the key's
/// revision.
pub(crate) fn without_revision(value: &mut Value) -> Bytes {
    metadata_mut(value).remove("resourceVersion");
    value.to_string().into()
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, revision, .. } = self;
        write!(f, "{}/{}/{}@{revision}", kind.resource(), self.namespace(), self.name())
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.revision == other.revision && self.json == other.json
    }
}
