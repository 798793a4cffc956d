//! What schedulers, controllers and agents ask of pods.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodCondition, PodSpec, PodTemplateSpec, ResourceRequirements,
    Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};

use crate::kind::Typed;
use crate::quantity;

/// What a pod needs of a node, or what a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the node's own disk (`ephemeral-storage`).
    pub ephemeral_bytes: i64,
    /// Number of pods (1 for a pod).
    pub pods: i64,
}

impl Resources {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            ephemeral_bytes: self.ephemeral_bytes.saturating_add(other.ephemeral_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    /// What is left without `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            ephemeral_bytes: self.ephemeral_bytes.saturating_sub(other.ephemeral_bytes),
            pods: self.pods.saturating_sub(other.pods),
        }
    }
}

/// The pod's phase; `Pending` when there is none.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Has it ended for good (Succeeded or Failed)?
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Is it being deleted?
#[must_use]
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither ended nor being deleted.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

/// Is the condition Ready true?
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// The node it is bound to.
#[must_use]
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Its address.
#[must_use]
pub fn pod_ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// The conditions that a pod's agent sets. Others belong to others: readiness gates, disruptions.
pub const AGENT_CONDITIONS: [&str; 5] =
    ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// A condition by its type.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, condition_type: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == condition_type)
}

/// Sets a condition; the time of transition changes only when the status does. Says whether
/// anything changed.
pub fn set_condition(
    pod: &mut Pod,
    condition_type: &str,
    status: &str,
    reason: Option<&str>,
    message: Option<&str>,
) -> bool {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let present = conditions.iter().position(|c| c.type_ == condition_type);
    let reason = reason.map(str::to_owned);
    let message = message.map(str::to_owned);
    let new = PodCondition {
        type_: condition_type.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        last_transition_time: Some(crate::time::now()),
        ..PodCondition::default()
    };
    let Some(index) = present else {
        conditions.push(new);
        return true;
    };
    let old = &mut conditions[index];
    if old.status == new.status && old.reason == new.reason && old.message == new.message {
        return false;
    }
    let since = if old.status == new.status {
        old.last_transition_time.take()
    } else {
        new.last_transition_time.clone()
    };
    *old = PodCondition { last_transition_time: since, ..new };
    true
}

/// The statuses of its containers.
pub fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten())
}

/// What a container asks of the resource. A limit without a request is a request too.
fn requested(container: &Container, resource: &str, convert: fn(&Quantity) -> i64) -> i64 {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get(resource));
    let limits = resources.and_then(|r| r.limits.as_ref()).and_then(|r| r.get(resource));
    requests.or(limits).map_or(0, convert)
}

/// The most that a pod takes at once of something, of which `needs` says what a container takes:
/// the sum over its containers, or its largest init container when that is more.
#[must_use]
pub fn peak<T: Copy + Default + Ord>(
    spec: &PodSpec,
    needs: impl Fn(&Container) -> T,
    plus: fn(T, T) -> T,
) -> T {
    let (mut running, mut peak) = (T::default(), T::default());
    for container in spec.init_containers.iter().flatten() {
        let beside = plus(running, needs(container));
        peak = peak.max(beside);
        // A sidecar stays beside everything that starts after it.
        if container.restart_policy.as_deref() == Some("Always") {
            running = beside;
        }
    }
    for container in &spec.containers {
        running = plus(running, needs(container));
    }
    peak.max(running)
}

/// What the pod asks of one resource, with its overhead.
fn total(spec: &PodSpec, resource: &str, convert: fn(&Quantity) -> i64) -> i64 {
    let needs = |container: &Container| requested(container, resource, convert);
    let overhead = spec.overhead.as_ref().and_then(|all| all.get(resource)).map_or(0, convert);
    peak(spec, needs, i64::saturating_add).saturating_add(overhead)
}

/// What the pod asks of its node, but for [`extended_requests`].
#[must_use]
pub fn requests(pod: &Pod) -> Resources {
    let Some(spec) = pod.spec.as_ref() else {
        return Resources { pods: 1, ..Resources::default() };
    };
    Resources {
        cpu_millis: total(spec, "cpu", quantity::cpu_millis),
        memory_bytes: total(spec, "memory", quantity::bytes),
        ephemeral_bytes: total(spec, "ephemeral-storage", quantity::bytes),
        pods: 1,
    }
}

/// Kubernetes' class of service: Guaranteed when every container has limits of processor and memory
/// that equal its requests, BestEffort when none has any of them.
#[must_use]
pub fn qos_class(spec: &PodSpec) -> &'static str {
    type List = Option<BTreeMap<String, Quantity>>;
    let amount = |list: &List, name: &str, convert: fn(&Quantity) -> i64| {
        // Nothing of something is as good as no word.
        list.as_ref().and_then(|list| list.get(name)).map(convert).filter(|amount| *amount > 0)
    };
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let none = ResourceRequirements::default();
        let resources = container.resources.as_ref().unwrap_or(&none);
        for (name, convert) in
            [("cpu", quantity::cpu_millis as fn(&_) -> _), ("memory", quantity::bytes)]
        {
            let limit = amount(&resources.limits, name, convert);
            let request = amount(&resources.requests, name, convert);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Is it a resource that nodes advertise under a name of its own, such as `example.com/gpu` or
/// `hugepages-2Mi`?
#[must_use]
pub fn is_extended(resource: &str) -> bool {
    !matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "pods" | "storage")
}

/// What the pod asks of each extended resource, in order of their names.
#[must_use]
pub fn extended_requests(pod: &Pod) -> BTreeMap<String, i64> {
    let Some(spec) = pod.spec.as_ref() else { return BTreeMap::new() };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let lists = containers
        .filter_map(|container| container.resources.as_ref())
        .flat_map(|resources| [resources.requests.as_ref(), resources.limits.as_ref()])
        .chain([spec.overhead.as_ref()]);
    let names: BTreeSet<&String> =
        lists.flatten().flat_map(BTreeMap::keys).filter(|name| is_extended(name)).collect();
    let amounts = names.into_iter().map(|name| (name.clone(), total(spec, name, quantity::bytes)));
    amounts.filter(|(_, amount)| *amount > 0).collect()
}

/// Does the toleration tolerate the taint? (Time limits are not looked at.)
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if filled(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let exists = toleration.operator.as_deref() == Some("Exists");
    match filled(&toleration.key) {
        None => exists,
        Some(key) if key != taint.key => false,
        Some(_) if exists => true,
        Some(_) => filled(&toleration.value) == filled(&taint.value),
    }
}

/// The first of `taints` with one of `effects` that no toleration of the pod tolerates.
#[must_use]
pub fn untolerated<'a>(pod: &Pod, taints: &'a [Taint], effects: &[&str]) -> Option<&'a Taint> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// The owner that controls the object.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A reference that makes `owner` the controller of an object.
#[must_use]
pub fn controller_reference<T: Typed>(owner: &T) -> OwnerReference {
    let meta = Metadata::metadata(owner);
    OwnerReference {
        api_version: <T as Resource>::API_VERSION.to_owned(),
        kind: <T as Resource>::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod from a template; the caller sets names and owner.
#[must_use]
pub fn from_template(template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
