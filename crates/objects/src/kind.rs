//! What a kind is, and what can be asked of it.

mod ops;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use self::ops::{Checked, Ops};
use crate::custom::Custom;
use crate::error::{Errors, FieldError, Invalid};

/// A column of `get`'s table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, in capitals.
    pub name: &'static str,
    /// Shown with `-o wide` only.
    pub wide: bool,
}

impl Column {
    /// A column that is always shown.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, wide: false }
    }

    /// A column of `-o wide`.
    #[must_use]
    pub const fn wide(name: &'static str) -> Self {
        Self { name, wide: true }
    }
}

/// One kind of object: an entry of the table in [`crate::kinds`].
pub struct Kind {
    /// `""` for the core group.
    pub group: &'static str,
    /// `v1`
    pub version: &'static str,
    /// `Deployment`
    pub kind: &'static str,
    /// `deployments`
    pub plural: &'static str,
    /// `deployment`
    pub singular: &'static str,
    /// `["deploy"]`
    pub short_names: &'static [&'static str],
    /// Groups of kinds for `get`, such as `all`.
    pub categories: &'static [&'static str],
    /// Do objects live in a namespace?
    pub namespaced: bool,
    /// Is `status` a subresource of its own?
    pub has_status: bool,
    /// Fields (besides metadata.name and metadata.namespace) that field selectors may name.
    pub selectable: &'static [&'static str],
    /// Columns of `get`'s table, without NAMESPACE; [`Kind::row`] gives one cell for each.
    pub columns: &'static [Column],
    pub(crate) ops: Ops,
}

/// An object as its type.
pub type Decoded = Arc<dyn Any + Send + Sync>;

/// Where a kind with the subresource `scale` keeps what it is about. Dotted paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec_replicas: &'static str,
    /// Present replicas.
    pub status_replicas: &'static str,
    /// The selector of the pods: a label selector, or its text.
    pub selector: &'static str,
}

impl ScalePaths {
    /// Those of the kinds in `apps`.
    pub const APPS: Self = Self {
        spec_replicas: "spec.replicas",
        status_replicas: "status.replicas",
        selector: "spec.selector",
    };
}

/// A type of `k8s-openapi` that is served, with its kind's rules.
pub trait Typed:
    Resource
    + Metadata<Ty = ObjectMeta>
    + JsonSchema
    + DeserializeOwned
    + Serialize
    + Clone
    + PartialEq
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Set for kinds with the subresource `scale`.
    const SCALE: Option<ScalePaths> = None;

    /// The kind.
    fn kind() -> &'static Kind;

    /// Fills in what was left out, as Kubernetes does.
    fn set_defaults(&mut self) {}

    /// Checks everything but the metadata, which is checked alike for all kinds.
    fn validate(&self, _errors: &mut Errors) {}

    /// Checks what may not change from `old` to `self`.
    fn validate_update(&self, _old: &Self, _errors: &mut Errors) {}

    /// One cell per column of the kind.
    fn cells(&self, now: Timestamp) -> Vec<String>;

    /// From JSON text.
    ///
    /// # Errors
    /// When it is not such an object.
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// From JSON.
    ///
    /// # Errors
    /// When it is not such an object.
    fn from_value(value: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value.to_string().as_bytes())
    }

    /// To JSON, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// When a time is out of range.
    fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&serde_json::to_vec(self)?)
    }
}

impl Kind {
    /// Finds a kind by `apps/v1` and `Deployment`.
    #[must_use]
    pub fn by_gvk(api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        crate::kinds::find(|k| k.kind == kind && k.group == group && k.version == version)
    }

