//! `metadata.managedFields`: who owns which field, through updates and through apply.

use serde_json::{Map, Value, json};

use super::merge::{MergeError, compare, fields_of, merge, prune};
use super::set::{Element, FieldSet};
use super::shape::Place;
use crate::options::Subresource;

/// Older entries of plain updates are joined into one of this name.
const ANCIENT: &str = "ancient-changes";
/// Entries of plain updates that are kept apart.
const MAX_UPDATE_ENTRIES: usize = 10;
/// Fields of the metadata that nobody owns: the system sets them, or they are the identity.
const SYSTEM_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
];

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manager {
    name: String,
    /// By server-side apply, and not by a plain write.
    apply: bool,
    api_version: String,
    /// `status`, `scale`, …; "" for the object itself.
    subresource: String,
    /// RFC 3339.
    time: String,
    fields: FieldSet,
}

impl Manager {
    fn decode(entry: &Value) -> Self {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("manager"),
            apply: entry["operation"] == "Apply",
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: FieldSet::decode(&entry["fieldsV1"]),
        }
    }

    fn encode(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encode(),
        });
        for (field, text) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !text.is_empty() {
                entry[field] = text.as_str().into();
            }
        }
        entry
    }

    fn is(&self, writer: &Writer<'_>) -> bool {
        self.name == writer.manager
            && self.apply == writer.apply
            && self.subresource == writer.subresource_name()
            // An apply in another version replaces what was applied before.
            && (writer.apply || self.api_version == writer.api_version)
    }

    /// As Kubernetes' messages name it.
    fn shown(&self) -> String {
        let mut text = Value::from(self.name.as_str()).to_string();
        if self.apply {
            return text;
        }
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        text += &format!(" using {}", self.api_version);
        if !self.time.is_empty() {
            text += &format!(" at {}", self.time);
        }
        text
    }
}

fn decode(object: &Value) -> Vec<Manager> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    // An empty entry is how clients ask for all to be forgotten.
    entries.map(Manager::decode).filter(|manager| !manager.fields.is_empty()).collect()
}

fn encode(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    join_ancient(&mut managers);
    managers.sort_by(|a, b| {
        (!a.apply, &a.time, &a.name, &a.subresource).cmp(&(
            !b.apply,
            &b.time,
            &b.name,
            &b.subresource,
        ))
    });
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managers.is_empty() {
        meta.remove("managedFields");
    } else {
        let entries = managers.iter().map(Manager::encode).collect();
        meta.insert("managedFields".into(), Value::Array(entries));
    }
}

/// The oldest updates lose their names when there are too many.
fn join_ancient(managers: &mut Vec<Manager>) {
    let mut updates: Vec<Manager> = Vec::new();
    managers.retain(|manager| {
        if !manager.apply {
            updates.push(manager.clone());
        }
        manager.apply
    });
    updates.sort_by(|a, b| (a.name != ANCIENT, &a.time).cmp(&(b.name != ANCIENT, &b.time)));
    while updates.len() > MAX_UPDATE_ENTRIES {
        let oldest = updates.remove(0);
        let version = oldest.api_version.clone();
        // Without a partner of the same version they are joined all the same: the paths matter.
        let partner = updates.iter().position(|other| other.api_version == version).unwrap_or(0);
        if let Some(partner) = updates.get_mut(partner) {
            partner.fields.add(&oldest.fields);
            ANCIENT.clone_into(&mut partner.name);
            partner.subresource.clear();
        }
    }
    managers.append(&mut updates);
}

/// Who writes, and through what.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub manager: &'a str,
    pub apply: bool,
    pub api_version: &'a str,
    pub subresource: Subresource,
    /// Does the kind keep its status apart?
    pub has_status: bool,
    pub place: Place<'a>,
    /// RFC 3339.
    pub now: &'a str,
}

impl Writer<'_> {
    fn subresource_name(&self) -> &'static str {
        match self.subresource {
            Subresource::Status => "status",
            _ => "",
        }
    }

    /// What of a set can be owned at all by a write like this.
    fn owned(&self, mut set: FieldSet) -> FieldSet {
        let status = Element::field("status");
        if self.subresource == Subresource::Status {
            set.children.retain(|element, _| *element == status);
        } else if self.has_status {
            set.children.remove(&status);
        }
        set.own = false;
        for field in ["apiVersion", "kind"] {
            set.children.remove(&Element::field(field));
        }
        let metadata = Element::field("metadata");
        if let Some(meta) = set.children.get_mut(&metadata) {
            for field in SYSTEM_METADATA {
                meta.children.remove(&Element::field(field));
            }
            meta.own = false;
            if meta.is_empty() {
                set.children.remove(&metadata);
            }
        }
        set
    }

    fn entry(&self, fields: FieldSet) -> Manager {
        Manager {
            name: self.manager.to_owned(),
            apply: self.apply,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource_name().to_owned(),
            time: self.now.to_owned(),
            fields,
        }
    }
}

