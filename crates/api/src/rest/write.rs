//! Writing: create, update, patch.

use std::sync::Arc;

use axum::http::header::{USER_AGENT, WARNING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use quorate_objects::{FieldErrorKind, FieldValidation, decode_with, manifest};
use quorate_registry::{
    ApplyOptions, Object, PatchKind, Subresource, WriteOptions, apply_patch, check_manager,
};
use serde_json::Value;

use super::Call;
use super::body::{decode, media_type};
use super::failure::{Failure, Result};
use super::query::Validation;
use super::versions::Version;

/// The media type of configurations that are applied.
const APPLY: &str = "application/apply-patch+yaml";
/// Attempts of one patch against concurrent writers.
const ATTEMPTS: usize = 32;
/// Warnings that fit into an answer's headers.
const MAX_WARNINGS: usize = 32;

impl Call {
    pub(super) async fn create(&self, body: &[u8]) -> Result<Response> {
        if !self.request.name.is_empty() {
            return Err(Failure::method_not_allowed());
        }
        let mut value = self.object(body)?;
        self.place(&mut value)?;
        let warnings = self.warnings(&value)?;
        let options = self.write_options("CreateOptions.meta.k8s.io").await?;
        let created = self.rest.registry.create(value, &options).await?;
        self.written(StatusCode::CREATED, &created, &warnings)
    }

    pub(super) async fn update(&self, body: &[u8], part: Subresource) -> Result<Response> {
        let mut value = self.object(body)?;
        self.place(&mut value)?;
        self.check_name(&mut value)?;
        let warnings = self.warnings(&value)?;
        let options = self.write_options("UpdateOptions.meta.k8s.io").await?;
        let updated = self.rest.registry.replace(value, part, &options).await?;
        self.written(StatusCode::OK, &updated, &warnings)
    }

    pub(super) async fn patch(&self, body: &Bytes, part: Subresource) -> Result<Response> {
        if media_type(&self.headers) == APPLY {
            return self.apply(body, part).await;
        }
        let how = self.patch_kind(body)?;
        let options = self.write_options("PatchOptions.meta.k8s.io").await?;
        if let Some(version) = &self.version {
            let patched = self.patch_version(version, body, how, part, &options).await?;
            return self.written(StatusCode::OK, &patched, &[]);
        }
        let (namespace, name) = (&self.request.namespace, &self.request.name);
        let patch = self.rest.registry.patch(self.kind, namespace, name, how, body, part, &options);
        self.written(StatusCode::OK, &*patch.await?, &[])
    }

    /// A patch of what the client sees: an object in another version than the stored one. Again on
    /// a conflict with another writer, unless the patch names the revision that it is of.
    async fn patch_version(
        &self,
        version: &Version,
        body: &[u8],
        how: PatchKind,
        part: Subresource,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let patch: Value = serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the patch is no JSON: {error}")))?;
        let registry = &self.rest.registry;
        let mut old = self.load().await?;
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let value = patched(version, &old, how, &patch)?;
            match registry.replace(value, part, options).await {
                Err(error) if error.is_conflict() && left > 0 => {
                    let newer = self.load().await?;
                    if newer.revision == old.revision {
                        // No other writer: it is the patch that does not fit.
                        return Err(error.into());
                    }
                    old = newer;
                }
                done => return Ok(done?),
            }
        }
    }

    /// Server-side apply.
    async fn apply(&self, body: &[u8], part: Subresource) -> Result<Response> {
        let applied = manifest::parse_yaml(body)
            .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
        if !applied.is_object() {
            return Err(Failure::bad_request("the applied configuration is no object"));
        }
        let applied = self.stored(applied)?;
        let warnings = self.warnings(&applied)?;
        let options = ApplyOptions {
            manager: self.query.get("fieldManager").unwrap_or_default().to_owned(),
            force: self.query.flag("force")?,
            write: self.write_options("PatchOptions.meta.k8s.io").await?,
        };
        let (namespace, name) = (&self.request.namespace, &self.request.name);
        let registry = &self.rest.registry;
        let done = registry.apply(self.kind, namespace, name, &applied, part, &options).await?;
        let code = if done.created { StatusCode::CREATED } else { StatusCode::OK };
        self.written(code, &done.object, &warnings)
    }

    /// How the body of a PATCH is meant.
    pub(super) fn patch_kind(&self, body: &[u8]) -> Result<PatchKind> {
        let list = || body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        match media_type(&self.headers) {
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            "application/strategic-merge-patch+json" if self.kind.is_custom() => {
                Err(Failure::media_type(
                    "the body of the request was in an unknown format - accepted media types \
                     include: application/json-patch+json, application/merge-patch+json",
                ))
            }
            "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
            // The Python client says nothing, or this.
            "" | "application/json" if list() => Ok(PatchKind::Json),
            "" | "application/json" if self.kind.is_custom() => Ok(PatchKind::Merge),
            "" | "application/json" => Ok(PatchKind::Strategic),
            other => Err(Failure::media_type(format!(
                "the body of the request was in an unknown format {other:?} - accepted media \
                 types include: application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, {APPLY}"
            ))),
        }
    }

    /// The object in the body, with apiVersion and kind.
    fn object(&self, body: &[u8]) -> Result<Value> {
        let validation = self.query.validation()?;
        self.stored(decode(media_type(&self.headers), body, validation)?)
    }

    /// What a client sends, with apiVersion and kind, in the version that is stored.
    fn stored(&self, mut value: Value) -> Result<Value> {
        let api_version =
            self.version.as_ref().map_or_else(|| self.kind.api_version(), Version::api_version);
        complete(self.kind.kind, &api_version, &mut value)?;
        if let Some(version) = self.version {
            version.store(&mut value);
        }
        Ok(value)
    }

    /// The object is in the namespace of the path; of a kind without, in none, whatever it says.
    fn place(&self, value: &mut Value) -> Result<()> {
        if !value["metadata"].is_object() {
            value["metadata"] = Value::Object(serde_json::Map::new());
        }
        if !self.kind.namespaced {
            if let Some(metadata) = value["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
            return Ok(());
        }
        let namespace = self.request.namespace.as_str();
        match value["metadata"]["namespace"].as_str() {
            Some(given) if !given.is_empty() && !namespace.is_empty() && given != namespace => {
                Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on \
                     the request",
                ))
            }
            _ if namespace.is_empty() => Ok(()),
            _ => {
                value["metadata"]["namespace"] = namespace.into();
                Ok(())
            }
        }
    }

    fn check_name(&self, value: &mut Value) -> Result<()> {
        let name = self.request.name.as_str();
        let given = value["metadata"]["name"].as_str().unwrap_or_default();
        if given.is_empty() {
            value["metadata"]["name"] = name.into();
            return Ok(());
        }
        if given == name {
            return Ok(());
        }
        Err(Failure::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )))
    }

    /// What is unknown in the object, when the client wants to be warned.
    fn warnings(&self, value: &Value) -> Result<Vec<String>> {
        if self.query.validation()? != Validation::Warn {
            return Ok(Vec::new());
        }
        let unknown = match decode_with(value.clone(), self.kind, FieldValidation::Strict) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.errors,
        };
        let unknown = unknown.iter().filter(|error| error.kind == FieldErrorKind::UnknownField);
        Ok(unknown.map(ToString::to_string).collect())
    }

    /// Who is to own what is written: what the request says, or else the client's name.
    fn field_manager(&self) -> Result<String> {
        let agent = self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let agent = agent.and_then(|agent| agent.split('/').next()).unwrap_or_default();
        let given = self.query.get("fieldManager").filter(|name| !name.is_empty());
        let manager = given.unwrap_or(if agent.is_empty() { "unknown" } else { agent });
        check_manager(manager)?;
        Ok(manager.to_owned())
    }

    pub(super) async fn write_options(&self, kind: &str) -> Result<WriteOptions> {
        Ok(WriteOptions {
            dry_run: self.query.dry_run(kind)?,
            field_validation: self.query.validation()?.of_registry(),
            field_manager: Some(self.field_manager()?),
            admission: self.rest.auth.admission(&self.user, self.kind).await?,
            ..WriteOptions::default()
        })
    }

    fn written(&self, code: StatusCode, object: &Object, warnings: &[String]) -> Result<Response> {
        let renderer = self.renderer()?;
        let mut response = renderer.response(code, renderer.object(object)?)?;
        for warning in warnings.iter().take(MAX_WARNINGS) {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                response.headers_mut().append(WARNING, value);
            }
        }
        Ok(response)
    }
}

/// A patch of an object as clients of this version see it, applied. What it makes is of the
/// revision that was patched, or of the one that the patch names.
fn patched(version: &Version, old: &Object, how: PatchKind, patch: &Value) -> Result<Value> {
    let mut value = old.value();
    version.serve(&mut value);
    let mut value = apply_patch(&old.key(), how, patch, value)?;
    version.store(&mut value);
    let revision = &mut value["metadata"]["resourceVersion"];
    if revision.is_null() || revision.as_str() == Some("") {
        *revision = old.revision.to_string().into();
    }
    Ok(value)
}

/// Fills in apiVersion and kind; what is given must be right.
pub(super) fn complete(kind: &str, api_version: &str, value: &mut Value) -> Result<()> {
    for (field, what, want) in [("apiVersion", "API version", api_version), ("kind", "kind", kind)]
    {
        match value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            None => value[field] = want.into(),
            Some(given) if given == want => {}
            Some(given) => {
                return Err(Failure::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({want})"
                )));
            }
        }
    }
    Ok(())
}
