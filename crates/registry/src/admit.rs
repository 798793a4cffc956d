//! What is filled in or refused when objects are created, by other objects of the cluster:
//! service accounts, priority classes, storage classes, limit ranges. Quotas are in `quota.rs`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ServiceAccount,
};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use quorate_objects::quantity::Quantity;
use quorate_objects::{Kind, Typed, kinds, pod, storage};
use serde_json::Value;

use crate::error::RegistryError;
use crate::registry::Registry;

type Quantities = BTreeMap<String, ApiQuantity>;

/// The account of pods that name none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// Priority classes that every cluster has, without objects of their own (Kubernetes' values).
const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The preemption policy of classes that name none.
const PREEMPTS: &str = "PreemptLowerPriority";

impl Registry {
    /// What does not depend on a pod's defaults is filled in before them, so that one look at the
    /// pod completes and checks it. Says whether that was done.
    pub(crate) fn admit_first(
        &self,
        kind: &'static Kind,
        value: &mut Value,
    ) -> Result<bool, RegistryError> {
        let is_text = |value: &Value| value.is_null() || value.is_string();
        let spec = &value["spec"];
        // What is of a wrong type is to be told of, not filled in.
        let sound = spec.is_object()
            && value["metadata"]["namespace"].is_string()
            && (spec["priority"].is_null() || spec["priority"].is_i64())
            && ["serviceAccountName", "serviceAccount", "priorityClassName", "preemptionPolicy"]
                .into_iter()
                .all(|field| is_text(&spec[field]));
        if *kind != kinds::POD || !sound {
            return Ok(false);
        }
        self.service_account(value)?;
        self.priority(value)?;
        Ok(true)
    }

    /// Will nothing be filled in any more? `first`: what [`Self::admit_first`] said.
    pub(crate) fn is_admitted(&self, kind: &'static Kind, value: &Value, first: bool) -> bool {
        let filled = [&kinds::SERVICE, &kinds::PERSISTENT_VOLUME_CLAIM, &kinds::PERSISTENT_VOLUME];
        if *kind == kinds::POD {
            return first && self.ranges(value).is_empty();
        }
        !filled.contains(&kind)
    }

    /// Fills in and checks a new object, after its defaults and before its validation.
    pub(crate) fn admit(
        &self,
        kind: &'static Kind,
        value: &mut Value,
    ) -> Result<(), RegistryError> {
        // What is no object is the validation's to refuse.
        if !value["spec"].is_object() {
            return Ok(());
        }
        if *kind == kinds::POD {
            self.service_account(value)?;
            self.priority(value)?;
            self.limit_pod(value)
        } else if *kind == kinds::PERSISTENT_VOLUME_CLAIM {
            self.storage_class(value);
            protect(value, storage::CLAIM_PROTECTION);
            self.limit_claim(value)
        } else if *kind == kinds::PERSISTENT_VOLUME {
            protect(value, storage::VOLUME_PROTECTION);
            Ok(())
        } else {
            Ok(())
        }
    }

