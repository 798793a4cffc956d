//! ReplicationController: can be kept and looked at (`kubectl get all` asks for them), but no
//! controller acts on it. ReplicaSets took its place.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{Selector, template, time};

/// ReplicationController.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
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
    ops: Ops::of::<ReplicationController>(),
};

impl Typed for ReplicationController {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else { return };
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
            spec.selector = labels;
        }
        if let Some(pod) = &mut template.spec {
            template::default_spec(pod);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        errors.non_negative("spec.replicas", spec.replicas.map(i64::from));
        errors.non_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
        let selector = LabelSelector { match_labels: spec.selector, ..LabelSelector::default() };
        match &spec.template {
            Some(template) => template::validate_template(&selector, template, errors),
            None => errors.required("spec.template", ""),
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let pod = spec.template.and_then(|template| template.spec).unwrap_or_default();
        let names: Vec<&str> = pod.containers.iter().map(|one| one.name.as_str()).collect();
        let images: Vec<&str> =
            pod.containers.iter().filter_map(|one| one.image.as_deref()).collect();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            spec.replicas.unwrap_or(1).to_string(),
            status.replicas.to_string(),
            status.ready_replicas.unwrap_or(0).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            names.join(","),
            images.join(","),
            Selector::from_map(&spec.selector.unwrap_or_default()).to_string(),
        ]
    }
}
