//! Resource quotas: what objects use of them, and who may be created.
//!
//! Invariant: an object that a quota counts is created in one transaction with the quota's new
//! `status.used`, which compares the quota's revision. So concurrent creations on different
//! masters never exceed it together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ResourceQuotaStatus,
    ResourceRequirements, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use quorate_objects::quantity::{self, Quantity};
use quorate_objects::{Kind, Typed, kinds, pod};
use serde_json::Value;

use crate::cache::View;
use crate::commit::{Plan, encode};
use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::registry::Registry;

type Amounts = BTreeMap<String, Quantity>;
type Quantities = BTreeMap<String, ApiQuantity>;
/// The requests or the limits.
type Pick = fn(&ResourceRequirements) -> Option<&Quantities>;

/// Kinds that quotas know by their bare name; all others only as `count/…`.
const NAMED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// Kinds of which a change may use more than before. (What containers of a pod request does not
/// change.)
static GROWING: [&Kind; 2] = [&kinds::SERVICE, &kinds::PERSISTENT_VOLUME_CLAIM];

/// The quotas that a creation or change counts in, as they will be.
#[derive(Default)]
pub(crate) struct Counted {
    /// Key, revision that it was decided on, new content.
    quotas: Vec<(ObjectKey, u64, Value)>,
}

impl Counted {
    pub fn plan(self, plan: &mut Plan) -> Result<(), RegistryError> {
        for (key, revision, mut value) in self.quotas {
            plan.expect(key.store_key(), revision);
            plan.put(key.store_key(), encode(&mut value)?);
        }
        Ok(())
    }
}

impl Registry {
    /// Does the namespace have quotas?
    pub(crate) fn has_quotas(&self, namespace: &str) -> bool {
        // "" would mean all namespaces.
        !namespace.is_empty()
            && self
                .inner
                .cache
                .read(|view| view.iter(&kinds::RESOURCE_QUOTA, Some(namespace)).next().is_some())
    }

    /// Checks a new object against the quotas of its namespace. `fresh`: read them from the
    /// store, because they have changed meanwhile.
    pub(crate) async fn count(
        &self,
        key: &ObjectKey,
        value: &Value,
        fresh: bool,
    ) -> Result<Counted, RegistryError> {
        if !key.kind.namespaced || !self.has_quotas(&key.namespace) {
            return Ok(Counted::default());
        }
        let object = Object::from_value(key.kind, value.clone(), 0)?;
        self.admit_more(key, &object, &usage(&object), fresh).await
    }

    /// Checks what an object would use more than before. (What it uses less is counted by the
    /// quotas' controller.)
    pub(crate) async fn count_change(
        &self,
        key: &ObjectKey,
        old: &Object,
        new: &Value,
    ) -> Result<Counted, RegistryError> {
        if !GROWING.contains(&key.kind) || !self.has_quotas(&key.namespace) {
            return Ok(Counted::default());
        }
        let object = Object::from_value(key.kind, new.clone(), 0)?;
        let before = usage(old);
        let grown = |(name, amount): (String, Quantity)| {
            let more = amount.minus(before.get(&name).copied().unwrap_or_default());
            (more > Quantity::default()).then_some((name, more))
        };
        let more: Amounts = usage(&object).into_iter().filter_map(grown).collect();
        if more.is_empty() {
            return Ok(Counted::default());
        }
        self.admit_more(key, &object, &more, true).await
    }

    async fn admit_more(
        &self,
        key: &ObjectKey,
        object: &Object,
        used: &Amounts,
        fresh: bool,
    ) -> Result<Counted, RegistryError> {
        let mut counted = Counted::default();
        for quota in self.inner.cache.list(&kinds::RESOURCE_QUOTA, Some(&key.namespace)) {
            let quota = if fresh {
                match self.reload(&quota.key()).await {
                    Ok(loaded) => loaded.object,
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(error),
                }
            } else {
                quota
            };
            let typed = quota.typed::<ResourceQuota>()?;
            if !applies(&typed, object) {
                continue;
            }
            let known = self.inner.cache.read(|view| known_usage(view, &typed));
            let Some(new) = admit(&typed, known, used, object).map_err(|message| {
                let ObjectKey { kind, name, .. } = key;
                RegistryError::Forbidden(format!(
                    "{} \"{name}\" is forbidden: {message}",
                    kind.resource()
                ))
            })?
            else {
                continue;
            };
            let value =
                new.to_value().map_err(|error| RegistryError::Internal(error.to_string()))?;
            counted.quotas.push((quota.key(), quota.revision, value));
        }
        Ok(counted)
    }
}

