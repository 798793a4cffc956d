//! StorageClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{storage, template, time};

/// StorageClass.
pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    categories: &[],
    namespaced: false,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("PROVISIONER"),
        Column::new("RECLAIMPOLICY"),
        Column::new("VOLUMEBINDINGMODE"),
        Column::new("ALLOWVOLUMEEXPANSION"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<StorageClass>(),
};

impl Typed for StorageClass {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        template::default_text(&mut self.reclaim_policy, "Delete");
        template::default_text(&mut self.volume_binding_mode, "Immediate");
    }

    fn validate(&self, errors: &mut Errors) {
        if self.provisioner.is_empty() {
            errors.required("provisioner", "");
        }
        errors.one_of("reclaimPolicy", self.reclaim_policy.as_deref(), &["Delete", "Retain"]);
        errors.one_of(
            "volumeBindingMode",
            self.volume_binding_mode.as_deref(),
            &["Immediate", "WaitForFirstConsumer"],
        );
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let forbidden = "updates to this field are forbidden";
        for (field, changed) in [
            ("provisioner", self.provisioner != old.provisioner),
            ("reclaimPolicy", self.reclaim_policy != old.reclaim_policy),
            ("parameters", self.parameters != old.parameters),
            ("volumeBindingMode", self.volume_binding_mode != old.volume_binding_mode),
        ] {
            if changed {
                errors.push(crate::FieldError::forbidden(field, forbidden));
            }
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let name = self.metadata.name.clone().unwrap_or_default();
        let default = storage::is_default(self);
        vec![
            if default { format!("{name} (default)") } else { name },
            self.provisioner.clone(),
            self.reclaim_policy.clone().unwrap_or_default(),
            self.volume_binding_mode.clone().unwrap_or_default(),
            self.allow_volume_expansion.unwrap_or(false).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
