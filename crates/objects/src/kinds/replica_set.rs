//! ReplicaSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, ScalePaths, Typed};
use crate::{Selector, template, time};

/// ReplicaSet.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["status.replicas"],
    columns: &[
        Column::new("NAME"),
        Column::new("DESIRED"),
        Column::new("CURRENT"),
        Column::new("READY"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<ReplicaSet>(),
};

impl Typed for ReplicaSet {
    const SCALE: Option<ScalePaths> = Some(ScalePaths::APPS);

    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            template::default_template(template);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        errors.non_negative("spec.replicas", spec.replicas.map(i64::from));
        errors.non_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
        match &spec.template {
            Some(template) => template::validate_template(&spec.selector, template, errors),
            None => errors.required("spec.template", ""),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("spec.selector", &self.spec.selector, &old.spec.selector);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let desired = self.spec.replicas.unwrap_or(1);
        let template = self.spec.template.as_ref();
        let pod = template.and_then(|template| template.spec.as_ref());
        let (containers, images) = template::shown_containers(pod);
        let selector = Selector::from_label_selector(&self.spec.selector).ok();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            desired.to_string(),
            status.replicas.to_string(),
            status.ready_replicas.unwrap_or(0).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            selector.map(|selector| selector.to_string()).unwrap_or_default(),
        ]
    }
}
