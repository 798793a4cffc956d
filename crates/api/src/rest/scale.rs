//! The subresource `scale`: the number of replicas, alike for all kinds that have one.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use quorate_objects::{FieldError, ScalePaths, Selector};
use quorate_registry::{Object, PatchKind, Subresource, apply_patch};
use serde_json::{Value, json};

use super::Call;
use super::body::{decode, media_type};
use super::failure::{Failure, Result};
use super::query::Validation;
use super::render::respond;

const KIND: &str = "Scale.autoscaling";

impl Call {
    pub(super) async fn scale(&self, body: &Bytes) -> Result<Response> {
        let paths = self.kind.scale().ok_or_else(Failure::no_resource)?;
        let object = self.load().await?;
        let scale = match self.request.verb {
            "get" => scale_of(&object, paths),
            "update" => {
                let new = decode(media_type(&self.headers), body, Validation::Ignore)?;
                self.set_scale(&object, paths, &new).await?
            }
            "patch" => {
                let patch: Value = serde_json::from_slice(body).map_err(|error| {
                    Failure::bad_request(format!("the patch is no JSON: {error}"))
                })?;
                let how = match self.patch_kind(body)? {
                    // A Scale has no lists to be merged.
                    PatchKind::Strategic => PatchKind::Merge,
                    other => other,
                };
                let old = scale_of(&object, paths);
                let mut new = apply_patch(&object.key(), how, &patch, old)?;
                if patch["metadata"]["resourceVersion"].is_null() {
                    // Not a precondition: the client did not name it.
                    new["metadata"]["resourceVersion"] = Value::Null;
                }
                self.set_scale(&object, paths, &new).await?
            }
            _ => return Err(Failure::method_not_allowed()),
        };
        let accept = self.renderer()?.accept;
        respond(accept, StatusCode::OK, scale.to_string().into_bytes())
    }

    async fn set_scale(&self, object: &Object, paths: ScalePaths, new: &Value) -> Result<Value> {
        let replicas = &new["spec"]["replicas"];
        let replicas = match replicas.as_i64() {
            None if replicas.is_null() => 0,
            Some(number) if number >= 0 => number,
            _ => {
                let text = "must be greater than or equal to 0";
                let error = FieldError::invalid("spec.replicas", replicas, text);
                return Err(Failure::invalid(KIND, object.name(), error));
            }
        };
        let mut patch = nested(paths.spec_replicas, replicas.into());
        let revision = &new["metadata"]["resourceVersion"];
        if revision.as_str().is_some_and(|text| !text.is_empty()) {
            patch["metadata"] = json!({"resourceVersion": revision});
        }
        let options = self.write_options("UpdateOptions.meta.k8s.io").await?;
        let (namespace, name) = (object.namespace(), object.name());
        let (body, part) = (patch.to_string(), Subresource::Main);
        let registry = &self.rest.registry;
        let write = registry.patch(
            self.kind,
            namespace,
            name,
            PatchKind::Merge,
            body.as_bytes(),
            part,
            &options,
        );
        Ok(scale_of(&*write.await?, paths))
    }
}

/// `a.b` and 1 make `{"a": {"b": 1}}`.
fn nested(path: &str, value: Value) -> Value {
    path.trim_start_matches('.').rsplit('.').fold(value, |inner, part| json!({part: inner}))
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.trim_start_matches('.').split('.').fold(value, |value, part| &value[part])
}

fn scale_of(object: &Object, paths: ScalePaths) -> Value {
    let value = object.value();
    let meta = &value["metadata"];
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(content) = meta.get(field) {
            metadata.insert(field.into(), content.clone());
        }
    }
    let number = |path: &str| at(&value, path).as_i64().unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(paths.spec_replicas)},
        "status": {"replicas": number(paths.status_replicas)},
    });
    if let Some(selector) = selector_text(at(&value, paths.selector)) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    let selector: LabelSelector = serde_json::from_str(&selector.to_string()).ok()?;
    Some(Selector::from_label_selector(&selector).ok()?.to_string())
}

#[cfg(test)]
#[path = "scale_test.rs"]
mod tests;
