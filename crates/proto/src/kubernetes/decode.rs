//! From protobuf to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::schema::{Field, Message, Schema, Shape, Special, Type};
use super::wire::{Raw, Reader};

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages; the deepest of Kubernetes' is at 12.
const MAX_DEPTH: usize = 32;

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The four bytes are missing.
    #[error("the body is no Kubernetes protobuf: it does not begin with \"k8s\\0\"")]
    Magic,
    /// Not described in `proto/kubernetes`.
    #[error(
        "no protobuf decoding for kind \"{kind}\" in version \"{api_version}\"; send JSON or YAML"
    )]
    UnknownKind {
        /// The apiVersion in the envelope.
        api_version: String,
        /// The kind in the envelope.
        kind: String,
    },
    /// Something inside is no such message.
    #[error("the protobuf body is broken at byte {offset}{}: {problem}", place(.path))]
    Broken {
        /// The field, for instance `spec.containers[0].name`; may be empty.
        path: String,
        /// Bytes from the beginning of the body.
        offset: usize,
        /// What is wrong.
        problem: String,
    },
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" (field {path})") }
}

/// Makes JSON of a body, with `apiVersion` and `kind`.
///
/// # Errors
/// [`DecodeError`]; it says where.
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let inner = body.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
    let schema = Schema::get();
    let unknown = |api_version: &str, kind: &str| DecodeError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    };
    let Some(envelope) = schema.envelope() else { return Err(unknown("", "")) };
    let mut decoder = Decoder { schema, path: Vec::new() };
    let outer = decoder.message(envelope, inner, MAGIC.len())?;
    let types = outer.get("typeMeta").cloned().unwrap_or_default();
    let text = |field: &str| types[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let encoding = outer.get("contentEncoding").and_then(Value::as_str).unwrap_or_default();
    if !encoding.is_empty() {
        let problem = format!("the content encoding {encoding:?} is not supported");
        return Err(decoder.broken(MAGIC.len(), problem));
    }
    let root = schema.root(api_version, kind).ok_or_else(|| unknown(api_version, kind))?;
    let (raw, base) = raw(inner);
    let mut object = decoder.message(root, raw, base)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// The object's bytes in the envelope, which has been decoded already, and where they begin.
fn raw(inner: &[u8]) -> (&[u8], usize) {
    const RAW: u32 = 2;
    let mut reader = Reader::new(inner, MAGIC.len());
    let mut found: (&[u8], usize) = (&[], MAGIC.len());
    while let Ok(Some((number, value))) = reader.next() {
        if let (RAW, Raw::Bytes(bytes)) = (number, value) {
            found = (bytes, reader.offset() - bytes.len());
        }
    }
    found
}

struct Decoder {
    schema: &'static Schema,
    /// Fields and list places down to where the decoder is.
    path: Vec<String>,
}

impl Decoder {
    fn broken(&self, offset: usize, problem: impl ToString) -> DecodeError {
        let path = self.path.concat();
        let path = path.trim_start_matches('.').to_owned();
        DecodeError::Broken { path, offset, problem: problem.to_string() }
    }

    fn message(
        &mut self,
        message: &Message,
        bytes: &[u8],
        base: usize,
    ) -> Result<Map<String, Value>, DecodeError> {
        let mut object = Map::new();
        let mut reader = Reader::new(bytes, base);
        loop {
            let next = reader.next().map_err(|error| self.broken(reader.offset(), error))?;
            let Some((number, raw)) = next else { return Ok(object) };
            // As Kubernetes does: a field of a newer version is passed over.
            let Some(field) = message.fields.get(&number) else { continue };
            let offset = reader.offset();
            let at = object.get(&field.name).and_then(Value::as_array).map(Vec::len);
            let step = match (field.shape, at) {
                (Shape::Inline, _) => String::new(),
                (Shape::List, at) => format!(".{}[{}]", field.name, at.unwrap_or(0)),
                _ => format!(".{}", field.name),
            };
            self.path.push(step);
            if self.path.len() > MAX_DEPTH {
                return Err(self.broken(offset, "messages are nested too deeply"));
            }
            self.field(field, raw, offset, &mut object)?;
            self.path.pop();
        }
    }

    fn field(
        &mut self,
        field: &Field,
        raw: Raw<'_>,
        offset: usize,
        object: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        match field.shape {
            Shape::Inline => {
                if let (Type::Message(index), Raw::Bytes(bytes)) = (field.kind, raw) {
                    let message = self.nested(index);
                    let inner = self.message(message, bytes, offset - bytes.len())?;
                    object.extend(inner);
                    return Ok(());
                }
                Err(self.wrong_type(raw, offset))
            }
            Shape::Map => self.entry(field, raw, offset, object),
            Shape::List => {
                let mut new = Vec::new();
                self.items(field.kind, raw, offset, &mut new)?;
                let list = object.entry(field.name.clone()).or_insert_with(|| Value::Array(vec![]));
                if let Value::Array(list) = list {
                    list.append(&mut new);
                }
                Ok(())
            }
            Shape::Plain | Shape::Pointer => {
                let value = self.value(field.kind, raw, offset)?;
                let nested = matches!(field.kind, Type::Message(_));
                let given = nested || field.shape == Shape::Pointer;
                match value.filter(|value| given || !is_zero(value)) {
                    Some(value) => object.insert(field.name.clone(), value),
                    None => object.remove(&field.name),
                };
                Ok(())
            }
        }
    }

    /// One item of a list, or several numbers in one value.
    fn items(
        &mut self,
        kind: Type,
        raw: Raw<'_>,
        offset: usize,
        items: &mut Vec<Value>,
    ) -> Result<(), DecodeError> {
        if let (Type::Integer | Type::Bool, Raw::Bytes(packed)) = (kind, raw) {
            let mut reader = Reader::new(packed, offset - packed.len());
            while !reader.at_end() {
                let number =
                    reader.varint().map_err(|error| self.broken(reader.offset(), error))?;
                items.extend(self.value(kind, Raw::Varint(number), reader.offset())?);
            }
            return Ok(());
        }
        items.push(self.value(kind, raw, offset)?.unwrap_or(Value::Null));
        Ok(())
    }

    fn entry(
        &mut self,
        field: &Field,
        raw: Raw<'_>,
        offset: usize,
        object: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let Raw::Bytes(bytes) = raw else { return Err(self.wrong_type(raw, offset)) };
        let mut reader = Reader::new(bytes, offset - bytes.len());
        let (mut key, mut value) = (Value::from(""), None);
        while let Some((number, raw)) =
            reader.next().map_err(|error| self.broken(reader.offset(), error))?
        {
            match number {
                1 => key = self.value(Type::Text, raw, reader.offset())?.unwrap_or(key),
                2 => value = self.value(field.kind, raw, reader.offset())?,
                _ => {}
            }
        }
        let value = value.unwrap_or_else(|| match field.kind {
            Type::Message(_) => Value::Object(Map::new()),
            _ => "".into(),
        });
        let map = object.entry(field.name.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let (Value::Object(map), Value::String(key)) = (map, key) {
            map.insert(key, value);
        }
        Ok(())
    }

    /// One value; `None` for what JSON leaves out (an empty time).
    fn value(
        &mut self,
        kind: Type,
        raw: Raw<'_>,
        offset: usize,
    ) -> Result<Option<Value>, DecodeError> {
        Ok(Some(match (kind, raw) {
            (Type::Text, Raw::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| self.broken(offset - bytes.len(), "a text is not valid UTF-8"))?;
                text.into()
            }
            (Type::Bytes, Raw::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            // Negative numbers are sent as their two's complement in 64 bits.
            (Type::Integer, Raw::Varint(number)) => number.cast_signed().into(),
            (Type::Bool, Raw::Varint(number)) => (number != 0).into(),
            (Type::Double, Raw::Fixed64(bits)) => f64::from_bits(bits).into(),
            (Type::Message(index), Raw::Bytes(bytes)) => {
                let message = self.nested(index);
                let inner = self.message(message, bytes, offset - bytes.len())?;
                return match message.special {
                    None => Ok(Some(Value::Object(inner))),
                    Some(special) => self.special(special, inner, bytes, offset),
                };
            }
            (_, raw) => return Err(self.wrong_type(raw, offset)),
        }))
    }

    fn special(
        &self,
        special: Special,
        mut inner: Map<String, Value>,
        bytes: &[u8],
        offset: usize,
    ) -> Result<Option<Value>, DecodeError> {
        let number = |field: &str| inner.get(field).and_then(Value::as_i64).unwrap_or(0);
        let broken = |problem: String| self.broken(offset - bytes.len(), problem);
        match special {
            Special::Time | Special::MicroTime => {
                if bytes.is_empty() {
                    return Ok(None);
                }
                let nanos = i32::try_from(number("nanos"))
                    .map_err(|_| broken("a time's nanoseconds are out of range".into()))?;
                let time = Timestamp::new(number("seconds"), nanos)
                    .map_err(|error| broken(format!("no such time: {error}")))?;
                let format = match special {
                    Special::Time => "%Y-%m-%dT%H:%M:%SZ",
                    _ => "%Y-%m-%dT%H:%M:%S.%6fZ",
                };
                Ok(Some(time.strftime(format).to_string().into()))
            }
            Special::Quantity => Ok(Some(inner.remove("string").unwrap_or_else(|| "0".into()))),
            Special::IntOrString => Ok(Some(match number("type") {
                0 => number("intVal").into(),
                _ => inner.remove("strVal").unwrap_or_else(|| "".into()),
            })),
            Special::Json => {
                let Some((raw, base)) = only_bytes(bytes, offset) else { return Ok(None) };
                serde_json::from_slice(raw).map(Some).map_err(|error| {
                    self.broken(base, format!("the raw value is no JSON: {error}"))
                })
            }
            Special::Items => {
                Ok(Some(inner.remove("items").unwrap_or_else(|| Value::Array(Vec::new()))))
            }
        }
    }

    fn nested(&self, index: usize) -> &'static Message {
        // Indexes in the schema are those of its own messages.
        &self.schema.messages[index]
    }

    fn wrong_type(&self, raw: Raw<'_>, offset: usize) -> DecodeError {
        self.broken(offset, format!("{} does not belong here", raw.name()))
    }
}

/// The bytes in field 1 of a message, and where they begin.
fn only_bytes(message: &[u8], end: usize) -> Option<(&[u8], usize)> {
    let mut reader = Reader::new(message, end - message.len());
    let mut found = None;
    while let Ok(Some((number, raw))) = reader.next() {
        if let (1, Raw::Bytes(bytes)) = (number, raw) {
            found = Some((bytes, reader.offset() - bytes.len()));
        }
    }
    found.filter(|(bytes, _)| !bytes.is_empty())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}
