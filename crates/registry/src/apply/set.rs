//! Sets of fields, as `metadata.managedFields` holds them (`FieldsV1`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// A field of an object, `f:name`.
    Field(String),
    /// The item of a list with these keys, `k:{"name":"web"}`. JSON, sorted by key.
    Key(String),
    /// The item of a set with this value, `v:"web"`. JSON.
    Item(String),
}

impl Element {
    pub(crate) fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Item(value) => format!("v:{value}"),
        }
    }

    /// `None` for what is not understood, such as indexes (`i:0`), which nobody writes any more.
    fn decode(text: &str) -> Option<Self> {
        let (sort, rest) = text.split_once(':')?;
        let json = || serde_json::from_str::<Value>(rest).ok().map(|value| canonical(&value));
        match sort {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => json().map(Self::Key),
            "v" => json().map(Self::Item),
            _ => None,
        }
    }
}

/// JSON text with sorted keys, whatever order the map has.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let fields: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

/// A set of fields: a tree in which each node may itself be in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Is this very place in the set?
    pub own: bool,
    pub children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    pub(crate) fn leaf() -> Self {
        Self { own: true, children: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    /// The node for a step, made when it is missing.
    pub(crate) fn child(&mut self, element: Element) -> &mut Self {
        self.children.entry(element).or_default()
    }

    /// Puts a subtree in its place; an empty one leaves no trace.
    pub(crate) fn insert(&mut self, element: Element, subtree: Self) {
        if !subtree.is_empty() {
            self.child(element).add(&subtree);
        }
    }

    /// Adds everything of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.own |= other.own;
        for (element, child) in &other.children {
            self.child(element.clone()).add(child);
        }
    }

    /// What is in this set and, exactly so, in `other`.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { own: self.own && other.own, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                out.insert(element.clone(), child.intersection(theirs));
            }
        }
        out
    }

    /// What is in this set and not, exactly so, in `other`.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let mut out = Self { own: self.own && !other.own, children: BTreeMap::new() };
        for (element, child) in &self.children {
            match other.children.get(element) {
                Some(theirs) => out.insert(element.clone(), child.difference(theirs)),
                None => out.insert(element.clone(), child.clone()),
            }
        }
        out
    }

    /// As [`Self::difference`], but what is below a place in `other` goes with it.
    pub(crate) fn without_below(&self, other: &Self) -> Self {
        if other.own {
            return Self::default();
        }
        let mut out = Self { own: self.own, children: BTreeMap::new() };
        for (element, child) in &self.children {
            match other.children.get(element) {
                Some(theirs) => out.insert(element.clone(), child.without_below(theirs)),
                None => out.insert(element.clone(), child.clone()),
            }
        }
        out
    }

    /// Every path in the set, as messages write it: `.spec.containers[name="web"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, path: &str, out: &mut Vec<String>) {
        if self.own {
            out.push(path.to_owned());
        }
        for (element, child) in &self.children {
            let mut path = path.to_owned();
            match element {
                Element::Field(name) => {
                    let _ = write!(path, ".{name}");
                }
                Element::Item(value) => {
                    let _ = write!(path, "[={value}]");
                }
                Element::Key(key) => {
                    let keys: BTreeMap<String, Value> =
                        serde_json::from_str(key).unwrap_or_default();
                    let keys: Vec<String> =
                        keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    let _ = write!(path, "[{}]", keys.join(","));
                }
            }
            child.collect(&path, out);
        }
    }

    /// From `fieldsV1`. What is not understood is left out.
    pub(crate) fn decode(fields: &Value) -> Self {
        let mut set = Self::default();
        let Some(map) = fields.as_object() else { return set };
        for (key, value) in map {
            if key == "." {
                set.own = true;
            } else if let Some(element) = Element::decode(key) {
                let mut child = Self::decode(value);
                child.own |= child.children.is_empty();
                set.insert(element, child);
            }
        }
        set
    }

    /// To `fieldsV1`.
    pub(crate) fn encode(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.encode(), child.encode());
        }
        Value::Object(map)
    }
}
