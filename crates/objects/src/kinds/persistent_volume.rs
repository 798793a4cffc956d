//! PersistentVolume.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;

use super::persistent_volume_claim::{shown_modes, validate_modes, validate_size};
use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{template, time};

/// PersistentVolume.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    namespaced: false,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CAPACITY"),
        Column::new("ACCESS MODES"),
        Column::new("RECLAIM POLICY"),
        Column::new("STATUS"),
        Column::new("CLAIM"),
        Column::new("STORAGECLASS"),
        Column::new("VOLUMEATTRIBUTESCLASS"),
        Column::new("REASON"),
        Column::new("AGE"),
        Column::wide("VOLUMEMODE"),
    ],
    ops: Ops::of::<PersistentVolume>(),
};

impl Typed for PersistentVolume {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        template::default_text(&mut spec.volume_mode, "Filesystem");
        template::default_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        let status = self.status.get_or_insert_default();
        template::default_text(&mut status.phase, "Pending");
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let modes = spec.access_modes.unwrap_or_default();
        if modes.is_empty() {
            errors.required("spec.accessModes", "");
        }
        validate_modes(&modes, "spec.accessModes", errors);
        match spec.capacity.unwrap_or_default().get("storage") {
            None => errors.required("spec.capacity", ""),
            Some(size) => validate_size(&size.0, "spec.capacity[storage]", errors),
        }
        errors.one_of(
            "spec.persistentVolumeReclaimPolicy",
            spec.persistent_volume_reclaim_policy.as_deref(),
            &["Delete", "Recycle", "Retain"],
        );
        errors.one_of("spec.volumeMode", spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let claim = spec.claim_ref.map(|claim| {
            let text = |text: Option<String>| text.unwrap_or_default();
            format!("{}/{}", text(claim.namespace), text(claim.name))
        });
        let deleting = self.metadata.deletion_timestamp.is_some();
        let phase = status.phase.unwrap_or_default();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            spec.capacity.unwrap_or_default().remove("storage").map(|c| c.0).unwrap_or_default(),
            shown_modes(&spec.access_modes.unwrap_or_default()),
            spec.persistent_volume_reclaim_policy.unwrap_or_default(),
            if deleting { "Terminating".into() } else { phase },
            claim.unwrap_or_default(),
            spec.storage_class_name.unwrap_or_default(),
            spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()),
            status.reason.unwrap_or_default(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            spec.volume_mode.unwrap_or_default(),
        ]
    }
}
