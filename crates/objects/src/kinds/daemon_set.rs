//! DaemonSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{Selector, template, time};

/// DaemonSet.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("DESIRED"),
        Column::new("CURRENT"),
        Column::new("READY"),
        Column::new("UP-TO-DATE"),
        Column::new("AVAILABLE"),
        Column::new("NODE SELECTOR"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<DaemonSet>(),
};

impl Typed for DaemonSet {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        template::default_text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        template::default_template(&mut spec.template);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        errors.non_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
        errors
            .non_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from));
        validate_strategy(spec.update_strategy.as_ref(), errors);
        template::validate_template(&spec.selector, &spec.template, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("spec.selector", &self.spec.selector, &old.spec.selector);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let pod = self.spec.template.spec.as_ref();
        let (containers, images) = template::shown_containers(pod);
        let nodes = pod.and_then(|pod| pod.node_selector.as_ref()).into_iter().flatten();
        let nodes: Vec<String> = nodes.map(|(key, value)| format!("{key}={value}")).collect();
        let selector = Selector::from_label_selector(&self.spec.selector).ok();
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            status.desired_number_scheduled.to_string(),
            status.current_number_scheduled.to_string(),
            status.number_ready.to_string(),
            status.updated_number_scheduled.unwrap_or(0).to_string(),
            status.number_available.unwrap_or(0).to_string(),
            if nodes.is_empty() { "<none>".into() } else { nodes.join(",") },
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            selector.map(|selector| selector.to_string()).unwrap_or_default(),
        ]
    }
}

fn validate_strategy(strategy: Option<&DaemonSetUpdateStrategy>, errors: &mut Errors) {
    let Some(strategy) = strategy else { return };
    let kind = strategy.type_.as_deref();
    errors.one_of("spec.updateStrategy.type", kind, &["OnDelete", "RollingUpdate"]);
    let Some(rolling) = strategy.rolling_update.as_ref().filter(|_| kind == Some("RollingUpdate"))
    else {
        return;
    };
    let path = "spec.updateStrategy.rollingUpdate";
    let surge_path = format!("{path}.maxSurge");
    let surge = template::validate_amount(rolling.max_surge.as_ref(), &surge_path, errors);
    let unavailable_path = format!("{path}.maxUnavailable");
    let unavailable =
        template::validate_amount(rolling.max_unavailable.as_ref(), &unavailable_path, errors);
    match (surge, unavailable) {
        (Some(0), Some(0)) => {
            errors.invalid(unavailable_path, 0, "cannot be 0 when `maxSurge` is 0");
        }
        (Some(1..), Some(1..)) => {
            errors.invalid(surge_path, surge, "may not be set when `maxUnavailable` is non-zero");
        }
        _ => {}
    }
}
