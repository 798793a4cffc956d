//! Reading stored JSON in one pass, without building a tree: the metadata, the fields that
//! selectors name, and the place where the resourceVersion goes.
//!
//! Each write is read this way on every master, so what this costs is paid once for each.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_objects::Kind;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

/// Fields by the paths that selectors name.
pub(crate) type Fields = Vec<(&'static str, String)>;

/// Where the parts are that are written most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Where the members of `spec` begin, behind the brace.
    pub spec: Option<usize>,
    /// Where the value of `status` begins and ends.
    pub status: Option<(usize, usize)>,
}

/// What is needed of an object's JSON at once.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub meta: ObjectMeta,
    pub fields: Fields,
    /// Where the members of `metadata` begin, behind the brace; `None` when the text is not as
    /// the registry writes it.
    pub inside: Option<usize>,
    pub places: Places,
}

/// Looks at the text of an object. `None`: it has no metadata.
///
/// # Errors
/// When it is not JSON, or its metadata is not that of an object.
pub(crate) fn look(kind: &'static Kind, text: &[u8]) -> Result<Option<Stored>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let stored = (&mut deserializer).deserialize_map(Top { kind, text })?;
    deserializer.end()?;
    Ok(stored)
}

/// A key of an object: only one with escapes is a copy.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct Top<'a> {
    kind: &'static Kind,
    text: &'a [u8],
}

impl<'a> Visitor<'a> for Top<'a> {
    type Value = Option<Stored>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut stored: Option<Stored> = None;
        let mut places = Places::default();
        let (mut status, mut odd) = (None, false);
        let mut fields = Fields::new();
        let wanted = self.kind.selectable.iter().map(|path| (*path, place(self.kind, path)));
        let wanted: Vec<_> = wanted.collect();
        while let Some(Key(key)) = map.next_key()? {
            if let Some(begin) = status.take() {
                // In front of the comma and the quote.
                let end = place_in(self.text, &key).and_then(|start| start.checked_sub(2));
                places.status = end.map(|end| (begin, end));
                odd |= end.is_none();
            }
            match &*key {
                "metadata" => {
                    let inside = behind(self.text, &key, b"\":{");
                    let (meta, fields) = (map.next_value()?, Fields::new());
                    stored = Some(Stored { meta, fields, inside, places });
                    continue;
                }
                "spec" => places.spec = behind(self.text, &key, b"\":{"),
                "status" => {
                    status = behind(self.text, &key, b"\":");
                    odd |= status.is_none();
                }
                _ => {}
            }
            map.next_value_seed(Pick { wanted: below(&wanted, &key), fields: &mut fields })?;
        }
        if let (Some(begin), Some((b'}', before))) = (status, self.text.split_last()) {
            places.status = Some((begin, before.len()));
        }
        if odd {
            // A status that is somewhere else must not get a second one beside it.
            places = Places::default();
        }
        Ok(stored.map(|stored| Stored { fields, places, ..stored }))
    }
}

/// Where a key begins, when it is a part of `text`.
fn place_in(text: &[u8], key: &str) -> Option<usize> {
    let start = (key.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    // A key that is a copy is elsewhere in memory: beyond the text.
    let end = start.checked_add(key.len())?;
    (end <= text.len()).then_some(start)
}

/// Where the text goes on behind a key and what has to follow at once.
fn behind(text: &[u8], key: &str, following: &[u8]) -> Option<usize> {
    let end = place_in(text, key)? + key.len();
    let behind = end.checked_add(following.len())?;
    (text.get(end..behind)? == following).then_some(behind)
}

/// Where a selector's field is.
fn place(kind: &Kind, path: &'static str) -> &'static str {
    match path {
        _ if kind.is_custom() => path,
        // kubectl's name for the component that reported an event.
        "source" => "source.component",
        // Selectors' name for how many pods of a job have succeeded.
        "status.successful" => "status.succeeded",
        _ => path,
    }
}

/// What a field is to selectors when it is not set, and that is not the empty text.
pub(crate) fn unset(kind: &Kind, path: &str) -> Option<&'static str> {
    let value = match path {
        "spec.unschedulable" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => return None,
    };
    (kind.selectable.contains(&path) && !kind.is_custom()).then_some(value)
}

/// The paths that go on below `key`, without it.
fn below<'p>(wanted: &[(&'static str, &'p str)], key: &str) -> Vec<(&'static str, &'p str)> {
    let below = wanted.iter().filter_map(|(path, rest)| {
        let (first, rest) = rest.split_once('.').unwrap_or((rest, ""));
        (first == key).then_some((*path, rest))
    });
    below.collect()
}

/// Takes the wanted fields out of a value, and skips the rest.
struct Pick<'p, 'f> {
    /// Each path, and what of it is left below this value.
    wanted: Vec<(&'static str, &'p str)>,
    fields: &'f mut Fields,
}

impl<'de> DeserializeSeed<'de> for Pick<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.is_empty() {
            return IgnoredAny::deserialize(deserializer).map(|_| ());
        }
        if self.wanted.iter().all(|(_, rest)| !rest.is_empty()) {
            return deserializer.deserialize_any(self);
        }
        let value = Value::deserialize(deserializer)?;
        for (path, rest) in self.wanted {
            let mut parts = rest.split('.').filter(|part| !part.is_empty());
            let text = match parts.try_fold(&value, |value, part| value.get(part)) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => continue,
                Some(other) => other.to_string(),
            };
            self.fields.push((path, text));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Pick<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let wanted = below(&self.wanted, &key);
            map.next_value_seed(Pick { wanted, fields: &mut *self.fields })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    // What has no members has none that are wanted.
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "stored_test.rs"]
mod tests;
