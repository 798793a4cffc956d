//! `metrics.k8s.io`: what nodes and pods use, as their agents measured it last.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use k8s_openapi::jiff::Timestamp;
use quorate_objects::{Kind, kinds};
use quorate_registry::metrics::{NodeUsage, PodUsage, Usage};
use quorate_registry::{Consistency, ListOptions, Object};
use serde_json::{Value, json};

use super::accept::Accept;
use super::discovery::Served;
use super::failure::{Failure, Result};
use super::render::respond;
use super::{Call, Rest};

pub(super) const GROUP: &str = "metrics.k8s.io";
pub(super) const VERSION: &str = "v1beta1";

/// The kind whose figures a resource of the group shows.
pub(super) fn kind_of(resource: &str) -> Option<&'static Kind> {
    match resource {
        "nodes" => Some(&kinds::NODE),
        "pods" => Some(&kinds::POD),
        _ => None,
    }
}

pub(super) fn served() -> Vec<Served> {
    let one = |resource, namespaced, kind| {
        let kind = (GROUP, VERSION, kind);
        Served::part((GROUP, VERSION, resource), namespaced, "", kind, &["get", "list"])
    };
    vec![one("nodes", false, "NodeMetrics"), one("pods", true, "PodMetrics")]
}

impl Call {
    /// The call's kind is the one that is measured.
    pub(super) async fn measure(&self) -> Result<Response> {
        let accept = Accept::of(&self.headers)?;
        let value = match self.request.verb {
            "get" => {
                let object = self.load().await?;
                let found = measured(&self.rest, &object);
                found.ok_or_else(|| not_measured(&object))?
            }
            "list" => self.measure_all().await?,
            _ => return Err(Failure::method_not_allowed()),
        };
        respond(accept, StatusCode::OK, value.to_string().into_bytes())
    }

    async fn measure_all(&self) -> Result<Value> {
        let (labels, fields) = self.query.selectors()?;
        let options = ListOptions { labels, fields, ..ListOptions::default() };
        let namespace = Some(self.request.namespace.as_str());
        let registry = &self.rest.registry;
        let list = registry.list(self.kind, namespace, &options, Consistency::Serializable).await?;
        let items: Vec<Value> =
            list.items.iter().filter_map(|object| measured(&self.rest, object)).collect();
        let kind = if self.kind == &kinds::NODE { "NodeMetricsList" } else { "PodMetricsList" };
        Ok(json!({
            "kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
            "items": items,
        }))
    }
}

fn not_measured(object: &Object) -> Failure {
    let resource = if object.kind == &kinds::NODE { "nodemetrics" } else { "podmetrics" };
    let text = format!("{resource}.{GROUP} \"{}/{}\" not found", object.namespace(), object.name());
    Failure::new(StatusCode::NOT_FOUND, "NotFound", text)
}

fn measured(rest: &Rest, object: &Object) -> Option<Value> {
    let metrics = rest.registry.metrics();
    if object.kind == &kinds::NODE {
        let usage = metrics.node(object.name())?;
        let mut value = base("NodeMetrics", object, &usage);
        value["usage"] = usage_json(usage.node);
        return Some(value);
    }
    let (pod, node): (PodUsage, Arc<NodeUsage>) = metrics.pod(object.namespace(), object.name())?;
    if pod.uid != object.uid() {
        // Of an earlier pod of the same name.
        return None;
    }
    let mut value = base("PodMetrics", object, &node);
    let containers = pod.containers.iter();
    let containers =
        containers.map(|(name, usage)| json!({"name": name, "usage": usage_json(*usage)}));
    value["containers"] = containers.collect();
    Some(value)
}

fn base(kind: &str, object: &Object, node: &NodeUsage) -> Value {
    let mut metadata = json!({"name": object.name(), "labels": object.labels()});
    if !object.namespace().is_empty() {
        metadata["namespace"] = object.namespace().into();
    }
    let time = i64::try_from(node.time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = quorate_objects::time::format(time.unwrap_or(Timestamp::UNIX_EPOCH));
    metadata["creationTimestamp"] = time.as_str().into();
    json!({
        "kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
        "timestamp": time, "window": format!("{}ms", node.window_ms),
    })
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "cpu": format!("{}n", usage.cpu_nanocores),
        "memory": format!("{}Ki", usage.memory_bytes / 1024),
    })
}
