//! Subresources of pods (and of namespaces) that are no parts of the object.

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{kinds, pod};
use quorate_registry::{Object, RegistryError, Subresource, Write};
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
        if self.query.dry_run(CREATE_OPTIONS)? {
            bindable(&*self.load().await?, uid, node)?;
            return self.done(StatusCode::CREATED);
        }
        let write = Write::Bind {
            namespace: self.request.namespace.clone(),
            name: self.request.name.clone(),
            uid: uid.to_owned(),
            revision: None,
            node: node.to_owned(),
        };
        for result in self.rest.registry.write_batch(vec![write], None).await {
            result?;
        }
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

/// Would the registry bind the pod to this node? That is all that a dry run does.
fn bindable(object: &Object, uid: &str, node: &str) -> Result<()> {
    let pod = object.typed::<Pod>()?;
    let message = match pod::node_name(&pod) {
        _ if !uid.is_empty() && uid != object.uid() => format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object.uid()
        ),
        Some(at) if at == node => return Ok(()),
        Some(at) => format!("pod is already assigned to node \"{at}\""),
        None if object.is_deleting() => {
            "pod is being deleted, cannot be assigned to a node".to_owned()
        }
        None => return Ok(()),
    };
    let (resource, name) = (object.kind.resource(), object.name().to_owned());
    Err(RegistryError::Conflict { resource, name, message }.into())
}
