//! Between wire messages and the registry's types.

use quorate_objects::{FieldSelector, FieldValidation, Kind, Selector};
use quorate_proto::v1;
use quorate_registry::metrics::{NodeUsage, PodUsage, Usage};
use quorate_registry::{Consistency, Object, RegistryError};
use serde_json::Value;
use tonic::Status;

use crate::error::{bad_request, registry_status};

/// The kind that a request names.
pub(crate) fn kind(wanted: Option<&v1::KindRef>) -> Result<&'static Kind, Status> {
    let wanted = wanted.ok_or_else(|| bad_request("the request names no kind"))?;
    Kind::by_gvk(&wanted.api_version, &wanted.kind).ok_or_else(|| {
        bad_request(format!(
            "no matches for kind {:?} in version {:?}",
            wanted.kind, wanted.api_version
        ))
    })
}

pub(crate) fn kind_ref(kind: &Kind) -> v1::KindRef {
    v1::KindRef { api_version: kind.api_version(), kind: kind.kind.to_owned() }
}

pub(crate) fn object(object: &Object) -> v1::Object {
    v1::Object {
        kind: Some(kind_ref(object.kind)),
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
        revision: object.revision,
        json: object.json.clone(),
    }
}

pub(crate) fn node_usage(report: v1::UsageReport) -> NodeUsage {
    let usage = |usage: Option<v1::Usage>| {
        let v1::Usage { cpu_nanocores, memory_bytes } = usage.unwrap_or_default();
        Usage { cpu_nanocores, memory_bytes }
    };
    let pod = |pod: v1::PodUsage| PodUsage {
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        containers: pod.containers.into_iter().map(|c| (c.name, usage(c.usage))).collect(),
    };
    NodeUsage {
        time_ms: report.time_ms,
        window_ms: report.window_ms,
        node: usage(report.node),
        pods: report.pods.into_iter().map(pod).collect(),
    }
}

pub(crate) fn usage_report(measured: &NodeUsage) -> v1::UsageReport {
    let usage = |usage: Usage| {
        let Usage { cpu_nanocores, memory_bytes } = usage;
        Some(v1::Usage { cpu_nanocores, memory_bytes })
    };
    let pod = |pod: &PodUsage| v1::PodUsage {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        containers: pod
            .containers
            .iter()
            .map(|(name, used)| v1::ContainerUsage { name: name.clone(), usage: usage(*used) })
            .collect(),
    };
    v1::UsageReport {
        time_ms: measured.time_ms,
        window_ms: measured.window_ms,
        node: usage(measured.node),
        pods: measured.pods.iter().map(pod).collect(),
    }
}

pub(crate) fn json(bytes: &[u8], what: &str) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|e| bad_request(format!("{what} is not JSON: {e}")))
}

pub(crate) fn consistency(stale: bool) -> Consistency {
    if stale { Consistency::Serializable } else { Consistency::Linearizable }
}

pub(crate) fn labels(text: &str) -> Result<Selector, Status> {
    Selector::parse(text).map_err(|e| registry_status(RegistryError::from(e)))
}

pub(crate) fn fields(text: &str) -> Result<FieldSelector, Status> {
    FieldSelector::parse(text).map_err(|e| registry_status(RegistryError::from(e)))
}

pub(crate) fn field_validation(wanted: v1::FieldValidation) -> FieldValidation {
    match wanted {
        v1::FieldValidation::Unspecified | v1::FieldValidation::Strict => FieldValidation::Strict,
        v1::FieldValidation::Ignore => FieldValidation::Ignore,
    }
}

/// Empty means "not given" on the wire.
pub(crate) fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// 0 means "not given" on the wire.
pub(crate) fn some_revision(revision: u64) -> Option<u64> {
    Some(revision).filter(|revision| *revision != 0)
}
