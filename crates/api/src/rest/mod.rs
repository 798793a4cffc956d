//! The Kubernetes API over HTTP: one set of handlers over the table of kinds.
//!
//! [`Rest::serve`] takes a request's path apart, finds the kind, and calls the handler of the
//! verb; handlers decode, call the registry and render. What a kind is like is the kind's
//! business: nothing here knows a kind but the subresources of pods.

mod accept;
mod body;
mod delete;
mod discovery;
mod failure;
mod health;
mod metrics;
mod openapi;
mod path;
mod pods;
mod query;
mod read;
mod render;
mod review;
mod scale;
mod streams;
mod versions;
mod watch;
mod write;

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use quorate_objects::{Kind, kinds};
use quorate_registry::{Consistency, Registry, Subresource};
use quorate_store::SharedStore;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use accept::Accept;
use failure::Result;
use path::{ResourceRequest, Target};
use query::Query;
use render::{IncludeObject, Renderer, respond};
use versions::Version;

pub(crate) use failure::Failure;
pub(crate) use path::{is_public, is_stream};

use crate::auth::{Attributes, Auth, Review, User};
use crate::limits::REQUEST_TIMEOUT;
use crate::nodes;

/// The version of Kubernetes whose API this is.
const KUBERNETES: (&str, &str) = ("1", "37");

/// What all requests share.
pub(crate) struct Rest {
    pub registry: Registry,
    pub auth: Arc<Auth>,
    pub store: SharedStore,
    /// Version of the binary.
    pub version: String,
    /// Streams with pods.
    pub nodes: nodes::Shared,
    /// Places for sessions of exec, attach and port-forward.
    pub sessions: Arc<Semaphore>,
    /// Ends watches when the master shuts down.
    pub cancel: CancellationToken,
}

/// A request for objects of one kind.
struct Call {
    rest: Arc<Rest>,
    request: ResourceRequest,
    kind: &'static Kind,
    /// Set when the client speaks another version than the one that is stored.
    version: Option<Version>,
    query: Query,
    headers: HeaderMap,
    user: Arc<User>,
}

impl Rest {
    /// Answers any request that is not for a gRPC service.
    pub async fn serve(self: Arc<Self>, request: Request<Body>) -> Response {
        let kind = request.headers().get(CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let path = request.uri().path();
            let text = format!("there is no service or method {path}");
            return crate::error::status(Code::Unimplemented, "Unimplemented", text).into_http();
        }
        match self.route(request).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        }
    }

    async fn route(self: Arc<Self>, request: Request<Body>) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let query = Query::of(&parts.uri);
        let target = Target::parse(&parts.method, &parts.uri, &query)?;
        let user = parts.extensions.get::<Arc<User>>().cloned();
        self.authorize(user.as_deref(), target.as_ref(), &query, &parts)?;
        let Some(target) = target else {
            return self.plain(&parts, &query);
        };
        let target = match target {
            Target::Resource(request) => {
                return Box::pin(self.resource(request, query, parts, body)).await;
            }
            other => other,
        };
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Failure::method_not_allowed());
        }
        match target {
            Target::CoreVersions => discovery::core(&parts.headers),
            Target::Groups => discovery::groups(&parts.headers),
            Target::Group(group) => discovery::group(&parts.headers, &group),
            Target::Resources(group, version) => {
                discovery::resources(&parts.headers, &group, &version)
            }
            Target::Resource(_) => Err(Failure::no_resource()),
        }
    }

    /// May the caller do this? What is public needs no caller.
    fn authorize(
        &self,
        user: Option<&User>,
        target: Option<&Target>,
        query: &Query,
        parts: &Parts,
    ) -> Result<()> {
        let path = parts.uri.path();
        let wanted = match target {
            Some(Target::Resource(request)) => request.attributes(query),
            // The gate has judged paths that are not below `/api`.
            None => return Ok(()),
            Some(_) => Attributes::path(&parts.method.as_str().to_ascii_lowercase(), path),
        };
        let unknown = || Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
        self.auth.require(user.ok_or_else(unknown)?, &wanted).map_err(|text| {
            Failure::forbidden(text).about(&wanted.resource_and_group(), &wanted.name)
        })
    }

    /// Paths that are no resources.
    fn plain(&self, parts: &Parts, query: &Query) -> Result<Response> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Failure::no_resource());
        }
        let path = parts.uri.path().trim_end_matches('/');
        if let Some(path) = path.strip_prefix("/openapi/v3") {
            return openapi::serve(path, &parts.headers);
        }
        match path {
            "/openapi/v2" => openapi::serve_v2(&parts.headers),
            "/version" => self.version(&parts.headers),
            "" => root(&parts.headers),
            _ => health::serve(self, path, query),
        }
    }

    async fn catch_up(&self) -> Result<()> {
        Ok(self.registry.freshen(Consistency::Linearizable).await?)
    }

    fn version(&self, headers: &HeaderMap) -> Result<Response> {
        let (major, minor) = KUBERNETES;
        let version = json!({
            "major": major, "minor": minor,
            "gitVersion": format!("v{major}.{minor}.0+quorate.{}", self.version),
            "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
        });
        respond(Accept::of(headers)?, StatusCode::OK, version.to_string().into_bytes())
    }

    async fn resource(
        self: Arc<Self>,
        request: ResourceRequest,
        query: Query,
        mut parts: Parts,
        body: Body,
    ) -> Result<Response> {
        let user = parts.extensions.get::<Arc<User>>().cloned().unwrap_or_default();
        if let Some(review) = Review::of(&request.group, &request.version, &request.resource) {
            return self.review(review, &user, &request, &parts, body).await;
        }
        let ResourceRequest { group, version, resource, .. } = &request;
        let measures = group == metrics::GROUP && version == metrics::VERSION;
        let mut other = Version::find(group, version, resource);
        if other.is_none() && !measures && find(group, version, resource).is_none() {
            // Another master may have heard of the kind's definition before this one.
            within("nothing was changed", self.catch_up()).await?;
            other = Version::find(group, version, resource);
        }
        let kind = match other {
            Some(other) => Some(other.kind),
            None if measures => metrics::kind_of(resource),
            None => find(group, version, resource),
        };
        let kind = kind.ok_or_else(Failure::no_resource)?;
        if !kind.namespaced && !request.namespace.is_empty() {
            return Err(Failure::no_resource());
        }
        let reads = matches!(request.verb, "get" | "list" | "watch");
        let connects = request.connects();
        let headers = parts.headers.clone();
        let call = Call { rest: self, request, kind, version: other, query, headers, user };
        if measures {
            return within("nothing was changed", call.measure()).await;
        }
        if connects {
            return within("nothing was changed", call.connect(&mut parts)).await;
        }
        if reads {
            return within("nothing was changed", call.read()).await;
        }
        let work = async {
            let body = body::read(body).await?;
            call.write(&body).await
        };
        within("the write may or may not take effect", work).await
    }
}

