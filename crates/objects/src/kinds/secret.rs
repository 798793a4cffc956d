//! Secret.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, time};

/// Secret.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &["type"],
    columns: &[
        Column::new("NAME"),
        Column::new("TYPE"),
        Column::new("DATA"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<Secret>(),
};

impl Typed for Secret {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        crate::template::default_text(&mut self.type_, "Opaque");
        // Kubernetes' convenience for writing: it is never stored.
        if let Some(plain) = self.string_data.take() {
            let data = self.data.get_or_insert_default();
            for (key, value) in plain {
                data.insert(key, ByteString(value.into_bytes()));
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let data = self.data.iter().flat_map(|data| data.keys()).map(|key| ("data", key));
        let other = self.string_data.iter().flat_map(|data| data.keys());
        for (field, key) in data.chain(other.map(|key| ("stringData", key))) {
            if let Err(message) = names::config_key(key) {
                errors.invalid(format!("{field}[{key}]"), key, message);
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if old.immutable != Some(true) {
            return;
        }
        if self.immutable != Some(true) || self.data != old.data {
            let text = "field is immutable when `immutable` is set";
            errors.push(crate::FieldError::forbidden("data", text));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let size = self.data.as_ref().map_or(0, |data| data.len());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            self.type_.clone().unwrap_or_default(),
            size.to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