    /// Finds a kind by what users type: plural, singular, short name or kind, in any case, with
    /// or without group (`deployments.apps`).
    #[must_use]
    pub fn by_resource(resource: &str) -> Option<&'static Kind> {
        let lower = resource.to_ascii_lowercase();
        let (name, group) = match lower.split_once('.') {
            Some((name, group)) => (name, Some(group)),
            None => (lower.as_str(), None),
        };
        crate::kinds::find(|kind| {
            let named = kind.plural == name
                || kind.singular == name
                || kind.kind.eq_ignore_ascii_case(name)
                || kind.short_names.contains(&name);
            // Both "apps" and "v1.apps" are written.
            let grouped = group.is_none_or(|group| {
                group == kind.group || group == format!("{}.{}", kind.version, kind.group)
            });
            named && grouped
        })
    }

    /// `v1`, `apps/v1`
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: what error messages and keys use.
    #[must_use]
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Pod`, `Deployment.apps`: what validation messages use.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Fills in what was left out, as Kubernetes does.
    ///
    /// # Errors
    /// When the value is not an object of this kind.
    pub fn default(&self, value: &mut Value) -> Result<(), Invalid> {
        match &self.ops {
            Ops::Typed(_) => {
                let complete = self.complete(value);
                *value = complete.map_err(|errors| Invalid::new(self, name_of(value), errors))?;
            }
            Ops::Custom(custom) => custom.default(value),
        }
        Ok(())
    }

    /// Checks an object, its metadata included.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn validate(&self, value: &Value) -> Result<(), Invalid> {
        let errors = match &self.ops {
            Ops::Typed(ops) => (ops.validate)(value),
            Ops::Custom(custom) => custom.validate(self, value),
        };
        self.verdict(value, errors)
    }

    /// Checks a change from `old` to `new`, and `new` itself.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn validate_update(&self, new: &Value, old: &Value) -> Result<(), Invalid> {
        let errors = match &self.ops {
            Ops::Typed(ops) => (ops.validate_update)(new, old),
            Ops::Custom(custom) => custom.validate_update(self, new, old),
        };
        self.verdict(new, errors)
    }

    /// One cell per column; `<unknown>` in all of them when the value cannot be decoded.
    #[must_use]
    pub fn row(&self, value: &Value, now: Timestamp) -> Vec<String> {
        match &self.ops {
            Ops::Typed(ops) => (ops.row)(value, now),
            Ops::Custom(custom) => custom.row(value, now),
        }
    }

    /// The object as its kind knows it.
    pub(crate) fn known(&self, value: &Value) -> Result<Value, Vec<FieldError>> {
        match &self.ops {
            Ops::Typed(ops) => (ops.decode)(value),
            Ops::Custom(custom) => custom.decode(value),
        }
    }

    /// The object as the kind knows it, with defaults.
    pub(crate) fn complete(&self, value: &Value) -> Result<Value, Vec<FieldError>> {
        match &self.ops {
            Ops::Typed(ops) => (ops.complete)(value),
            Ops::Custom(custom) => {
                let mut known = custom.decode(value)?;
                custom.default(&mut known);
                Ok(known)
            }
        }
    }

    /// [`Self::complete`], and what [`Self::validate`] finds in the result.
    pub(crate) fn check_complete(&self, value: &Value) -> Result<Checked, Vec<FieldError>> {
        match &self.ops {
            Ops::Typed(ops) => (ops.check_complete)(value),
            Ops::Custom(custom) => {
                let complete = self.complete(value)?;
                let errors = custom.validate(self, &complete);
                Ok((complete, errors))
            }
        }
    }

    /// Is it defined by a CustomResourceDefinition?
    #[must_use]
    pub fn is_custom(&self) -> bool {
        self.custom().is_some()
    }

    /// Do clients get it in this version?
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.custom().is_none_or(|custom| custom.served)
    }

    /// The structural schema of a custom kind, in OpenAPI's words.
    #[must_use]
    pub fn structure(&self) -> Option<Arc<Value>> {
        self.custom().map(|custom| Arc::clone(&custom.schema().root))
    }

    fn custom(&self) -> Option<&Custom> {
        match &self.ops {
            Ops::Typed(_) => None,
            Ops::Custom(custom) => Some(custom),
        }
    }

    /// Decodes an object for [`Self::cells`].
    ///
    /// # Errors
    /// When it is not such an object.
    pub fn parse(&self, json: &[u8]) -> Result<Decoded, serde_json::Error> {
        match &self.ops {
            Ops::Typed(ops) => (ops.parse)(json),
            Ops::Custom(_) => Ok(Arc::new(serde_json::from_slice::<Value>(json)?)),
        }
    }

    /// [`Self::row`] of an object that [`Self::parse`] has decoded.
    #[must_use]
    pub fn cells(&self, object: &(dyn Any + Send + Sync), now: Timestamp) -> Vec<String> {
        let cells = match &self.ops {
            Ops::Typed(ops) => (ops.cells)(object, now),
            Ops::Custom(custom) => {
                object.downcast_ref::<Value>().map(|value| custom.row(value, now))
            }
        };
        cells.unwrap_or_else(|| vec!["<unknown>".into(); self.columns.len()])
    }

    /// Set for kinds with the subresource `scale`.
    #[must_use]
    pub fn scale(&self) -> Option<ScalePaths> {
        match &self.ops {
            Ops::Typed(ops) => ops.scale,
            Ops::Custom(custom) => custom.scale(),
        }
    }

    /// A reference to the kind's schema, which is added to the generator's definitions.
    #[must_use]
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        match &self.ops {
            Ops::Typed(ops) => (ops.schema)(generator),
            Ops::Custom(custom) => custom.described(self, generator),
        }
    }

    pub(crate) fn verdict(&self, value: &Value, errors: Vec<FieldError>) -> Result<(), Invalid> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Invalid::new(self, name_of(value), errors))
    }
}

/// `metadata.name`, or `metadata.generateName`, or nothing.
pub(crate) fn name_of(value: &Value) -> &str {
    let metadata = &value["metadata"];
    metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default()
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.kind == other.kind && self.group == other.group)
    }
}

impl Eq for Kind {}

impl std::hash::Hash for Kind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.group.hash(state);
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.group, self.kind).cmp(&(other.group, other.kind))
    }
}