/// Carries out `work` in the time that a request has.
async fn within<T>(effect: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(REQUEST_TIMEOUT, work).await.unwrap_or_else(|_| {
        let text = format!("Timeout: not done within {REQUEST_TIMEOUT:?}; {effect}");
        Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", text))
    })
}

impl Call {
    async fn read(&self) -> Result<Response> {
        match (self.request.verb, self.request.subresource.as_str()) {
            ("get", "") => self.get().await,
            ("list", "") => self.list().await,
            ("watch", "") => self.watch().await,
            ("get", "status") if self.kind.has_status => self.get().await,
            ("get", "scale") => self.scale(&Bytes::new()).await,
            _ => self.read_pod().await,
        }
    }

    async fn write(&self, body: &Bytes) -> Result<Response> {
        let (verb, subresource) = (self.request.verb, self.request.subresource.as_str());
        if self.kind.namespaced && self.request.namespace.is_empty() {
            // Only reads span namespaces.
            return Err(Failure::method_not_allowed());
        }
        let part = match subresource {
            "" => Subresource::Main,
            "status" if self.kind.has_status => Subresource::Status,
            "finalize" if self.kind == &kinds::NAMESPACE && verb == "update" => {
                Subresource::Finalize
            }
            "scale" => return self.scale(body).await,
            "token" if *self.kind == kinds::SERVICE_ACCOUNT => {
                return self.token(body).await;
            }
            _ => return self.write_pod(body).await,
        };
        match (verb, part) {
            ("create", Subresource::Main) => self.create(body).await,
            ("update", _) => self.update(body, part).await,
            ("patch", _) => self.patch(body, part).await,
            ("delete", Subresource::Main) => self.delete(body).await,
            ("deletecollection", Subresource::Main)
                if discovery::verbs(self.kind).contains(&verb) =>
            {
                self.delete_collection(body).await
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn renderer(&self) -> Result<Renderer> {
        Ok(Renderer {
            kind: self.kind,
            version: self.version,
            accept: Accept::of(&self.headers)?,
            include: IncludeObject::parse(self.query.get("includeObject"))?,
            now: quorate_objects::time::timestamp(),
        })
    }
}

/// The kind of a resource.
fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    kinds::find(|kind| {
        kind.plural == plural && kind.group == group && kind.version == version && kind.is_served()
    })
}

/// Where one can begin.
fn root(headers: &HeaderMap) -> Result<Response> {
    let paths = json!({"paths": [
        "/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version",
    ]});
    respond(Accept::of(headers)?, StatusCode::OK, paths.to_string().into_bytes())
}

/// The architecture as Go calls it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a status of the gRPC side is over HTTP.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let text = status.message();
        match status.code() {
            Code::NotFound => Self::new(StatusCode::NOT_FOUND, "NotFound", text),
            Code::InvalidArgument | Code::FailedPrecondition => Self::bad_request(text),
            Code::PermissionDenied => Self::forbidden(text),
            Code::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", text)
            }
            Code::DeadlineExceeded => Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", text),
            Code::ResourceExhausted => Self::too_many(text),
            _ => Self::internal(text),
        }
    }
}
