//! PodTemplate.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{Selector, template};

/// PodTemplate.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CONTAINERS"),
        Column::new("IMAGES"),
        Column::new("POD LABELS"),
    ],
    ops: Ops::of::<PodTemplate>(),
};

impl Typed for PodTemplate {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        if let Some(spec) = self.template.as_mut().and_then(|template| template.spec.as_mut()) {
            template::default_spec(spec);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let template = self.template.clone().unwrap_or_default();
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        crate::meta::validate_labels(labels, "template.metadata.labels", errors);
        match &template.spec {
            Some(spec) => template::validate_spec(spec, "template.spec", errors),
            None => errors.required("template.spec.containers", ""),
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let template = self.template.clone().unwrap_or_default();
        let labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
        let containers = template.spec.map(|spec| spec.containers).unwrap_or_default();
        let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
        let images: Vec<&str> = containers.iter().filter_map(|one| one.image.as_deref()).collect();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            names.join(","),
            images.join(","),
            Selector::from_map(&labels).to_string(),
        ]
    }
}
