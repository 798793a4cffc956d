//! PersistentVolumeClaim.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::quantity::Quantity;
use crate::{template, time};

/// PersistentVolumeClaim.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("VOLUME"),
        Column::new("CAPACITY"),
        Column::new("ACCESS MODES"),
        Column::new("STORAGECLASS"),
        Column::new("VOLUMEATTRIBUTESCLASS"),
        Column::new("AGE"),
        Column::wide("VOLUMEMODE"),
    ],
    ops: Ops::of::<PersistentVolumeClaim>(),
};

impl Typed for PersistentVolumeClaim {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        template::default_text(&mut spec.volume_mode, "Filesystem");
        let status = self.status.get_or_insert_default();
        template::default_text(&mut status.phase, "Pending");
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(self, "spec", errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(old_spec)) = (&self.spec, &old.spec) else { return };
        let mut allowed = old_spec.clone();
        // Binding sets the volume, once.
        if allowed.volume_name.as_deref().unwrap_or_default().is_empty() {
            allowed.volume_name.clone_from(&new.volume_name);
        }
        if allowed.storage_class_name.is_none() {
            allowed.storage_class_name.clone_from(&new.storage_class_name);
        }
        let bound = old.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if bound {
            allowed.resources.clone_from(&new.resources);
        }
        if *new != allowed {
            errors.push(FieldError::forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and \
                 volumeAttributesClassName for bound claims",
            ));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
        let capacity = status.capacity.unwrap_or_default().remove("storage").filter(|_| bound);
        let modes = status.access_modes.filter(|_| bound).unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let deleting = self.metadata.deletion_timestamp.is_some();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            if deleting { "Terminating".into() } else { phase },
            spec.volume_name.unwrap_or_default(),
            capacity.map(|capacity| capacity.0).unwrap_or_default(),
            shown_modes(&modes),
            spec.storage_class_name.unwrap_or_default(),
            spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            spec.volume_mode.unwrap_or_default(),
        ]
    }
}

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Checks a claim's spec at `path`.
pub(super) fn validate_spec(claim: &PersistentVolumeClaim, path: &str, errors: &mut Errors) {
    let spec = claim.spec.clone().unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default();
    if modes.is_empty() {
        errors.required(format!("{path}.accessModes"), "at least 1 access mode is required");
    }
    validate_modes(&modes, &format!("{path}.accessModes"), errors);
    errors.one_of(
        format!("{path}.volumeMode"),
        spec.volume_mode.as_deref(),
        &["Block", "Filesystem"],
    );
    if let Some(selector) = &spec.selector {
        crate::selector::validate(selector, &format!("{path}.selector"), errors);
    }
    let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let path = format!("{path}.resources");
    match requests.get("storage") {
        None => errors.required(format!("{path}[storage]"), ""),
        Some(size) => validate_size(&size.0, &format!("{path}[storage]"), errors),
    }
}

pub(super) fn validate_size(size: &str, path: &str, errors: &mut Errors) {
    match Quantity::parse(size) {
        Err(error) => errors.invalid(path, size, error.to_string()),
        Ok(parsed) if parsed <= Quantity::default() => {
            errors.invalid(path, size, "must be greater than zero");
        }
        Ok(_) => {}
    }
}

pub(super) fn validate_modes(modes: &[String], path: &str, errors: &mut Errors) {
    for mode in modes {
        errors.one_of(path, Some(mode), &MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let text = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, text));
    }
}

/// `RWO,ROX`: in kubectl's order.
pub(super) fn shown_modes(modes: &[String]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.iter().any(|given| given == mode);
    let shown = short.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short);
    shown.collect::<Vec<_>>().join(",")
}
