//! Deleting one object, or a collection.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use futures::StreamExt as _;
use quorate_objects::{FieldError, kinds};
use quorate_registry::{Consistency, DeleteOptions, ListOptions, Object, Propagation};
use serde_json::{Value, json};

use super::Call;
use super::body::{decode_optional, media_type};
use super::failure::{Failure, Result};
use super::query::dry_run;
use super::render::{ListMeta, respond};

/// Deletions of a collection that are under way at once.
const CONCURRENCY: usize = 64;
const OPTIONS: &str = "DeleteOptions.meta.k8s.io";

impl Call {
    pub(super) async fn delete(&self, body: &[u8]) -> Result<Response> {
        let options = self.delete_options(body)?;
        let (namespace, name) = (&self.request.namespace, &self.request.name);
        let deleted = self.rest.registry.delete(self.kind, namespace, name, &options).await?;
        if deleted.gone && !returns_object(self.kind) {
            return self.success(&deleted.object);
        }
        let renderer = self.renderer()?;
        renderer.response(StatusCode::OK, renderer.object(&deleted.object)?)
    }

    pub(super) async fn delete_collection(&self, body: &[u8]) -> Result<Response> {
        let options = &self.delete_options(body)?;
        let (labels, fields) = self.query.selectors()?;
        let selection = ListOptions { labels, fields, ..ListOptions::default() };
        let registry = &self.rest.registry;
        let namespace = Some(self.request.namespace.as_str());
        let fresh = Consistency::Linearizable;
        let list = registry.list(self.kind, namespace, &selection, fresh).await?;
        let deletions = list.items.into_iter().map(|object| async move {
            // Another object of the same name is not meant.
            let uid = Some(object.uid().to_owned());
            let options = DeleteOptions { uid, ..options.clone() };
            registry.delete(self.kind, object.namespace(), object.name(), &options).await
        });
        let results: Vec<_> =
            futures::stream::iter(deletions).buffered(CONCURRENCY).collect().await;
        let mut deleted: Vec<Arc<Object>> = Vec::new();
        for result in results {
            match result {
                Ok(one) => deleted.push(one.object),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let meta = ListMeta { revision: list.revision, ..ListMeta::default() };
        let renderer = self.renderer()?;
        let objects = deleted.iter().map(|object| &**object);
        renderer.response(StatusCode::OK, renderer.list(&meta, objects)?)
    }

    /// From the body, or else from the query.
    pub(super) fn delete_options(&self, body: &[u8]) -> Result<DeleteOptions> {
        let value = decode_optional(media_type(&self.headers), body)?;
        let mut options = parse_options(&value)?;
        if options.grace_seconds.is_none() {
            options.grace_seconds = self.query.parse("gracePeriodSeconds", "number of seconds")?;
        }
        if let Some(text) = self.query.get("propagationPolicy") {
            options.propagation = propagation(text)?;
        }
        if self.query.flag("orphanDependents")? {
            options.propagation = Propagation::Orphan;
        }
        options.dry_run |= self.query.dry_run(OPTIONS)?;
        Ok(options)
    }

    fn success(&self, object: &Object) -> Result<Response> {
        let mut details = json!({
            "name": object.name(), "kind": self.kind.plural, "uid": object.uid(),
        });
        if !self.kind.group.is_empty() {
            details["group"] = self.kind.group.into();
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details,
        });
        respond(self.renderer()?.accept, StatusCode::OK, status.to_string().into_bytes())
    }
}

/// Kinds whose deletion is answered with the object, as Kubernetes does.
fn returns_object(kind: &quorate_objects::Kind) -> bool {
    kind == &kinds::POD
        || kind == &kinds::SERVICE
        || (kind.group.is_empty()
            && ["persistentvolumes", "persistentvolumeclaims", "resourcequotas", "serviceaccounts"]
                .contains(&kind.plural))
}

/// A `DeleteOptions` object.
pub(super) fn parse_options(value: &Value) -> Result<DeleteOptions> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let preconditions = &value["preconditions"];
    let revision = text(&preconditions["resourceVersion"]);
    let revision = revision
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| Failure::bad_request("preconditions.resourceVersion is no number"))?;
    let grace = &value["gracePeriodSeconds"];
    let grace_seconds = match grace.as_i64() {
        None if grace.is_null() => None,
        Some(seconds) if seconds >= 0 => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
        _ => {
            let text = "must be greater than or equal to 0";
            let error = FieldError::invalid("gracePeriodSeconds", grace, text);
            return Err(Failure::invalid(OPTIONS, "", error));
        }
    };
    let orphan = value["orphanDependents"].as_bool() == Some(true);
    let propagation = match text(&value["propagationPolicy"]) {
        Some(text) => propagation(&text)?,
        None if orphan => Propagation::Orphan,
        None => Propagation::default(),
    };
    let dry: Vec<&str> =
        value["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Ok(DeleteOptions {
        uid: text(&preconditions["uid"]),
        revision,
        grace_seconds,
        propagation,
        fence: None,
        dry_run: dry_run(OPTIONS, &dry)?,
    })
}

fn propagation(text: &str) -> Result<Propagation> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", other, &supported);
            Err(Failure::invalid(OPTIONS, "", error))
        }
    }
}

#[cfg(test)]
#[path = "delete_test.rs"]
mod tests;
