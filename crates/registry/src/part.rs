//! Changes of a pod's status and node: by far the most frequent writes. The new text takes the
//! place of the old one, and the rest of the object is neither decoded nor encoded.

use bytes::Bytes;
use k8s_openapi::api::core::v1::PodStatus;
use quorate_objects::{FieldError, Invalid, kinds};
use serde_json::{Value, json};

use crate::error::RegistryError;
use crate::object::ObjectKey;

/// What of a pod is to change.
pub(crate) struct Part {
    /// The JSON text of its status.
    pub status: Bytes,
    /// The node that it is bound to from now on.
    pub node: Option<String>,
}

impl Part {
    pub fn new(status: &PodStatus, node: Option<String>) -> Result<Self, RegistryError> {
        let text = serde_json::to_vec(status);
        let text = text.map_err(|error| RegistryError::Internal(error.to_string()))?;
        Ok(Self { status: text.into(), node })
    }

    /// Of a status that somebody has sent.
    pub fn read(key: &ObjectKey, status: &[u8]) -> Result<Self, RegistryError> {
        let status: PodStatus = serde_json::from_slice(status).map_err(|error| {
            let error = FieldError::invalid("status", "", error.to_string());
            RegistryError::from(Invalid::new(key.kind, &key.name, vec![error]))
        })?;
        Self::new(&status, None)
    }

    /// As an object with nothing else in it.
    pub fn value(&self) -> Value {
        // It was written by `new`, so it is JSON.
        let status: Value = serde_json::from_slice(&self.status).unwrap_or_default();
        let mut value = json!({
            "apiVersion": kinds::POD.api_version(), "kind": kinds::POD.kind, "status": status,
        });
        if let Some(node) = &self.node {
            value["spec"] = json!({"nodeName": node});
        }
        value
    }
}

/// What an edit makes of an object.
pub(crate) enum Edited {
    /// All of it.
    Object(Value),
    /// A part of a pod.
    Part(Part),
}

impl From<Value> for Edited {
    fn from(value: Value) -> Self {
        Self::Object(value)
    }
}

#[cfg(test)]
#[path = "part_test.rs"]
mod tests;
