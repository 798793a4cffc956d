//! Changes of a pod's status and node: by far the most frequent writes. The new text takes the
//! place of the old one, and the rest of the object is neither decoded nor encoded.

use std::borrow::Cow;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use quorate_objects::pod::AGENT_CONDITIONS;
use quorate_objects::{FieldError, Invalid, kinds};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};

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

    /// Of a status that the agent of `old` has sent. It sets its own conditions only: those of
    /// others stay, and what it says of them is what it saw of them at some time.
    pub fn read(key: &ObjectKey, status: &[u8], old: &Object) -> Result<Self, RegistryError> {
        let mut status: PodStatus = serde_json::from_slice(status).map_err(|error| {
            let error = FieldError::invalid("status", "", error.to_string());
            RegistryError::from(Invalid::new(key.kind, &key.name, vec![error]))
        })?;
        let others = others(old)?;
        let mut conditions = status.conditions.take().unwrap_or_default();
        conditions.retain(|one| AGENT_CONDITIONS.contains(&one.type_.as_str()));
        conditions.extend(others);
        status.conditions = (!conditions.is_empty()).then_some(conditions);
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

/// The types of a status' conditions.
#[derive(Deserialize)]
struct Conditions<'a> {
    #[serde(borrow, default)]
    conditions: Vec<Condition<'a>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    name: Cow<'a, str>,
}

/// The conditions of a pod that its agent has not set. Most pods have none: for that a look at the
/// text of the status is enough.
fn others(old: &Object) -> Result<Vec<PodCondition>, RegistryError> {
    if let Some(text) = old.status_text()
        && let Ok(status) = serde_json::from_slice::<Conditions<'_>>(text)
        && status.conditions.iter().all(|one| AGENT_CONDITIONS.contains(&&*one.name))
    {
        return Ok(Vec::new());
    }
    let old = old.typed::<Pod>()?;
    let conditions = old.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = conditions.filter(|one| !AGENT_CONDITIONS.contains(&one.type_.as_str()));
    Ok(others.cloned().collect())
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
