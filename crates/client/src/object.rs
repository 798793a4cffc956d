//! Objects as clients see them.

use quorate_objects::{Kind, Typed};
use quorate_proto::v1;
use serde_json::Value;
use tonic::Code;

use crate::ClientError;

/// One object: its JSON, with what routes it beside.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `v1`, `apps/v1`
    pub api_version: String,
    /// `Pod`
    pub kind: String,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity: a new object of the same name has another.
    pub uid: String,
    /// The store's revision at which it last changed.
    pub revision: u64,
    /// All of it.
    pub value: Value,
}

impl Object {
    /// As a type of `k8s-openapi`.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn typed<T: Typed>(&self) -> Result<T, ClientError> {
        T::from_value(&self.value)
            .map_err(|e| malformed(&format!("{} {}", self.kind, self.name), e))
    }

    /// The kind, when this client knows it.
    #[must_use]
    pub fn known_kind(&self) -> Option<&'static Kind> {
        Kind::by_gvk(&self.api_version, &self.kind)
    }

    pub(crate) fn decode(object: v1::Object) -> Result<Self, ClientError> {
        let kind = object.kind.unwrap_or_default();
        let value = serde_json::from_slice(&object.json)
            .map_err(|e| malformed(&format!("{} {}", kind.kind, object.name), e))?;
        Ok(Self {
            api_version: kind.api_version,
            kind: kind.kind,
            namespace: object.namespace,
            name: object.name,
            uid: object.uid,
            revision: object.revision,
            value,
        })
    }
}

/// What a list call found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    /// The revision that the list shows; watch from here to miss nothing.
    pub revision: u64,
    /// The objects, ordered by namespace and name.
    pub items: Vec<Object>,
    /// Set when there is more; give it to the next call.
    pub continue_token: String,
}

/// What a delete call did.
#[derive(Clone, Debug, PartialEq)]
pub struct Deleted {
    /// The object as it was, or, when it goes on for a while, as it is now.
    pub object: Object,
    /// Is it gone already?
    pub gone: bool,
}

pub(crate) fn malformed(what: &str, error: serde_json::Error) -> ClientError {
    ClientError::new(Code::Internal, "Internal", format!("cannot decode {what}: {error}"))
}

pub(crate) fn kind_ref(kind: &Kind) -> v1::KindRef {
    v1::KindRef { api_version: kind.api_version(), kind: kind.kind.to_owned() }
}
