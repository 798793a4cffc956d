//! Custom kinds: kinds that a CustomResourceDefinition makes while the cluster runs.
//!
//! A [`Kind`] lives for as long as the process: it is referred to from everywhere. So each
//! distinct head of a definition (names, scope, columns) is leaked once, some hundred bytes, and
//! found again when the same definition comes back; applying a definition again, or removing and
//! making it again, costs nothing. Schemas, which are large and change, are not part of it: they
//! are replaced inside. A kind whose definition is removed is no longer found by name; objects of
//! it are gone by then (the definition's finalizer sees to that).
//!
//! Objects are stored in one version. The others differ in their name, their columns and the
//! schema that clients are shown; what is written is checked by the stored version's.

mod schema;
mod structural;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionVersion,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::error::{Errors, FieldError};
use crate::jsonpath::JsonPath;
use crate::kind::{Column, Kind, Ops, ScalePaths};
use crate::time;

pub(crate) use schema::Schema;
pub(crate) use structural::check;

/// What only custom kinds have.
pub(crate) struct Custom {
    schema: RwLock<Arc<Schema>>,
    columns: Vec<Printed>,
    scale: Option<ScalePaths>,
    /// Do clients get this version? Objects may be stored in one that they do not.
    pub served: bool,
}

/// A column beside the name.
struct Printed {
    path: JsonPath,
    /// Is it a time, shown as an age?
    date: bool,
}

/// The head of a definition: what makes two kinds the same.
type Head = String;

/// A version of a custom kind beside the one in which its objects are stored.
#[derive(Clone, Copy, Debug)]
pub struct OtherVersion {
    /// The kind in this version.
    pub kind: &'static Kind,
    /// The kind in the version that is stored.
    pub stored: &'static Kind,
}

#[derive(Default)]
struct Table {
    /// Those that are served now, in the version that is stored.
    served: Vec<&'static Kind>,
    others: Vec<OtherVersion>,
    /// All that ever were, by their head.
    known: Vec<(Head, &'static Kind)>,
}

impl Table {
    fn forget(&mut self, resource: &str) {
        self.served.retain(|kind| kind.resource() != resource);
        self.others.retain(|other| other.stored.resource() != resource);
    }

    /// The kind that a version of a definition makes, with its schema.
    fn kind(
        &mut self,
        definition: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
    ) -> &'static Kind {
        let root = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let root = root.and_then(|root| serde_json::to_value(root).ok()).unwrap_or_default();
        // What cannot be prepared was refused when the definition was written.
        let schema = Arc::new(Schema::new(root).unwrap_or_default());
        let head = head(definition, version);
        let known = self.known.iter().find(|(other, _)| *other == head).map(|(_, kind)| *kind);
        let kind = known.unwrap_or_else(|| {
            let kind: &'static Kind = Box::leak(Box::new(make(definition, version)));
            self.known.push((head, kind));
            kind
        });
        if let Ops::Custom(custom) = &kind.ops {
            *custom.schema.write().unwrap_or_else(PoisonError::into_inner) = schema;
        }
        kind
    }
}

static TABLE: RwLock<Table> =
    RwLock::new(Table { served: Vec::new(), others: Vec::new(), known: Vec::new() });

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn leak_all(texts: Option<&Vec<String>>) -> &'static [&'static str] {
    let texts: Vec<&'static str> = texts.into_iter().flatten().map(|text| leak(text)).collect();
    Box::leak(texts.into_boxed_slice())
}

/// The custom kinds that are served now.
pub(crate) fn served() -> Vec<&'static Kind> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).served.clone()
}

/// The first custom kind for which this is true.
pub(crate) fn find(fits: impl Fn(&Kind) -> bool) -> Option<&'static Kind> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    table.served.iter().copied().find(|kind| fits(kind))
}

/// The versions beside the stored ones that are served now.
#[must_use]
pub fn other_versions() -> Vec<OtherVersion> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).others.clone()
}

/// Serves what a definition defines, in place of what was defined under its name before. Nothing
/// as long as its names are not accepted.
pub fn register(definition: &CustomResourceDefinition) {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.forget(&resource(definition));
    let versions = &definition.spec.versions;
    let Some(storage) = versions.iter().find(|version| version.storage) else { return };
    if !is_established(definition) {
        return;
    }
    let stored = table.kind(definition, storage);
    for version in versions.iter().filter(|version| version.served && !version.storage) {
        let kind = table.kind(definition, version);
        table.others.push(OtherVersion { kind, stored });
    }
    table.served.push(stored);
}

/// Serves a definition's kind no longer. `name`: `PLURAL.GROUP`, the definition's name.
pub fn unregister(name: &str) {
    TABLE.write().unwrap_or_else(PoisonError::into_inner).forget(name);
}

