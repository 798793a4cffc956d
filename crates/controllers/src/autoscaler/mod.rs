//! Horizontal autoscalers: replicas follow the processor and memory that pods use.

mod behavior;
mod proposal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use parking_lot::Mutex;
use quorate_objects::{Kind, Selector, kinds, pod, quantity};
use quorate_registry::metrics::{PodUsage, Usage};
use quorate_registry::{EventType, Object, ObjectEvent};
use serde_json::Value;

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use behavior::Memory;
use proposal::{Proposal, Sample, Target};

/// Differences below this share are left alone (Kubernetes' default).
const TOLERANCE: f64 = 0.1;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// The controller of HorizontalPodAutoscalers.
pub struct Autoscalers {
    context: Arc<Context>,
    interval: Duration,
    memory: Mutex<HashMap<Key, Memory>>,
}

/// What is scaled.
struct Scaled {
    object: Arc<Object>,
    value: Value,
    replicas: i32,
    selector: Selector,
}

/// What the figures say.
struct Reading {
    proposal: Option<i32>,
    statuses: Vec<MetricStatus>,
    failure: Option<String>,
}

impl Autoscalers {
    /// The controller; `interval`: between two looks at the figures.
    #[must_use]
    pub fn new(context: Arc<Context>, interval: Duration) -> Self {
        Self { context, interval, memory: Mutex::default() }
    }