    fn service_account(&self, value: &mut Value) -> Result<(), RegistryError> {
        let spec = &mut value["spec"];
        // The older of its two names.
        if spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
            let older = spec["serviceAccount"].as_str().filter(|name| !name.is_empty());
            let name = older.unwrap_or(DEFAULT_SERVICE_ACCOUNT).to_owned();
            spec["serviceAccountName"] = name.into();
        }
        let account = spec["serviceAccountName"].as_str().unwrap_or_default().to_owned();
        spec["serviceAccount"] = account.clone().into();
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        // The default one comes by itself, soon after its namespace.
        let found = self.inner.cache.get(&kinds::SERVICE_ACCOUNT, &namespace, &account);
        let found = found.and_then(|object| object.typed::<ServiceAccount>().ok());
        let declines = |found: &std::sync::Arc<ServiceAccount>| {
            found.automount_service_account_token == Some(false)
        };
        let known = account == DEFAULT_SERVICE_ACCOUNT || found.is_some();
        let field = "automountServiceAccountToken";
        if found.as_ref().is_some_and(declines) && value["spec"][field].is_null() {
            value["spec"][field] = false.into();
        }
        if known {
            return Ok(());
        }
        Err(forbidden(
            &kinds::POD,
            value,
            &format!(
                "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" \
             not found"
            ),
        ))
    }

    /// A pod's class says how important it is, and nothing else does: else everybody could have
    /// the pods of all others preempted.
    fn priority(&self, value: &mut Value) -> Result<(), RegistryError> {
        let classes = || self.inner.cache.list(&kinds::PRIORITY_CLASS, None);
        let typed = |object: &crate::Object| object.typed::<PriorityClass>().ok();
        let name = value["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty());
        let system = SYSTEM_CLASSES.iter().find(|(class, _)| name == Some(class));
        let class = match (system, name) {
            (Some(_), _) => None,
            (None, Some(name)) => {
                let found = self.inner.cache.get(&kinds::PRIORITY_CLASS, "", name);
                let Some(class) = found.and_then(|object| typed(&object)) else {
                    let text = format!("no PriorityClass with name {name} was found");
                    return Err(forbidden(&kinds::POD, value, &text));
                };
                Some(class)
            }
            (None, None) => classes()
                .iter()
                .filter_map(|object| typed(object))
                .filter(|class| class.global_default == Some(true))
                // Of two defaults the lower counts, as in Kubernetes.
                .min_by_key(|class| class.value),
        };
        let mut priority = system.map_or(0, |(_, priority)| *priority);
        let mut policy = PREEMPTS;
        if let Some(class) = &class {
            value["spec"]["priorityClassName"] = class.metadata.name.clone().into();
            priority = class.value.unwrap_or_default();
            policy = class.preemption_policy.as_deref().unwrap_or(PREEMPTS);
        }
        computed(value, "priority", "integer value of priority", priority.into())?;
        computed(value, "preemptionPolicy", "string value of PreemptionPolicy", policy.into())
    }

    /// A claim that names no class (`""` is a name) gets the default one, when there is one.
    fn storage_class(&self, value: &mut Value) {
        let spec = &mut value["spec"];
        if !spec["storageClassName"].is_null() {
            return;
        }
        let classes = self.inner.cache.list(&kinds::STORAGE_CLASS, None);
        let classes: Vec<_> =
            classes.iter().filter_map(|class| class.typed::<StorageClass>().ok()).collect();
        if let Some(name) = storage::default_class(classes.iter().map(AsRef::as_ref)) {
            spec["storageClassName"] = name.into();
        }
    }

    fn ranges(&self, value: &Value) -> Vec<LimitRangeItem> {
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
        let ranges = self.inner.cache.list(&kinds::LIMIT_RANGE, Some(namespace));
        let typed = ranges.iter().filter_map(|range| range.typed::<LimitRange>().ok());
        typed.flat_map(|range| range.spec.clone().unwrap_or_default().limits).collect()
    }

    fn limit_pod(&self, value: &mut Value) -> Result<(), RegistryError> {
        let items = self.ranges(value);
        if items.is_empty() {
            return Ok(());
        }
        let Ok(mut pod) = Pod::from_value(value) else { return Ok(()) };
        set_defaults(&mut pod, &items);
        let errors = pod_errors(&pod, &items);
        *value = pod.to_value().map_err(|error| RegistryError::Internal(error.to_string()))?;
        refuse(&kinds::POD, value, &errors)
    }

    fn limit_claim(&self, value: &Value) -> Result<(), RegistryError> {
        let items = self.ranges(value);
        let Ok(claim) = PersistentVolumeClaim::from_value(value) else { return Ok(()) };
        let resources = claim.spec.and_then(|spec| spec.resources);
        let requests = resources.and_then(|resources| resources.requests).unwrap_or_default();
        let items = items.iter().filter(|item| item.type_ == "PersistentVolumeClaim");
        let errors: Vec<String> =
            items.flat_map(|item| bounds(item, &requests, &requests)).collect();
        refuse(&kinds::PERSISTENT_VOLUME_CLAIM, value, &errors)
    }
}

/// The object stays as long as it is used; its controller takes the finalizer away.
fn protect(value: &mut Value, finalizer: &str) {
    let Some(metadata) = value["metadata"].as_object_mut() else { return };
    let list = metadata.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|known| known == finalizer)
    {
        list.push(finalizer.into());
    }
}

fn forbidden(kind: &Kind, value: &Value, message: &str) -> RegistryError {
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    RegistryError::Forbidden(format!("{} \"{name}\" is forbidden: {message}", kind.resource()))
}

/// Sets a field of a pod that is computed; who gives it must give the same. `what`: it, in
/// Kubernetes' words.
fn computed(
    value: &mut Value,
    field: &str,
    what: &str,
    computed: Value,
) -> Result<(), RegistryError> {
    let given = &value["spec"][field];
    if !given.is_null() && *given != computed {
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (given, computed) = (shown(given), shown(&computed));
        let text = format!(
            "the {what} ({given}) must not be provided in pod spec; priority admission \
             controller computed {computed} from the given PriorityClass name"
        );
        return Err(forbidden(&kinds::POD, value, &text));
    }
    value["spec"][field] = computed;
    Ok(())
}

