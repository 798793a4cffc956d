//! LimitRange.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::quantity::Quantity;
use crate::time;

/// LimitRange.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[Column::new("NAME"), Column::new("CREATED AT")],
    ops: Ops::of::<LimitRange>(),
};

impl Typed for LimitRange {
    fn kind() -> &'static Kind {
        &KIND
    }

    /// Of containers: what is not said about defaults follows from the bounds.
    fn set_defaults(&mut self) {
        for item in self.spec.iter_mut().flat_map(|spec| &mut spec.limits) {
            if item.type_ != "Container" {
                continue;
            }
            let max = item.max.clone().unwrap_or_default();
            let min = item.min.clone().unwrap_or_default();
            fill(&mut item.default, &max);
            let default = item.default.clone().unwrap_or_default();
            fill(&mut item.default_request, &default);
            fill(&mut item.default_request, &min);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let limits = self.spec.as_ref().map(|spec| spec.limits.as_slice()).unwrap_or_default();
        for (index, item) in limits.iter().enumerate() {
            validate_item(item, &format!("spec.limits[{index}]"), errors);
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let created = self.metadata.creation_timestamp.as_ref();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            created.map(|created| time::format(created.0)).unwrap_or_default(),
        ]
    }
}

type Quantities = BTreeMap<String, ApiQuantity>;

fn fill(map: &mut Option<Quantities>, from: &Quantities) {
    for (name, quantity) in from {
        let map = map.get_or_insert_default();
        map.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
}

fn validate_item(item: &LimitRangeItem, path: &str, errors: &mut Errors) {
    let kind = item.type_.as_str();
    errors.one_of(
        format!("{path}.type"),
        Some(kind),
        &["Container", "PersistentVolumeClaim", "Pod"],
    );
    if kind == "Pod" {
        for (field, set) in [
            ("default", item.default.is_some()),
            ("defaultRequest", item.default_request.is_some()),
        ] {
            if set {
                let text = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{path}.{field}"), text));
            }
        }
    }
    let mut parsed = BTreeMap::new();
    for (field, map) in [
        ("min", &item.min),
        ("defaultRequest", &item.default_request),
        ("default", &item.default),
        ("max", &item.max),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ] {
        for (name, quantity) in map.iter().flatten() {
            match Quantity::parse(&quantity.0) {
                Ok(value) => {
                    parsed.insert((field, name.as_str()), value);
                }
                Err(error) => {
                    let path = format!("{path}.{field}[{name}]");
                    errors.invalid(path, &quantity.0, error.to_string());
                }
            }
        }
    }
    // Each of these must not be above those that follow it.
    const ORDER: [&str; 4] = ["min", "defaultRequest", "default", "max"];
    for (place, low) in ORDER.iter().enumerate() {
        for high in &ORDER[place + 1..] {
            for ((field, name), value) in parsed.iter().filter(|((field, _), _)| field == low) {
                let Some(bound) = parsed.get(&(*high, *name)).filter(|bound| value > bound) else {
                    continue;
                };
                let text = format!("{field} value {value} is greater than {high} value {bound}");
                errors.invalid(format!("{path}.{field}[{name}]"), value.to_string(), text);
            }
        }
    }
}
