//! HorizontalPodAutoscaler.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    MetricValueStatus, ResourceMetricSource,
};

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::quantity::Quantity;
use crate::{template, time};

/// What is aimed at when nothing is said: percent of the requested processor.
const CPU_TARGET: i32 = 80;

/// HorizontalPodAutoscaler.
pub static KIND: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("REFERENCE"),
        Column::new("TARGETS"),
        Column::new("MINPODS"),
        Column::new("MAXPODS"),
        Column::new("REPLICAS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<HorizontalPodAutoscaler>(),
};

impl Typed for HorizontalPodAutoscaler {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(CPU_TARGET),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]);
        }
        let Some(behavior) = &mut spec.behavior else { return };
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        default_rules(up, &[("Pods", 4), ("Percent", 100)]);
        let down = behavior.scale_down.get_or_insert_default();
        default_rules(down, &[("Percent", 100)]);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let min = spec.min_replicas.unwrap_or(1);
        if min < 1 {
            errors.invalid("spec.minReplicas", min, "must be greater than or equal to 1");
        }
        if spec.max_replicas < 1 {
            errors.invalid("spec.maxReplicas", spec.max_replicas, "must be greater than 0");
        }
        if spec.max_replicas < min {
            let text = "must be greater than or equal to `minReplicas`";
            errors.invalid("spec.maxReplicas", spec.max_replicas, text);
        }
        for (field, value) in
            [("kind", &spec.scale_target_ref.kind), ("name", &spec.scale_target_ref.name)]
        {
            if value.is_empty() {
                errors.required(format!("spec.scaleTargetRef.{field}"), "");
            }
        }
        for (index, metric) in spec.metrics.iter().flatten().enumerate() {
            validate_metric(metric, &format!("spec.metrics[{index}]"), errors);
        }
        let behavior = spec.behavior.clone().unwrap_or_default();
        for (field, rules) in [("scaleUp", behavior.scale_up), ("scaleDown", behavior.scale_down)] {
            if let Some(rules) = rules {
                validate_rules(&rules, &format!("spec.behavior.{field}"), errors);
            }
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone();
        let status = self.status.clone().unwrap_or_default();
        let target = &spec.scale_target_ref;
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            format!("{}/{}", target.kind, target.name),
            shown_targets(self),
            spec.min_replicas.map_or_else(|| "<unset>".into(), |min| min.to_string()),
            spec.max_replicas.to_string(),
            status.current_replicas.unwrap_or(0).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn default_rules(rules: &mut HPAScalingRules, policies: &[(&str, i32)]) {
    const PERIOD: i32 = 15;
    template::default_text(&mut rules.select_policy, "Max");
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        let policy = |(type_, value): &(&str, i32)| HPAScalingPolicy {
            type_: (*type_).to_owned(),
            value: *value,
            period_seconds: PERIOD,
        };
        rules.policies = Some(policies.iter().map(policy).collect());
    }
}

fn validate_metric(metric: &MetricSpec, path: &str, errors: &mut Errors) {
    let (field, name, target) = match metric.type_.as_str() {
        "Resource" => {
            let source = metric.resource.as_ref();
            ("resource", source.map(|s| s.name.as_str()), source.map(|s| &s.target))
        }
        "ContainerResource" => {
            let source = metric.container_resource.as_ref();
            if source.is_some_and(|source| source.container.is_empty()) {
                errors.required(format!("{path}.containerResource.container"), "");
            }
            ("containerResource", source.map(|s| s.name.as_str()), source.map(|s| &s.target))
        }
        "" => return errors.required(format!("{path}.type"), "must specify a metric source type"),
        other => {
            // Figures that agents report are of pods' processor and memory; there is nobody to
            // ask for others.
            let known = ["ContainerResource", "Resource"];
            let path = format!("{path}.type");
            return errors.push(FieldError::not_supported(path, other, &known));
        }
    };
    let (Some(name), Some(target)) = (name, target) else {
        let text = format!("must populate information for the given metric source: {field}");
        return errors.required(format!("{path}.{field}"), &text);
    };
    let path = format!("{path}.{field}");
    errors.one_of(format!("{path}.name"), Some(name), &["cpu", "memory"]);
    match (target.type_.as_str(), target.average_utilization, &target.average_value) {
        ("Utilization", Some(percent), None) if percent >= 1 => {}
        ("AverageValue", None, Some(value)) => {
            let parsed = Quantity::parse(&value.0);
            if parsed.is_err() || parsed.is_ok_and(|value| value <= Quantity::default()) {
                errors.invalid(format!("{path}.target.averageValue"), &value.0, "must be positive");
            }
        }
        ("Utilization", Some(percent), None) => {
            let text = "must be greater than 0";
            errors.invalid(format!("{path}.target.averageUtilization"), percent, text);
        }
        ("Utilization" | "AverageValue", ..) => errors.required(
            format!("{path}.target"),
            "must set either averageUtilization or averageValue, as the type says",
        ),
        (other, ..) => {
            let known = ["Utilization", "AverageValue"];
            errors.push(FieldError::not_supported(format!("{path}.target.type"), other, &known));
        }
    }
}

