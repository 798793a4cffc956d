//! The one layer that every request passes: bounds on concurrency, counters, tracing, and
//! gRPC's own refusals in our words.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::error::status;
use crate::etcd;
use crate::limits::{MAX_IN_FLIGHT, MAX_REQUEST_BYTES, MAX_STREAMS};

/// Calls that stay open as long as the client likes.
const STREAMS: &[&str] =
    &["/quorate.v1.Objects/Watch", "/quorate.v1.Nodes/Session", "/quorate.v1.Nodes/Logs"];

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

#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Metrics>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate { inner, metrics: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    metrics: Arc<Metrics>,
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let stream = is_stream(&path);
        let metrics = Arc::clone(&self.metrics);
        metrics.requests.fetch_add(1, Ordering::Relaxed);
        let Some(ticket) = Ticket::take(&metrics, stream) else {
            metrics.shed.fetch_add(1, Ordering::Relaxed);
            let refused = overloaded(&path);
            return Box::pin(async move { Ok(refused.into_http()) });
        };
        let start = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let code = Status::from_header_map(response.headers());
            let failed = code.as_ref().is_some_and(|status| status.code() != Code::Ok);
            if failed {
                metrics.failed.fetch_add(1, Ordering::Relaxed);
            }
            let code = code.map_or(Code::Ok, |status| status.code());
            tracing::debug!(%path, ?code, elapsed = ?start.elapsed(), "request");
            let response = reword(response, &path);
            // A stream is open until its body is dropped, not until its headers are sent.
            Ok(if stream && !failed { hold(response, ticket) } else { response })
        })
    }
}

fn overloaded(path: &str) -> Status {
    if etcd::is_etcd(path) {
        return etcd::too_many_requests();
    }
    let text = "too many requests are in flight; try again in a moment";
    status(Code::ResourceExhausted, "Overloaded", text)
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

impl tonic::codegen::Body for Held {
    type Data = bytes::Bytes;
    type Error = Status;

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