/// Records in `new` that the writer made it of `old` (`null` for a new object).
pub(crate) fn record_update(new: &mut Value, old: &Value, writer: &Writer<'_>) {
    let difference = compare(old, new, writer.place);
    let changed = writer.owned(difference.changed);
    let removed = writer.owned(difference.removed);
    let mut managers = decode(new);
    if changed.is_empty() && removed.is_empty() {
        encode(new, managers);
        return;
    }
    for manager in &mut managers {
        let before = manager.fields.clone();
        manager.fields = manager.fields.without_below(&removed);
        if manager.is(writer) {
            manager.fields.add(&changed);
            if manager.fields != before {
                writer.now.clone_into(&mut manager.time);
            }
        } else {
            manager.fields = manager.fields.difference(&changed);
        }
    }
    if !managers.iter().any(|manager| manager.is(writer)) {
        managers.push(writer.entry(changed));
    }
    encode(new, managers);
}

/// One field that another manager owns and that the applied configuration would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictCause {
    /// Whose it is, as Kubernetes words it: `conflict with "kubectl" using apps/v1`.
    pub message: String,
    /// The field: `.spec.replicas`
    pub field: String,
}

/// Why a configuration is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApplyError {
    Conflicts(Vec<ConflictCause>),
    Merge(MergeError),
}

impl From<MergeError> for ApplyError {
    fn from(error: MergeError) -> Self {
        Self::Merge(error)
    }
}

/// The text of conflicts, in Kubernetes' words.
pub(crate) fn conflict_text(causes: &[ConflictCause]) -> String {
    let mut text = match causes {
        [_] => "Apply failed with 1 conflict: ".to_owned(),
        many => format!("Apply failed with {} conflicts: ", many.len()),
    };
    let mut at = 0;
    while let Some(first) = causes.get(at) {
        let same = causes[at..].iter().take_while(|cause| cause.message == first.message).count();
        if at > 0 {
            text.push('\n');
        }
        if same == 1 {
            text += &format!("{}: {}", first.message, first.field);
        } else {
            text += &format!("{}:", first.message.replacen("conflict", "conflicts", 1));
            for cause in &causes[at..at + same] {
                text += &format!("\n- {}", cause.field);
            }
        }
        at += same;
    }
    text
}

/// A configuration that is being applied to a live object.
pub(crate) struct Applying {
    /// The live object with the configuration in it.
    pub merged: Value,
    fields: FieldSet,
    managers: Vec<Manager>,
}

/// Merges an applied configuration and removes what the manager has applied before and does not
/// any more. `live` is `null` for a new object.
pub(crate) fn begin(
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
) -> Result<Applying, ApplyError> {
    let applied = relevant(applied, writer);
    let fields = writer.owned(fields_of(&applied, writer.place)?);
    let managers = decode(live);
    let mut merged = merge(live, &applied, writer.place);
    if let Some(mine) = managers.iter().find(|manager| manager.is(writer)) {
        let gone = mine.fields.difference(&fields);
        let mut kept = fields.clone();
        for other in managers.iter().filter(|manager| !manager.is(writer)) {
            kept.add(&other.fields);
        }
        prune(&mut merged, &gone, &kept, writer.place);
    }
    Ok(Applying { merged, fields, managers })
}

impl Applying {
    /// The object with the new owners, made of `decoded`, which is [`Self::merged`] as its kind
    /// understands it.
    pub(crate) fn finish(
        mut self,
        live: &Value,
        mut decoded: Value,
        writer: &Writer<'_>,
        force: bool,
    ) -> Result<Value, ApplyError> {
        let difference = compare(live, &decoded, writer.place);
        let changed = self.fields.intersection(&difference.changed);
        let removed = writer.owned(difference.removed);
        let mut causes = Vec::new();
        for other in self.managers.iter_mut().filter(|manager| !manager.is(writer)) {
            let contested = other.fields.intersection(&changed);
            let message = format!("conflict with {}", other.shown());
            let cause = |field| ConflictCause { message: message.clone(), field };
            causes.extend(contested.paths().into_iter().map(cause));
            other.fields = other.fields.difference(&contested).without_below(&removed);
        }
        if !force && !causes.is_empty() {
            return Err(ApplyError::Conflicts(causes));
        }
        let same = |mine: &&mut Manager| mine.is(writer);
        match self.managers.iter_mut().find(same) {
            Some(mine) if mine.fields == self.fields && mine.api_version == writer.api_version => {}
            Some(mine) => *mine = writer.entry(self.fields),
            None => self.managers.push(writer.entry(self.fields)),
        }
        encode(&mut decoded, self.managers);
        Ok(decoded)
    }
}

/// The part of an applied configuration that a write like this can change, without nulls.
fn relevant(applied: &Value, writer: &Writer<'_>) -> Value {
    let mut applied = without_nulls(applied);
    let Some(map) = applied.as_object_mut() else { return applied };
    if writer.subresource == Subresource::Status {
        map.retain(|field, _| ["apiVersion", "kind", "status"].contains(&field.as_str()));
    } else if writer.has_status {
        map.remove("status");
    }
    if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|field, _| {
            ["name", "namespace"].contains(&field.as_str())
                || !SYSTEM_METADATA.contains(&field.as_str())
        });
    }
    applied
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            let kept: Map<String, Value> =
                kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect();
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        plain => plain.clone(),
    }
}
