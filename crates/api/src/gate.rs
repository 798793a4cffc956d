//! The one layer that every request passes: who may come in at all, bounds on concurrency,
//! counters, tracing, and gRPC's own refusals in our words.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::auth::{Attributes, Auth, User};
use crate::connections::Peer;
use crate::error::status;
use crate::etcd;
use crate::limits::{MAX_IN_FLIGHT, MAX_REQUEST_BYTES, MAX_STREAMS};
use crate::rest;

/// Calls that stay open as long as the client likes.
const STREAMS: &[&str] = &[
    "/quorate.v1.Objects/Watch",
    "/quorate.v1.Nodes/Session",
    "/quorate.v1.Nodes/Stream",
    "/quorate.v1.Nodes/Logs",
    "/quorate.v1.Nodes/Exec",
    "/quorate.v1.Nodes/Attach",
    "/quorate.v1.Nodes/PortForward",
];

/// Is it a method of gRPC, `/package.Service/Method`? Of other paths that are served none has a dot
/// in its first part.
fn is_method(path: &str) -> bool {
    path.split('/').nth(1).is_some_and(|service| service.contains('.'))
}

fn is_stream(path: &str) -> bool {
    STREAMS.contains(&path) || etcd::STREAMS.contains(&path)
}

/// Counters of requests.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests taken.
    pub requests: AtomicU64,
    /// Requests refused because too many were in flight.
    pub shed: AtomicU64,
    /// Requests answered at once with an error.
    pub failed: AtomicU64,
    unary: AtomicUsize,
    streams: AtomicUsize,
}

impl Metrics {
    /// Requests being carried out now, without watches, sessions and logs.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.unary.load(Ordering::Relaxed)
    }

    /// Watches, sessions and logs that are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn gauge(&self, stream: bool) -> (&AtomicUsize, usize) {
        if stream { (&self.streams, MAX_STREAMS) } else { (&self.unary, MAX_IN_FLIGHT) }
    }
}

/// Counts one request for as long as it lives.
struct Ticket {
    metrics: Arc<Metrics>,
    stream: bool,
}

impl Ticket {
    fn take(metrics: &Arc<Metrics>, stream: bool) -> Option<Self> {
        let (gauge, limit) = metrics.gauge(stream);
        let ticket = Self { metrics: Arc::clone(metrics), stream };
        let before = gauge.fetch_add(1, Ordering::Relaxed);
        // Dropping the ticket takes it off again.
        (before < limit).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.metrics.gauge(self.stream).0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request is, as far as the gate is concerned.
struct Shape {
    /// By its path as well: what its header says opens no other.
    grpc: bool,
    /// Does it stay open as long as the client likes?
    stream: bool,
    /// May it be answered to anybody?
    public: bool,
}

impl Shape {
    fn of(request: &Request<Body>) -> Self {
        let path = request.uri().path();
        let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let grpc =
            is_method(path) && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let stream = if grpc { is_stream(path) } else { rest::is_stream(request.uri()) };
        Self { grpc, stream, public: !grpc && rest::is_public(path) }
    }

    fn unknown_caller(&self) -> Response<Body> {
        if self.grpc {
            return status(Code::Unauthenticated, "Unauthorized", "Unauthorized").into_http();
        }
        rest::Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized").into_response()
    }

    /// The caller is known and may not do this.
    fn forbidden(&self, text: &str) -> Response<Body> {
        if self.grpc {
            return status(Code::PermissionDenied, "Forbidden", text).into_http();
        }
        rest::Failure::forbidden(text).into_response()
    }

    fn overloaded(&self, path: &str) -> Response<Body> {
        let text = "too many requests are in flight; try again in a moment";
        match (self.grpc, etcd::is_etcd(path)) {
            (true, true) => etcd::too_many_requests().into_http(),
            (true, false) => status(Code::ResourceExhausted, "Overloaded", text).into_http(),
            (false, _) => rest::Failure::too_many(text).into_response(),
        }
    }

    fn failed(&self, response: &Response<Body>) -> bool {
        if self.grpc {
            let status = Status::from_header_map(response.headers());
            return status.is_some_and(|status| status.code() != Code::Ok);
        }
        response.status().is_client_error() || response.status().is_server_error()
    }
}

#[derive(Clone)]
pub(crate) struct GateLayer {
    pub metrics: Arc<Metrics>,
    pub auth: Arc<Auth>,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate { inner, metrics: Arc::clone(&self.metrics), auth: Arc::clone(&self.auth) }
    }
}

#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    metrics: Arc<Metrics>,
    auth: Arc<Auth>,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shape = Shape::of(&request);
        let metrics = Arc::clone(&self.metrics);
        metrics.requests.fetch_add(1, Ordering::Relaxed);
        let caller = match admit(&self.auth, &shape, &request) {
            Ok(caller) => caller,
            Err(refused) => {
                metrics.failed.fetch_add(1, Ordering::Relaxed);
                return Box::pin(async move { Ok(*refused) });
            }
        };
        if let Some(user) = &caller {
            request.extensions_mut().insert(Arc::clone(user));
        }
        let Some(ticket) = Ticket::take(&metrics, shape.stream) else {
            metrics.shed.fetch_add(1, Ordering::Relaxed);
            let refused = shape.overloaded(request.uri().path());
            return Box::pin(async move { Ok(refused) });
        };
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let start = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let failed = shape.failed(&response);
            if failed {
                metrics.failed.fetch_add(1, Ordering::Relaxed);
            }
            let code = response.status().as_u16();
            tracing::debug!(%method, %path, code, failed, elapsed = ?start.elapsed(), "request");
            audit(caller.as_deref(), &method, &path, &shape, &response);
            let response = reword(response, &path);
            // A stream is open until its body is dropped, not until its headers are sent.
            Ok(if shape.stream && !failed { hold(response, ticket) } else { response })
        })
    }
}

