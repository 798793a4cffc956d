//! ConfigMap.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, time};

/// ConfigMap.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("DATA"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<ConfigMap>(),
};

impl Typed for ConfigMap {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        let data = self.data.iter().flat_map(|data| data.keys()).map(|key| ("data", key));
        let other = self.binary_data.iter().flat_map(|data| data.keys());
        for (field, key) in data.chain(other.map(|key| ("binaryData", key))) {
            if let Err(message) = names::config_key(key) {
                errors.invalid(format!("{field}[{key}]"), key, message);
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if old.immutable != Some(true) {
            return;
        }
        if self.immutable != Some(true) || self.data != old.data || self.binary_data != old.binary_data {
            let text = "field is immutable when `immutable` is set";
            errors.push(crate::FieldError::forbidden("data", text));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let size = self.data.as_ref().map_or(0, |data| data.len()) + self.binary_data.as_ref().map_or(0, |data| data.len());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            size.to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
