//! Subresources of pods (and of namespaces) that are no parts of the object.

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use quorate_objects::kinds;
use quorate_registry::{ObjectKey, Subresource, WriteOptions};
use serde_json::json;

use super::Call;
use super::body::{decode, media_type};
use super::delete::parse_options;
use super::failure::{Failure, Result};
use super::query::Validation;
use super::render::respond;

const CREATE_OPTIONS: &str = "CreateOptions.meta.k8s.io";

impl Call {
    pub(super) async fn connect(&self, parts: &mut Parts) -> Result<Response> {
        match self.request.subresource.as_str() {
            "portforward" => self.port_forward(parts).await,
            _ => self.remote(parts).await,
        }
    }

    pub(super) async fn read_pod(&self) -> Result<Response> {
        match (self.request.subresource.as_str(), self.request.verb) {
            ("log", "get") if self.kind == &kinds::POD => self.log().await,
            ("ephemeralcontainers", "get") if self.kind == &kinds::POD => self.get().await,
            _ => Err(Failure::no_resource()),
        }
    }

    pub(super) async fn write_pod(&self, body: &Bytes) -> Result<Response> {
        if self.kind != &kinds::POD {
            return Err(Failure::no_resource());
        }
        let part = Subresource::EphemeralContainers;
        match (self.request.subresource.as_str(), self.request.verb) {
            ("ephemeralcontainers", "patch") => self.patch(body, part).await,
            ("ephemeralcontainers", "update") => self.update(body, part).await,
            ("binding", "create") => self.bind(body).await,
            ("eviction", "create") => self.evict(body).await,
            ("binding" | "eviction" | "ephemeralcontainers", _) => {
                Err(Failure::method_not_allowed())
            }
            _ => Err(Failure::no_resource()),
        }
    }

    async fn bind(&self, body: &Bytes) -> Result<Response> {
        let binding = decode(media_type(&self.headers), body, Validation::Ignore)?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        if node.is_empty() {
            let error = quorate_objects::FieldError::required("target.name", "");
            return Err(Failure::invalid("Binding", &self.request.name, error));
        }
        let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
        let options = WriteOptions {
            dry_run: self.query.dry_run(CREATE_OPTIONS)?,
            ..WriteOptions::default()
        };
        let key = ObjectKey::new(&kinds::POD, &self.request.namespace, &self.request.name);
        self.rest.registry.bind(&key, uid, node, &options).await?;
        self.done(StatusCode::CREATED)
    }

    async fn evict(&self, body: &Bytes) -> Result<Response> {
        let eviction = decode(media_type(&self.headers), body, Validation::Ignore)?;
        let mut options = parse_options(&eviction["deleteOptions"])?;
        options.dry_run |= self.query.dry_run(CREATE_OPTIONS)?;
        let (namespace, name) = (&self.request.namespace, &self.request.name);
        self.rest.registry.evict(namespace, name, &options).await?;
        self.done(StatusCode::CREATED)
    }

    fn done(&self, code: StatusCode) -> Result<Response> {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "code": code.as_u16(),
        });
        respond(self.renderer()?.accept, code, status.to_string().into_bytes())
    }
}