/// Who the caller is; `None` for those who show nothing and ask for what everybody may see. gRPC's
/// methods and plain paths are judged here, resources where they are known.
fn admit(
    auth: &Auth,
    shape: &Shape,
    request: &Request<Body>,
) -> Result<Option<Arc<User>>, Box<Response<Body>>> {
    let peer = request.extensions().get::<Arc<Peer>>();
    let known = peer.and_then(|peer| auth.authenticate(peer, request.headers()));
    let Some(user) = known else {
        return if shape.public { Ok(None) } else { Err(Box::new(shape.unknown_caller())) };
    };
    let refused = |text: String| Box::new(shape.forbidden(&text));
    let path = request.uri().path();
    let user = auth.impersonate(user, request.headers()).map_err(refused)?;
    // Whatever the body is said to be: what counts is which service will answer.
    auth.require_call(&user, path).map_err(refused)?;
    if !shape.grpc && !shape.public && !path.starts_with("/api") {
        let verb = request.method().as_str().to_ascii_lowercase();
        auth.require(&user, &Attributes::path(&verb, path)).map_err(refused)?;
    }
    Ok(Some(user))
}

/// Calls of gRPC that change something and are no streams.
const CHANGES: &[&str] = &["/Create", "/Update", "/Patch", "/Delete", "/TransferLeader"];

/// One line for each request that changes something: who, what, and what came of it.
fn audit(
    user: Option<&User>,
    method: &Method,
    path: &str,
    shape: &Shape,
    response: &Response<Body>,
) {
    let changes = match shape.grpc {
        true => CHANGES.iter().any(|change| path.ends_with(change)) && !etcd::is_etcd(path),
        false => !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
    };
    if !changes {
        return;
    }
    let user = user.map(|user| user.name.as_str()).unwrap_or_default();
    let code = response.status().as_u16();
    let failed = shape.failed(response);
    tracing::info!(target: "quorate::audit", user, %method, path, code, failed, "audit");
}

/// gRPC reports a message over the limit as OUT_OF_RANGE, which is our "revision is gone".
fn reword(response: Response<Body>, path: &str) -> Response<Body> {
    let too_large = Status::from_header_map(response.headers()).is_some_and(|status| {
        status.code() == Code::OutOfRange && status.message().contains("message length too large")
    });
    if !too_large {
        return response;
    }
    if etcd::is_etcd(path) {
        return etcd::too_large().into_http();
    }
    let text = format!("the request is too large: at most {MAX_REQUEST_BYTES} bytes are taken");
    status(Code::ResourceExhausted, "RequestEntityTooLarge", text).into_http()
}

/// Keeps the ticket as long as the body.
fn hold(response: Response<Body>, ticket: Ticket) -> Response<Body> {
    response.map(|body| Body::new(Held { body, _ticket: ticket }))
}

struct Held {
    body: Body,
    _ticket: Ticket,
}

impl http_body::Body for Held {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
#[path = "gate_test.rs"]
mod tests;