fn refuse(kind: &Kind, value: &Value, errors: &[String]) -> Result<(), RegistryError> {
    match errors {
        [] => Ok(()),
        [one] => Err(forbidden(kind, value, one)),
        many => Err(forbidden(kind, value, &format!("[{}]", many.join(", ")))),
    }
}

/// Containers that say nothing get what the ranges say.
fn set_defaults(pod: &mut Pod, items: &[LimitRangeItem]) {
    let Some(spec) = &mut pod.spec else { return };
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        for item in items.iter().filter(|item| item.type_ == "Container") {
            let resources = container.resources.get_or_insert_default();
            for (map, from) in [
                (&mut resources.limits, &item.default),
                (&mut resources.requests, &item.default_request),
            ] {
                for (name, quantity) in from.iter().flatten() {
                    let map = map.get_or_insert_default();
                    map.entry(name.clone()).or_insert_with(|| quantity.clone());
                }
            }
        }
    }
}

fn pod_errors(pod: &Pod, items: &[LimitRangeItem]) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut errors = Vec::new();
    for item in items {
        match item.type_.as_str() {
            "Container" => {
                for container in all() {
                    let (requests, limits) = resources(container);
                    errors.extend(bounds(item, &requests, &limits));
                }
            }
            "Pod" => {
                let requests = peaks(spec, |container| resources(container).0);
                let limits = peaks(spec, |container| resources(container).1);
                errors.extend(bounds(item, &requests, &limits));
            }
            _ => {}
        }
    }
    errors
}

fn resources(container: &Container) -> (Quantities, Quantities) {
    let resources = container.resources.clone().unwrap_or_default();
    (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default())
}

/// The most that the pod takes at once of all that any of its containers names.
fn peaks(spec: &PodSpec, of: impl Fn(&Container) -> Quantities) -> Quantities {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let names: BTreeSet<String> = all.flat_map(|container| of(container).into_keys()).collect();
    let peak = |name: String| {
        let needs =
            |container: &Container| of(container).get(&name).map(parsed).unwrap_or_default();
        let peak = pod::peak(spec, needs, Quantity::plus);
        (name, ApiQuantity(peak.to_string()))
    };
    names.into_iter().map(peak).collect()
}

fn parsed(quantity: &ApiQuantity) -> Quantity {
    Quantity::parse(&quantity.0).unwrap_or_default()
}

/// What is outside the bounds of an item, in Kubernetes' words.
fn bounds(item: &LimitRangeItem, requests: &Quantities, limits: &Quantities) -> Vec<String> {
    let kind = item.type_.as_str();
    // A claim has no limit: its request is what counts.
    let ceiling = if kind == "PersistentVolumeClaim" { requests } else { limits };
    let mut errors = Vec::new();
    for (name, min) in item.min.iter().flatten() {
        match requests.get(name).or_else(|| limits.get(name)) {
            None => errors.push(format!(
                "minimum {name} usage per {kind} is {}.  No request is specified",
                min.0
            )),
            Some(request) if parsed(request) < parsed(min) => errors.push(format!(
                "minimum {name} usage per {kind} is {}, but request is {}",
                min.0, request.0
            )),
            Some(_) => {}
        }
    }
    for (name, max) in item.max.iter().flatten() {
        match ceiling.get(name) {
            None => errors.push(format!(
                "maximum {name} usage per {kind} is {}.  No limit is specified",
                max.0
            )),
            Some(limit) if parsed(limit) > parsed(max) => errors.push(format!(
                "maximum {name} usage per {kind} is {}, but limit is {}",
                max.0, limit.0
            )),
            Some(_) => {}
        }
    }
    for (name, ratio) in item.max_limit_request_ratio.iter().flatten() {
        let (Some(limit), Some(request)) = (limits.get(name), requests.get(name)) else {
            let text = "No limit is specified or request is 0";
            errors.push(format!(
                "{name} max limit to request ratio per {kind} is {}.  {text}",
                ratio.0
            ));
            continue;
        };
        let (limit, request) = (parsed(limit).millis(), parsed(request).millis());
        let allowed = parsed(ratio).millis();
        // limit / request > ratio, without a division.
        if i128::from(limit) * 1000 > i128::from(request) * i128::from(allowed) {
            let (limit, request) = (&limits[name].0, &requests[name].0);
            errors.push(format!(
                "{name} max limit to request ratio per {kind} is {}, but provided limit is \
                 {limit} and request is {request}",
                ratio.0
            ));
        }
    }
    errors
}