    fn target(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<Scaled, String> {
        let reference = &autoscaler.spec.scale_target_ref;
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let api_version = reference.api_version.as_deref().unwrap_or_default();
        let scalable = [&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::STATEFUL_SET];
        let kind = Kind::by_gvk(api_version, &reference.kind);
        let kind = kind
            .filter(|kind| scalable.contains(kind))
            .ok_or_else(|| format!("no scale is known of {} in {api_version:?}", reference.kind))?;
        let found = self.context.registry().cache().get(kind, namespace, &reference.name);
        let object =
            found.ok_or_else(|| format!("{} \"{}\" not found", kind.resource(), reference.name))?;
        let value = object.value();
        let selector: LabelSelector = serde_json::from_str(&value["spec"]["selector"].to_string())
            .map_err(|error| format!("the selector cannot be read: {error}"))?;
        let selector = Selector::from_label_selector(&selector).map_err(|e| e.to_string())?;
        let replicas = value["spec"]["replicas"].as_i64().unwrap_or(1);
        let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
        Ok(Scaled { object, value, replicas, selector })
    }

    /// The pods of the target that count, with what they use.
    fn pods(&self, scaled: &Scaled) -> Vec<(Arc<Pod>, Option<PodUsage>)> {
        let registry = self.context.registry();
        let namespace = scaled.object.namespace();
        let all = registry.cache().list(&kinds::POD, Some(namespace));
        let matching = all.iter().filter(|object| scaled.selector.matches(object.labels()));
        let pods = matching.filter_map(|object| object.typed::<Pod>().ok());
        let active = pods.filter(|object| pod::is_active(object));
        let with_usage = active.map(|object| {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let usage = registry.metrics().pod(namespace, name);
            // A later pod of the same name is another one.
            let usage = usage.map(|(usage, _)| usage);
            let usage = usage.filter(|usage| Some(&usage.uid) == object.metadata.uid.as_ref());
            (object, usage)
        });
        with_usage.collect()
    }

    fn read(&self, autoscaler: &HorizontalPodAutoscaler, scaled: &Scaled) -> Reading {
        let pods = self.pods(scaled);
        let mut reading = Reading { proposal: None, statuses: Vec::new(), failure: None };
        for metric in autoscaler.spec.metrics.iter().flatten() {
            match one(metric, scaled.replicas, &pods) {
                Ok(proposal) => {
                    reading.statuses.push(status_of(metric, proposal));
                    let highest = reading.proposal.unwrap_or(i32::MIN).max(proposal.replicas);
                    reading.proposal = Some(highest);
                }
                Err(error) => {
                    reading.failure.get_or_insert(error);
                }
            }
        }
        // With a figure missing, the others may ask for more but not for less.
        if reading.failure.is_some() {
            reading.proposal = reading.proposal.filter(|proposed| *proposed > scaled.replicas);
        }
        reading
    }

    async fn scale(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        scaled: &Scaled,
        replicas: i32,
    ) -> Result<(), ControllerError> {
        let mut value = scaled.value.clone();
        value["spec"]["replicas"] = replicas.into();
        self.context.update_value(value).await?;
        let text = format!("New size: {replicas}; reason: resource utilization");
        self.context.event(autoscaler, EventType::Normal, "SuccessfulRescale", &text);
        Ok(())
    }

    /// Decides and scales; returns the status.
    async fn advance(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        now: Timestamp,
    ) -> Result<HorizontalPodAutoscalerStatus, ControllerError> {
        let mut status = autoscaler.status.clone().unwrap_or_default();
        status.observed_generation = autoscaler.metadata.generation;
        let scaled = match self.target(autoscaler) {
            Ok(scaled) => scaled,
            Err(error) => {
                let text = format!(
                    "the HPA controller was unable to get the target's current scale: {error}"
                );
                self.context.event(autoscaler, EventType::Warning, "FailedGetScale", &text);
                set(&mut status, "AbleToScale", "False", "FailedGetScale", &text, now);
                return Ok(status);
            }
        };
        let current = scaled.replicas;
        status.current_replicas = Some(current);
        if current == 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            set(&mut status, "ScalingActive", "False", "ScalingDisabled", text, now);
            status.desired_replicas = 0;
            return Ok(status);
        }
        let reading = self.read(autoscaler, &scaled);
        status.current_metrics = Some(reading.statuses);
        match (&reading.failure, reading.proposal) {
            (Some(error), None) => {
                let text = format!("the HPA was unable to compute the replica count: {error}");
                let reason = "FailedGetResourceMetric";
                self.context.event(autoscaler, EventType::Warning, reason, &text);
                set(&mut status, "ScalingActive", "False", reason, &text, now);
            }
            _ => {
                let text = "the HPA was able to successfully calculate a replica count";
                set(&mut status, "ScalingActive", "True", "ValidMetricFound", text, now);
            }
        }
        let limited = {
            let mut memory = self.memory.lock();
            let memory = memory.entry(key.clone()).or_default();
            let proposed = reading.proposal.unwrap_or(current);
            memory.limit(&autoscaler.spec, current, proposed, now.as_second())
        };
        match &limited.why {
            Some((reason, text)) if reason.ends_with("Stabilized") => {
                set(&mut status, "AbleToScale", "True", reason, text, now);
                no_limit(&mut status, now);
            }
            Some((reason, text)) => {
                ready(&mut status, now);
                set(&mut status, "ScalingLimited", "True", reason, text, now);
            }
            None => {
                ready(&mut status, now);
                no_limit(&mut status, now);
            }
        }
        status.desired_replicas = limited.replicas;
        if limited.replicas != current {
            self.scale(autoscaler, &scaled, limited.replicas).await?;
            let mut memory = self.memory.lock();
            let memory = memory.entry(key.clone()).or_default();
            memory.changed(now.as_second(), limited.replicas - current);
            status.last_scale_time = Some(Time(now));
        }
        Ok(status)
    }
}

fn ready(status: &mut HorizontalPodAutoscalerStatus, now: Timestamp) {
    let text = "recommended size matches current size";
    set(status, "AbleToScale", "True", "ReadyForNewScale", text, now);
}

fn no_limit(status: &mut HorizontalPodAutoscalerStatus, now: Timestamp) {
    let text = "the desired count is within the acceptable range";
    set(status, "ScalingLimited", "False", "DesiredWithinRange", text, now);
}

