//! Custom kinds: kinds that a CustomResourceDefinition makes while the cluster runs.
//!
//! A [`Kind`] lives for as long as the process: it is referred to from everywhere. So each
//! distinct head of a definition (names, scope, columns) is leaked once and found again when the
//! same definition comes back; applying a definition again, or removing and making it again, costs
//! nothing. Schemas, which are large and change, are not part of it: they are replaced inside.
//! A kind whose definition is removed is no longer found by name; objects of it are gone by then
//! (the definition's finalizer sees to that).

mod schema;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::error::{Errors, FieldError};
use crate::jsonpath::JsonPath;
use crate::kind::{Column, Kind, Ops, ScalePaths};
use crate::time;

pub(crate) use schema::Schema;

/// What only custom kinds have.
pub(crate) struct Custom {
    schema: RwLock<Arc<Schema>>,
    columns: Vec<Printed>,
    scale: Option<ScalePaths>,
    /// Version in which objects are stored.
    pub storage: &'static str,
}

/// A column beside the name.
struct Printed {
    path: JsonPath,
    /// Is it a time, shown as an age?
    date: bool,
}

/// The head of a definition: what makes two kinds the same.
type Head = String;

#[derive(Default)]
struct Table {
    /// Those that are served now; the storage version before the others.
    served: Vec<&'static Kind>,
    /// All that ever were, by their head.
    known: Vec<(Head, &'static Kind)>,
}

static TABLE: RwLock<Table> = RwLock::new(Table { served: Vec::new(), known: Vec::new() });

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

/// Serves what a definition defines, in place of what was defined under its name before.
pub fn register(definition: &CustomResourceDefinition) {
    let spec = &definition.spec;
    let mut versions: Vec<_> =
        spec.versions.iter().filter(|version| version.served || version.storage).collect();
    versions.sort_by_key(|version| !version.storage);
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.served.retain(|kind| !is_of(kind, definition));
    for version in versions {
        let root = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let root = root.and_then(|root| serde_json::to_value(root).ok()).unwrap_or_default();
        // What cannot be prepared was refused when the definition was written.
        let schema = Arc::new(Schema::new(root).unwrap_or_default());
        let head = head(definition, version);
        let known = table.known.iter().find(|(other, _)| *other == head).map(|(_, kind)| *kind);
        let kind = known.unwrap_or_else(|| {
            let kind: &'static Kind = Box::leak(Box::new(make(definition, version)));
            table.known.push((head, kind));
            kind
        });
        if let Ops::Custom(custom) = &kind.ops {
            *custom.schema.write().unwrap_or_else(PoisonError::into_inner) = schema;
        }
        table.served.push(kind);
    }
}

/// Serves a definition's kind no longer. `name`: `PLURAL.GROUP`, the definition's name.
pub fn unregister(name: &str) {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.served.retain(|kind| kind.resource() != name);
}

fn is_of(kind: &Kind, definition: &CustomResourceDefinition) -> bool {
    kind.group == definition.spec.group && kind.plural == definition.spec.names.plural
}

fn head(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Head {
    let mut version = version.clone();
    version.schema = None;
    let storage = storage(definition);
    let spec = &definition.spec;
    format!("{} {} {storage} {:?} {version:?}", spec.group, spec.scope, spec.names)
}

fn storage(definition: &CustomResourceDefinition) -> &str {
    let stored = definition.spec.versions.iter().find(|version| version.storage);
    stored.map(|version| version.name.as_str()).unwrap_or_default()
}

fn make(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Kind {
    let names = &definition.spec.names;
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
            storage: leak(storage(definition)),
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

/// Is a schema one that can be served? Path below the version, and what is wrong.
pub(crate) fn check_schema(root: Value) -> Result<(), (String, String)> {
    Schema::new(root).map(|_| ())
}

#[cfg(test)]
#[path = "custom_test.rs"]
mod tests;