/// What an object uses of quotas.
#[must_use]
pub fn usage(object: &Object) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::new();
    used.insert(format!("count/{}", object.kind.resource()), one);
    if *object.kind == kinds::POD {
        if let Ok(pod) = object.typed::<Pod>()
            && !pod::is_terminal(&pod)
        {
            used.insert("pods".into(), one);
            pod_usage(&pod, &mut used);
        }
        return used;
    }
    if object.kind.group.is_empty() && NAMED.contains(&object.kind.plural) {
        used.insert(object.kind.plural.into(), one);
    }
    if *object.kind == kinds::SERVICE
        && let Ok(service) = object.typed::<Service>()
    {
        service_usage(&service, &mut used);
    }
    if *object.kind == kinds::PERSISTENT_VOLUME_CLAIM
        && let Ok(claim) = object.typed::<PersistentVolumeClaim>()
    {
        claim_usage(&claim, &mut used);
    }
    used
}

fn pod_usage(object: &Pod, used: &mut Amounts) {
    let Some(spec) = &object.spec else { return };
    let overhead = || spec.overhead.iter().flatten();
    let mut requests = totals(spec, |resources| resources.requests.as_ref());
    for (name, quantity) in overhead() {
        let sum = requests.entry(name.clone()).or_default();
        *sum = sum.plus(parsed(quantity));
    }
    for (name, amount) in requests {
        // "cpu" is an old name of "requests.cpu".
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    let mut limits = totals(spec, |resources| resources.limits.as_ref());
    for (name, quantity) in overhead() {
        // What is not limited is not limited by this either.
        if let Some(sum) = limits.get_mut(name).filter(|sum| **sum > Quantity::default()) {
            *sum = sum.plus(parsed(quantity));
        }
    }
    for (name, amount) in limits {
        used.insert(format!("limits.{name}"), amount);
    }
}

/// What the containers take together at most of what they name.
fn totals(spec: &PodSpec, pick: Pick) -> Amounts {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let lists = containers.filter_map(|container| list(container, pick));
    let names: BTreeSet<&String> = lists.flat_map(BTreeMap::keys).collect();
    let total = |name: &String| {
        let amount = |container: &Container| {
            list(container, pick).and_then(|list| list.get(name)).map(parsed).unwrap_or_default()
        };
        (name.clone(), pod::peak(spec, amount, Quantity::plus))
    };
    names.into_iter().map(total).collect()
}

fn list(container: &Container, pick: Pick) -> Option<&Quantities> {
    container.resources.as_ref().and_then(pick)
}

fn service_usage(service: &Service, used: &mut Amounts) {
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.iter().flatten();
    let node_ports = match spec.type_.as_deref() {
        Some("NodePort") => ports.count(),
        Some("LoadBalancer") => {
            used.insert("services.loadbalancers".into(), Quantity::from_units(1));
            let allotted = spec.allocate_load_balancer_node_ports != Some(false);
            ports.filter(|port| allotted || port.node_port.is_some()).count()
        }
        _ => 0,
    };
    let count = i64::try_from(node_ports).unwrap_or(i64::MAX);
    used.insert("services.nodeports".into(), Quantity::from_units(count));
}

fn claim_usage(claim: &PersistentVolumeClaim, used: &mut Amounts) {
    let Some(spec) = &claim.spec else { return };
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage")).map(parsed);
    let size = size.unwrap_or_default();
    used.insert("requests.storage".into(), size);
    if let Some(class) = &spec.storage_class_name {
        let of_class = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{of_class}/requests.storage"), size);
        used.insert(format!("{of_class}/persistentvolumeclaims"), Quantity::from_units(1));
    }
}

fn parsed(quantity: &ApiQuantity) -> Quantity {
    // Validation refuses what is no quantity.
    Quantity::parse(&quantity.0).unwrap_or_default()
}

/// Does the quota's scope include the object?
fn applies(quota: &ResourceQuota, object: &Object) -> bool {
    let Some(spec) = &quota.spec else { return false };
    let listed = spec.scopes.iter().flatten().map(|scope| (scope.as_str(), "Exists", &[][..]));
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    let selected = selected.map(|one| {
        let values = one.values.as_deref().unwrap_or_default();
        (one.scope_name.as_str(), one.operator.as_str(), values)
    });
    let mut scopes = listed.chain(selected).peekable();
    if scopes.peek().is_none() {
        return true;
    }
    let Ok(pod) = object.typed::<Pod>() else { return false };
    scopes.all(|(scope, operator, values)| in_scope(&pod, scope, operator, values))
}

fn in_scope(object: &Pod, scope: &str, operator: &str, values: &[String]) -> bool {
    let spec = object.spec.as_ref();
    let quality = object.status.as_ref().and_then(|status| status.qos_class.as_deref());
    let ends = spec.is_some_and(|spec| spec.active_deadline_seconds.is_some());
    match scope {
        "BestEffort" => quality == Some("BestEffort"),
        "NotBestEffort" => quality != Some("BestEffort"),
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "CrossNamespacePodAffinity" => false,
        _ => {
            let class = spec.and_then(|spec| spec.priority_class_name.as_ref());
            match operator {
                "In" => class.is_some_and(|class| values.contains(class)),
                "NotIn" => class.is_none_or(|class| !values.contains(class)),
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
    }
}

/// What is used of a quota: what its status says, and for what it does not say, a count.
fn known_usage(view: &View, quota: &ResourceQuota) -> Amounts {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let used = quota.status.as_ref().and_then(|status| status.used.clone()).unwrap_or_default();
    if hard.keys().all(|name| used.contains_key(name)) {
        return used.iter().map(|(name, amount)| (name.clone(), parsed(amount))).collect();
    }
    counted_usage(view, quota)
}

/// What the objects of a quota's namespace use of it.
#[must_use]
pub fn counted_usage(view: &View, quota: &ResourceQuota) -> Amounts {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let namespace = quota.metadata.namespace.as_deref();
    let mut total: Amounts = hard.keys().map(|name| (name.clone(), Quantity::default())).collect();
    let counted = |kind: &&'static Kind| kind.namespaced && **kind != kinds::EVENT;
    for kind in kinds().into_iter().filter(counted) {
        for object in view.iter(kind, namespace) {
            if !applies(quota, object) {
                continue;
            }
            for (name, amount) in usage(object) {
                if let Some(sum) = total.get_mut(&name) {
                    *sum = sum.plus(amount);
                }
            }
        }
    }
    total
}

/// The status of a quota of which so much is used.
#[must_use]
pub fn status(quota: &ResourceQuota, used: &Amounts) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let used = used.iter().filter(|(name, _)| hard.contains_key(*name));
    let used = used.map(|(name, amount)| (name.clone(), written(name, *amount))).collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

fn written(name: &str, amount: Quantity) -> ApiQuantity {
    if name.contains("memory") || name.contains("storage") && !name.starts_with("count/") {
        return quantity::from_bytes(amount.units());
    }
    ApiQuantity(amount.to_string())
}

/// The quota after the object was created; `None`: it does not count it. The error says, in
/// Kubernetes' words, what is exceeded.
fn admit(
    quota: &ResourceQuota,
    known: Amounts,
    new: &Amounts,
    object: &Object,
) -> Result<Option<ResourceQuota>, String> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    if let Ok(pod) = object.typed::<Pod>() {
        let missing = unspecified(&pod, &hard);
        if !missing.is_empty() {
            return Err(format!("failed quota: {name}: must specify {}", missing.join("; ")));
        }
    }
    let counted: Vec<_> = new.iter().filter(|(resource, _)| hard.contains_key(*resource)).collect();
    if counted.is_empty() {
        return Ok(None);
    }
    let mut total = known;
    let (mut requested, mut used, mut limited) = (Vec::new(), Vec::new(), Vec::new());
    for (resource, amount) in counted {
        let before = total.get(resource).copied().unwrap_or_default();
        let after = before.plus(*amount);
        let limit = parsed(&hard[resource]);
        if after > limit && *amount > Quantity::default() {
            requested.push(format!("{resource}={}", written(resource, *amount).0));
            used.push(format!("{resource}={}", written(resource, before).0));
            limited.push(format!("{resource}={}", hard[resource].0));
        }
        total.insert(resource.clone(), after);
    }
    if !requested.is_empty() {
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            requested.join(","),
            used.join(","),
            limited.join(",")
        ));
    }
    let mut after = quota.clone();
    after.status = Some(status(quota, &total));
    Ok(Some(after))
}