/// Are its names accepted, so that its objects can be made?
#[must_use]
pub fn is_established(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn resource(definition: &CustomResourceDefinition) -> String {
    format!("{}.{}", definition.spec.names.plural, definition.spec.group)
}

/// The names that were accepted: others that are wished for later may belong to another kind.
fn names(definition: &CustomResourceDefinition) -> &CustomResourceDefinitionNames {
    let accepted = definition.status.as_ref().and_then(|status| status.accepted_names.as_ref());
    accepted.filter(|names| !names.kind.is_empty()).unwrap_or(&definition.spec.names)
}

fn head(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Head {
    let mut version = version.clone();
    version.schema = None;
    let (spec, names) = (&definition.spec, names(definition));
    format!("{} {} {names:?} {version:?}", spec.group, spec.scope)
}

fn make(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Kind {
    let names = names(definition);
    let subresources = version.subresources.clone().unwrap_or_default();
    let mut columns = vec![Column::new("NAME")];
    let mut printed = Vec::new();
    for column in version.additional_printer_columns.iter().flatten() {
        let Ok(path) = format!("{{{}}}", column.json_path).parse() else { continue };
        let name = leak(&column.name.to_uppercase());
        let wide = column.priority.unwrap_or(0) > 0;
        columns.push(if wide { Column::wide(name) } else { Column::new(name) });
        printed.push(Printed { path, date: column.type_ == "date" });
    }
    if printed.is_empty()
        && let Ok(path) = "{.metadata.creationTimestamp}".parse()
    {
        columns.push(Column::new("AGE"));
        printed.push(Printed { path, date: true });
    }
    let fields = version.selectable_fields.iter().flatten();
    let fields: Vec<String> =
        fields.map(|field| field.json_path.trim_start_matches('.').to_owned()).collect();
    let dotted = |path: &str| leak(path.trim_start_matches('.'));
    let scale = subresources.scale.map(|scale| ScalePaths {
        spec_replicas: dotted(&scale.spec_replicas_path),
        status_replicas: dotted(&scale.status_replicas_path),
        selector: dotted(&scale.label_selector_path.unwrap_or_default()),
    });
    let singular = names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase());
    Kind {
        group: leak(&definition.spec.group),
        version: leak(&version.name),
        kind: leak(&names.kind),
        plural: leak(&names.plural),
        singular: leak(&singular),
        short_names: leak_all(names.short_names.as_ref()),
        categories: leak_all(names.categories.as_ref()),
        namespaced: definition.spec.scope == "Namespaced",
        has_status: subresources.status.is_some(),
        selectable: leak_all(Some(&fields)),
        columns: Box::leak(columns.into_boxed_slice()),
        ops: Ops::Custom(Box::new(Custom {
            schema: RwLock::default(),
            columns: printed,
            scale,
            served: version.served,
        })),
    }
}

impl Custom {
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn scale(&self) -> Option<ScalePaths> {
        self.scale
    }

    /// Adds the schema that clients are shown to the generator's definitions, and refers to it.
    pub fn described(&self, kind: &Kind, generator: &mut SchemaGenerator) -> schemars::Schema {
        let meta = generator.subschema_for::<ObjectMeta>().to_value();
        let mut root = Value::clone(&self.schema().root);
        if !root["properties"].is_object() {
            root["properties"] = Value::Object(Map::new());
        }
        for (field, about) in [("apiVersion", "group and version"), ("kind", "kind")] {
            let text = format!("The object's {about}.");
            root["properties"][field] = json!({"type": "string", "description": text});
        }
        root["properties"]["metadata"] = meta;
        let reversed: Vec<&str> = kind.group.rsplit('.').collect();
        let name = format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind);
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        generator.definitions_mut().insert(name, root);
        // Any object is a schema.
        reference.try_into().unwrap_or_default()
    }

    pub fn decode(&self, value: &Value) -> Result<Value, Vec<FieldError>> {
        let mut known = value.clone();
        let meta = metadata(value)?;
        let meta = serde_json::to_value(&meta)
            .map_err(|error| vec![FieldError::invalid("metadata", "", error.to_string())])?;
        if let Some(map) = known.as_object_mut() {
            map.insert("metadata".into(), meta);
        }
        self.schema().prune(&mut known);
        Ok(known)
    }

    pub fn default(&self, value: &mut Value) {
        self.schema().default(value);
    }

    pub fn validate(&self, kind: &Kind, value: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        match metadata(value) {
            Ok(meta) => crate::meta::validate(kind, &meta, &mut errors),
            Err(wrong) => return wrong,
        }
        self.schema().validate(value, &mut errors);
        errors.0
    }

    pub fn validate_update(&self, kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors(self.validate(kind, new));
        if let (Ok(new), Ok(old)) = (metadata(new), metadata(old)) {
            crate::meta::validate_update(&new, &old, &mut errors);
        }
        errors.0
    }

    pub fn row(&self, value: &Value, now: Timestamp) -> Vec<String> {
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let cells = self.columns.iter().map(|column| {
            let text = column.path.render(value);
            match time::parse(&text) {
                Ok(at) if column.date => time::age(at, now),
                _ => text,
            }
        });
        [name].into_iter().chain(cells).collect()
    }
}

fn metadata(value: &Value) -> Result<ObjectMeta, Vec<FieldError>> {
    let empty = Value::Object(Map::new());
    let meta = value.get("metadata").filter(|meta| !meta.is_null()).unwrap_or(&empty);
    let text = format!("{{\"metadata\":{meta}}}");
    #[derive(serde::Deserialize)]
    struct Holder {
        metadata: ObjectMeta,
    }
    serde_json::from_str::<Holder>(&text)
        .map(|holder| holder.metadata)
        .map_err(|error| vec![crate::decode::type_error(&text, &error)])
}

#[cfg(test)]
#[path = "custom_test.rs"]
mod tests;