fn validate_rules(rules: &HPAScalingRules, path: &str, errors: &mut Errors) {
    const WINDOW_MAX: i32 = 3600;
    const PERIOD_MAX: i32 = 1800;
    errors.one_of(
        format!("{path}.selectPolicy"),
        rules.select_policy.as_deref(),
        &["Disabled", "Max", "Min"],
    );
    if let Some(window) = rules.stabilization_window_seconds
        && !(0..=WINDOW_MAX).contains(&window)
    {
        let text = format!("must be between 0 and {WINDOW_MAX}, inclusive");
        errors.invalid(format!("{path}.stabilizationWindowSeconds"), window, text);
    }
    for (index, policy) in rules.policies.iter().flatten().enumerate() {
        let path = format!("{path}.policies[{index}]");
        errors.one_of(format!("{path}.type"), Some(&policy.type_), &["Percent", "Pods"]);
        if policy.value <= 0 {
            errors.invalid(format!("{path}.value"), policy.value, "must be greater than zero");
        }
        if !(1..=PERIOD_MAX).contains(&policy.period_seconds) {
            let text = format!("must be between 1 and {PERIOD_MAX}, inclusive");
            errors.invalid(format!("{path}.periodSeconds"), policy.period_seconds, text);
        }
    }
}

/// `cpu: 12%/80%, memory: <unknown>/200Mi`
fn shown_targets(this: &HorizontalPodAutoscaler) -> String {
    const SHOWN: usize = 2;
    let metrics = this.spec.metrics.as_ref();
    let current = this.status.as_ref().and_then(|status| status.current_metrics.clone());
    let current = current.unwrap_or_default();
    let one = |(index, metric): (usize, &MetricSpec)| {
        let status = current.get(index);
        let (name, target, value) = match (&metric.resource, &metric.container_resource) {
            (Some(source), _) => {
                let value = status.and_then(|s| s.resource.as_ref()).map(|r| &r.current);
                (source.name.as_str(), &source.target, value)
            }
            (None, Some(source)) => {
                let value = status.and_then(|s| s.container_resource.as_ref()).map(|r| &r.current);
                (source.name.as_str(), &source.target, value)
            }
            (None, None) => return "<unknown type>".to_owned(),
        };
        format!("{name}: {}", shown_target(target, value))
    };
    let shown: Vec<String> = metrics.into_iter().flatten().enumerate().map(one).collect();
    match shown.len() {
        0 => "<none>".into(),
        count if count > SHOWN => {
            format!("{} + {} more...", shown[..SHOWN].join(", "), count - SHOWN)
        }
        _ => shown.join(", "),
    }
}

fn shown_target(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    let unknown = || "<unknown>".to_owned();
    match (target.average_utilization, &target.average_value) {
        (Some(percent), _) => {
            let now = current.and_then(|c| c.average_utilization);
            let now = now.map_or_else(unknown, |now| format!("{now}%"));
            format!("{now}/{percent}%")
        }
        (None, Some(value)) => {
            let now = current.and_then(|c| c.average_value.clone());
            format!("{}/{}", now.map_or_else(unknown, |now| now.0), value.0)
        }
        (None, None) => unknown(),
    }
}