/// Resources that the quota bounds and containers do not name.
fn unspecified(object: &Pod, hard: &Quantities) -> Vec<String> {
    let mut missing = Vec::new();
    for resource in hard.keys() {
        let (from_limits, name) = match resource.split_once('.') {
            Some(("limits", name)) => (true, name),
            Some(("requests", name)) => (false, name),
            _ => (false, resource.as_str()),
        };
        if !matches!(name, "cpu" | "memory") {
            continue;
        }
        let pick: Pick = if from_limits {
            |resources| resources.limits.as_ref()
        } else {
            |resources| resources.requests.as_ref()
        };
        let lacks = |container: &&Container| {
            list(container, pick).is_none_or(|list| !list.contains_key(name))
        };
        let containers = object.spec.iter().flat_map(|spec| &spec.containers);
        let names: Vec<&str> =
            containers.filter(lacks).map(|container| container.name.as_str()).collect();
        if !names.is_empty() {
            missing.push(format!("{resource} for: {}", names.join(",")));
        }
    }
    missing
}

/// Turns of creations in namespaces with quotas: on one master they go one after the other,
/// because they would only refuse each other's transactions.
#[derive(Default)]
pub(crate) struct Turns {
    turns: parking_lot::Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    pub fn of(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        // Those that nobody waits for are forgotten.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(namespace.to_owned()).or_default())
    }
}
