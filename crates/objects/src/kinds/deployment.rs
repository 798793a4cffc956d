//! Deployment.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, ScalePaths, Typed};
use crate::{Selector, template, time};

/// Deployment.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("READY"),
        Column::new("UP-TO-DATE"),
        Column::new("AVAILABLE"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<Deployment>(),
};

impl Typed for Deployment {
    const SCALE: Option<ScalePaths> = Some(ScalePaths::APPS);

    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        template::default_text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let quarter = || IntOrString::String("25%".into());
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_surge.get_or_insert_with(quarter);
            rolling.max_unavailable.get_or_insert_with(quarter);
        }
        template::default_template(&mut spec.template);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        errors.non_negative("spec.replicas", spec.replicas.map(i64::from));
        errors.non_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
        errors
            .non_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from));
        let deadline = spec.progress_deadline_seconds;
        errors.non_negative("spec.progressDeadlineSeconds", deadline.map(i64::from));
        if let Some(deadline) = deadline.filter(|d| *d <= spec.min_ready_seconds.unwrap_or(0)) {
            let text = "must be greater than minReadySeconds";
            errors.invalid("spec.progressDeadlineSeconds", deadline, text);
        }
        validate_strategy(spec.strategy.as_ref(), errors);
        template::validate_template(&spec.selector, &spec.template, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("spec.selector", &self.spec.selector, &old.spec.selector);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let desired = self.spec.replicas.unwrap_or(1);
        let (containers, images) = template::shown_containers(self.spec.template.spec.as_ref());
        let selector = Selector::from_label_selector(&self.spec.selector).ok();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            format!("{}/{desired}", status.ready_replicas.unwrap_or(0)),
            status.updated_replicas.unwrap_or(0).to_string(),
            status.available_replicas.unwrap_or(0).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            selector.map(|selector| selector.to_string()).unwrap_or_default(),
        ]
    }
}

fn validate_strategy(strategy: Option<&DeploymentStrategy>, errors: &mut Errors) {
    let Some(strategy) = strategy else { return };
    let kind = strategy.type_.as_deref();
    errors.one_of("spec.strategy.type", kind, &["Recreate", "RollingUpdate"]);
    let Some(rolling) = &strategy.rolling_update else { return };
    if kind == Some("Recreate") {
        errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
    let path = "spec.strategy.rollingUpdate";
    let surge_path = format!("{path}.maxSurge");
    let surge = template::validate_amount(rolling.max_surge.as_ref(), &surge_path, errors);
    let unavailable_path = format!("{path}.maxUnavailable");
    let unavailable =
        template::validate_amount(rolling.max_unavailable.as_ref(), &unavailable_path, errors);
    if (surge, unavailable) == (Some(0), Some(0)) {
        errors.invalid(unavailable_path, 0, "may not be 0 when `maxSurge` is 0");
    }
}
