//! The field numbers of `proto/kubernetes/*.proto`, indexed for decoding.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type as ProtoType};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kubernetes.bin"));
/// Package of what all groups share.
const META: &str = "meta.v1";

/// What the values of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Bytes,
    Integer,
    Bool,
    Double,
    /// Index into [`Schema::messages`].
    Message(usize),
}

/// How often a field's value can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Once; zero and "" mean "not given".
    Plain,
    /// Once; whatever is there was given.
    Pointer,
    /// Any number of times: a list.
    List,
    /// Any number of times: an entry with a text as key, and a value of the field's type.
    Map,
    /// Once: a message whose fields are the parent's in JSON.
    Inline,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub name: String,
    pub shape: Shape,
    pub kind: Type,
}

/// Types whose JSON is no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Json,
    Items,
}

#[derive(Debug, Default)]
pub(crate) struct Message {
    pub special: Option<Special>,
    pub fields: BTreeMap<u32, Field>,
}

#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub messages: Vec<Message>,
    by_name: HashMap<String, usize>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    // The build wrote these bytes itself; should they be broken, no kind is known and every body
    // is refused with a clear error, and every test of decoding fails.
    FileDescriptorSet::decode(DESCRIPTORS).map(|set| Schema::index(&set)).unwrap_or_default()
});

impl Schema {
    pub(crate) fn get() -> &'static Self {
        &SCHEMA
    }

    /// The message of a kind; kinds that every group has (DeleteOptions, Status) are found in
    /// each.
    pub(crate) fn root(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        // "networking.k8s.io" is package networking.
        let group = group.split('.').next().unwrap_or(group);
        let own = format!("kubernetes.{group}.{version}.{kind}");
        let shared = format!("kubernetes.{META}.{kind}");
        let index = self.by_name.get(&own).or_else(|| self.by_name.get(&shared))?;
        self.messages.get(*index)
    }

    pub(crate) fn envelope(&self) -> Option<&Message> {
        self.root(META, "Unknown")
    }

    fn index(set: &FileDescriptorSet) -> Self {
        let mut schema = Self::default();
        let mut all: Vec<(&DescriptorProto, usize)> = Vec::new();
        for file in &set.file {
            for message in &file.message_type {
                let name = format!("{}.{}", file.package(), message.name());
                let index = all.len();
                schema.by_name.insert(name, index);
                all.push((message, index));
            }
        }
        for (message, _) in all {
            let fields = message.field.iter().filter_map(|field| {
                let number = u32::try_from(field.number()).ok()?;
                Some((number, schema.field(message, field)?))
            });
            let fields = fields.collect();
            schema.messages.push(Message { special: special(message.name()), fields });
        }
        schema
    }

    fn field(&self, parent: &DescriptorProto, field: &FieldDescriptorProto) -> Option<Field> {
        let list = field.label() == Label::Repeated;
        let entry = parent.nested_type.iter().find(|nested| {
            let map = nested.options.as_ref().is_some_and(|options| options.map_entry());
            map && field.type_name().ends_with(&format!("{}.{}", parent.name(), nested.name()))
        });
        let (value, shape) = match entry {
            Some(entry) => (entry.field.iter().find(|field| field.number() == 2)?, Shape::Map),
            None if list => (field, Shape::List),
            None if field.name() == "inline" => (field, Shape::Inline),
            None if field.proto3_optional() => (field, Shape::Pointer),
            None => (field, Shape::Plain),
        };
        let kind = match value.r#type() {
            ProtoType::String => Type::Text,
            ProtoType::Bytes => Type::Bytes,
            ProtoType::Bool => Type::Bool,
            ProtoType::Double => Type::Double,
            ProtoType::Int32 | ProtoType::Int64 => Type::Integer,
            ProtoType::Message => {
                let name = value.type_name().trim_start_matches('.');
                Type::Message(*self.by_name.get(name)?)
            }
            _ => return None,
        };
        Some(Field { name: field.name().to_owned(), shape, kind })
    }
}

fn special(name: &str) -> Option<Special> {
    Some(match name {
        "Time" => Special::Time,
        "MicroTime" => Special::MicroTime,
        "Quantity" => Special::Quantity,
        "IntOrString" => Special::IntOrString,
        "RawExtension" | "FieldsV1" => Special::Json,
        "ExtraValue" => Special::Items,
        _ => return None,
    })
}
