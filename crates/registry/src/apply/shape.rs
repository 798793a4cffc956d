//! Which lists are sets, which are maps by key, and which values are one whole: what merging
//! needs to know about a kind.
//!
//! Built-in kinds: the tables here, from the merge keys and list types in Kubernetes' API
//! reference. Custom kinds: the `x-kubernetes-list-type` and its like in their schemas.

use serde_json::{Map, Value};

use super::set::{Element, canonical};

/// How a value is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Field by field (objects).
    Granular,
    /// As a whole.
    Atomic,
    /// A list whose values are a set.
    Set,
    /// A list whose items are known by these fields.
    Keys(Vec<Key>),
}

/// A field that identifies an item, and what it is when it is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub name: String,
    pub default: Option<Value>,
}

/// A list that is merged by item.
pub(crate) struct ListRule {
    field: &'static str,
    /// The field that contains it; "" for any.
    parent: &'static str,
    /// The key of strategic merge patches; "" for a set of plain values.
    pub strategic: &'static str,
    /// The keys of server-side apply; none: it is replaced as a whole (or is a set, as above).
    apply: &'static [&'static str],
}

const fn list(
    field: &'static str,
    parent: &'static str,
    strategic: &'static str,
    apply: &'static [&'static str],
) -> ListRule {
    ListRule { field, parent, strategic, apply }
}

/// Other lists are replaced as a whole.
const LISTS: &[ListRule] = &[
    list("containers", "", "name", &["name"]),
    list("initContainers", "", "name", &["name"]),
    list("ephemeralContainers", "", "name", &["name"]),
    list("env", "", "name", &["name"]),
    list("volumes", "", "name", &["name"]),
    list("volumeMounts", "", "mountPath", &["mountPath"]),
    list("volumeDevices", "", "devicePath", &["devicePath"]),
    list("imagePullSecrets", "", "name", &["name"]),
    list("secrets", "", "name", &["name"]),
    list("hostAliases", "", "ip", &["ip"]),
    list("topologySpreadConstraints", "", "topologyKey", &["topologyKey", "whenUnsatisfiable"]),
    list("schedulingGates", "", "name", &["name"]),
    list("resourceClaims", "spec", "name", &["name"]),
    list("podIPs", "", "ip", &["ip"]),
    list("hostIPs", "", "ip", &[]),
    list("ports", "containers", "containerPort", &["containerPort", "protocol"]),
    list("ports", "initContainers", "containerPort", &["containerPort", "protocol"]),
    list("ports", "ephemeralContainers", "containerPort", &["containerPort", "protocol"]),
    list("ports", "spec", "port", &["port", "protocol"]),
    list("conditions", "", "type", &["type"]),
    list("addresses", "status", "type", &["type"]),
    list("taints", "", "key", &[]),
    list("podCIDRs", "", "", &[]),
    list("finalizers", "", "", &[]),
    list("ownerReferences", "", "uid", &["uid"]),
];

/// Objects that are one whole: references and selectors, of which a part makes no sense.
const ATOMIC: &[&str] = &[
    "selector",
    "podSelector",
    "namespaceSelector",
    "labelSelector",
    "nodeSelector",
    "matchLabelSelector",
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "secretRef",
    "configMapRef",
    "roleRef",
    "targetRef",
    "involvedObject",
    "claimRef",
    "required",
    "nodeSelectorTerms",
];

/// The rule for a list of a built-in kind, if it is merged by item.
pub(crate) fn list_rule(parent: &str, field: &str) -> Option<&'static ListRule> {
    LISTS.iter().find(|rule| rule.field == field && ["", parent].contains(&rule.parent))
}

/// A place in objects of a kind.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In a built-in kind: the field, and the field that contains it.
    Builtin { parent: &'a str, field: &'a str },
    /// The top of a custom kind, with its schema.
    CustomTop(&'a Value),
    /// In a custom kind: the schema of the place, when it has one.
    Custom(Option<&'a Value>),
}

impl<'a> Place<'a> {
    /// The top of a built-in kind.
    pub(crate) const TOP: Place<'static> = Place::Builtin { parent: "", field: "" };

    /// A field of the object at this place.
    pub(crate) fn child<'b>(self, name: &'b str) -> Place<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Builtin { field, .. } => Place::Builtin { parent: field, field: name },
            // Metadata is the same in every kind, and schemas say nothing of it.
            Self::CustomTop(_) if name == "metadata" => Place::Builtin { parent: "", field: name },
            Self::CustomTop(schema) => Place::Custom(Some(schema)).child(name),
            Self::Custom(schema) => Place::Custom(schema.and_then(|schema| {
                let own = schema.get("properties").and_then(|all| all.get(name));
                own.or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()))
            })),
        }
    }

    /// An item of the list at this place.
    pub(crate) fn item(self) -> Self {
        match self {
            // Fields within items have the list as their parent.
            Self::Builtin { .. } => self,
            Self::CustomTop(_) => self,
            Self::Custom(schema) => Self::Custom(schema.and_then(|schema| schema.get("items"))),
        }
    }

    /// How the value at this place is merged.
    pub(crate) fn shape(self, value: &Value) -> Shape {
        match (self, value) {
            (Self::Builtin { field, .. }, Value::Object(_)) => {
                if ATOMIC.contains(&field) {
                    Shape::Atomic
                } else {
                    Shape::Granular
                }
            }
            (Self::Builtin { parent, field }, Value::Array(_)) => match list_rule(parent, field) {
                Some(rule) if !rule.apply.is_empty() => {
                    Shape::Keys(rule.apply.iter().map(|name| Key::builtin(name)).collect())
                }
                Some(rule) if rule.strategic.is_empty() => Shape::Set,
                _ => Shape::Atomic,
            },
            (Self::CustomTop(_), Value::Object(_)) => Shape::Granular,
            (Self::Custom(schema), Value::Object(_)) => {
                match text(schema, "x-kubernetes-map-type") {
                    "atomic" => Shape::Atomic,
                    _ => Shape::Granular,
                }
            }
            (Self::Custom(schema), Value::Array(_)) => {
                match text(schema, "x-kubernetes-list-type") {
                    "set" => Shape::Set,
                    "map" => Shape::Keys(custom_keys(schema)),
                    _ => Shape::Atomic,
                }
            }
            _ => Shape::Atomic,
        }
    }
}

fn text<'a>(schema: Option<&'a Value>, field: &str) -> &'a str {
    schema.and_then(|schema| schema.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn custom_keys(schema: Option<&Value>) -> Vec<Key> {
    let Some(schema) = schema else { return Vec::new() };
    let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    names
        .filter_map(Value::as_str)
        .map(|name| Key {
            name: name.to_owned(),
            default: schema["items"]["properties"][name].get("default").cloned(),
        })
        .collect()
}

impl Key {
    fn builtin(name: &str) -> Self {
        let default = (name == "protocol").then(|| "TCP".into());
        Self { name: name.to_owned(), default }
    }
}

/// The element that stands for an item.
///
/// # Errors
/// What is missing in it.
pub(crate) fn element(shape: &Shape, item: &Value) -> Result<Element, String> {
    let Shape::Keys(keys) = shape else { return Ok(Element::Item(canonical(item))) };
    let mut found = Map::new();
    for key in keys {
        let value = item.get(&key.name).filter(|value| !value.is_null());
        let value = value.or(key.default.as_ref()).ok_or_else(|| {
            format!(
                "associative list with keys has an element that omits key field {:?} (and \
                 doesn't have default value)",
                key.name
            )
        })?;
        found.insert(key.name.clone(), value.clone());
    }
    Ok(Element::Key(canonical(&Value::Object(found))))
}