/// What one metric asks for.
fn one(
    metric: &MetricSpec,
    current: i32,
    pods: &[(Arc<Pod>, Option<PodUsage>)],
) -> Result<Proposal, String> {
    let (name, target, container) = source(metric).ok_or("unknown metric source")?;
    let memory = name == "memory";
    let figure = |usage: Usage| {
        let value =
            if memory { usage.memory_bytes } else { usage.cpu_nanocores.div_ceil(NANOS_PER_MILLI) };
        i64::try_from(value).unwrap_or(i64::MAX)
    };
    let sample = |(object, usage): &(Arc<Pod>, Option<PodUsage>)| {
        let used = usage.as_ref().and_then(|usage| {
            let wanted = |name: &str| container.is_none_or(|wanted| wanted == name);
            let figures: Vec<i64> = usage
                .containers
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(_, usage)| figure(*usage))
                .collect();
            (!figures.is_empty()).then(|| figures.iter().sum())
        });
        let containers = object.spec.iter().flat_map(|spec| &spec.containers);
        let counted = containers.filter(|one| container.is_none_or(|name| name == one.name));
        let requests: Vec<i64> = counted.map(|one| request(one, memory)).collect();
        // One container that requests nothing makes the pod's share meaningless.
        let request = if requests.contains(&0) { 0 } else { requests.iter().sum() };
        Sample { usage: used, request, ready: pod::is_ready(object) }
    };
    let samples: Vec<Sample> = pods.iter().map(sample).collect();
    let wanted = match (target.average_utilization, &target.average_value) {
        (Some(percent), _) => Target::Utilization(percent),
        (None, Some(value)) if memory => Target::Average(quantity::bytes(value)),
        (None, Some(value)) => Target::Average(quantity::cpu_millis(value)),
        (None, None) => return Err("the metric has no target".into()),
    };
    proposal::propose(current, &samples, wanted, TOLERANCE)
        .map_err(|error| format!("failed to get {name} utilization: {error}"))
}

fn request(container: &Container, memory: bool) -> i64 {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(requests) = requests else { return 0 };
    if memory {
        requests.get("memory").map_or(0, quantity::bytes)
    } else {
        requests.get("cpu").map_or(0, quantity::cpu_millis)
    }
}

/// Name of the resource, target, container.
fn source(metric: &MetricSpec) -> Option<(&str, &MetricTarget, Option<&str>)> {
    if let Some(source) = &metric.resource {
        return Some((source.name.as_str(), &source.target, None));
    }
    let source = metric.container_resource.as_ref()?;
    Some((source.name.as_str(), &source.target, Some(source.container.as_str())))
}

fn status_of(metric: &MetricSpec, proposal: Proposal) -> MetricStatus {
    let name = source(metric).map(|(name, ..)| name.to_owned()).unwrap_or_default();
    let average = if name == "memory" {
        quantity::from_bytes(proposal.average)
    } else {
        quantity::from_millis(proposal.average)
    };
    let current = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(average),
        value: None,
    };
    let mut status = MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() };
    match &metric.container_resource {
        Some(source) => {
            let container = source.container.clone();
            let of = ContainerResourceMetricStatus { container, current, name };
            status.container_resource = Some(of);
        }
        None => status.resource = Some(ResourceMetricStatus { current, name }),
    }
    status
}

fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    condition: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|one| one.type_ == condition);
    let old = at.map(|at| conditions.remove(at));
    let since = old.filter(|old| old.status == value).and_then(|old| old.last_transition_time);
    conditions.push(HorizontalPodAutoscalerCondition {
        type_: condition.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: None,
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

#[async_trait]
impl Controller for Autoscalers {
    fn name(&self) -> &'static str {
        "horizontalpodautoscaler"
    }

    /// Only what users change: figures are looked at in intervals.
    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = event.object.as_ref() else { return Vec::new() };
        if *object.kind != kinds::HORIZONTAL_POD_AUTOSCALER {
            return Vec::new();
        }
        let typed = object.typed::<HorizontalPodAutoscaler>();
        let seen = typed.is_ok_and(|one| {
            one.status.as_ref().and_then(|s| s.observed_generation) == one.metadata.generation
        });
        if seen { Vec::new() } else { vec![key_of(object)] }
    }

    fn all(&self) -> Vec<Key> {
        let keys = self.context.keys(&kinds::HORIZONTAL_POD_AUTOSCALER);
        self.memory.lock().retain(|key, _| keys.contains(key));
        keys
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let found = self.context.get::<HorizontalPodAutoscaler>(&key.namespace, &key.name);
        let Some(autoscaler) = found else { return Ok(Requeue::Done) };
        if autoscaler.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Done);
        }
        let status = self.advance(key, &autoscaler, quorate_objects::time::timestamp()).await?;
        if autoscaler.status.as_ref() != Some(&status) {
            let mut updated = HorizontalPodAutoscaler::clone(&autoscaler);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
#[path = "autoscaler_test.rs"]
mod tests;
