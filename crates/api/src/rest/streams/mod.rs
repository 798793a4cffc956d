//! Streams with pods: logs, exec, attach, port-forward. Bridges what Kubernetes' clients speak to
//! the streams of [`crate::nodes`].

mod forward;
mod remote;
mod session;
mod spdy;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use quorate_objects::FieldError;
use quorate_proto::v1;
use quorate_proto::v1::output::Data as Output;
use quorate_proto::v1::stream_request::Kind as StreamKind;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Call;
use super::failure::{Failure, Result};
use crate::nodes::streams::{self, PodStream};
use remote::Wanted;
use upgrade::{Upgrade, websocket};

/// Over WebSocket and SPDY alike, the newest first.
const REMOTE: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const FORWARD: &str = "portforward.k8s.io";
/// Ports of one WebSocket: their channels are numbered in a byte.
const MAX_PORTS: usize = 64;
/// An answer that fails at once shall be an error, not a body that breaks off.
const FIRST_PIECE: Duration = Duration::from_millis(300);

/// Runs `serve` until it ends or the master does, and holds its place meanwhile.
async fn hold(
    _place: OwnedSemaphorePermit,
    cancel: CancellationToken,
    serve: impl Future<Output = ()>,
) {
    cancel.run_until_cancelled(serve).await;
}

impl Call {
    fn session_place(&self) -> Result<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.rest.sessions);
        places.try_acquire_owned().map_err(|_| Failure::too_many("too many sessions are open"))
    }

    async fn pod_stream(&self, kind: StreamKind) -> Result<PodStream> {
        let (namespace, name) = (&self.request.namespace, &self.request.name);
        Ok(streams::open(&self.rest.nodes, namespace, name, kind).await?)
    }

    pub(super) async fn log(&self) -> Result<Response> {
        let options = self.log_options()?;
        let mut stream = self.pod_stream(StreamKind::Logs(options)).await?;
        let first = match tokio::time::timeout(FIRST_PIECE, stream.output.next()).await {
            Ok(Some(Err(status))) => return Err(status.into()),
            Ok(Some(Ok(piece))) => Some(Some(piece)),
            Ok(None) => Some(None),
            Err(_) => None,
        };
        let pieces = futures::stream::unfold((first, stream), |(first, mut stream)| async {
            let next = match first {
                Some(first) => first.map(Ok),
                None => stream.output.next().await,
            };
            let piece = match next? {
                Ok(Output::Stdout(data) | Output::Stderr(data)) => Ok(data),
                Ok(Output::Exit(_)) => return None,
                Err(status) => Err(std::io::Error::other(status.message().to_owned())),
            };
            Some((piece, (None, stream)))
        });
        let mut response = Response::new(Body::from_stream(pieces));
        *response.status_mut() = StatusCode::OK;
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        Ok(response)
    }

    fn log_options(&self) -> Result<v1::LogOptions> {
        let query = &self.query;
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let tail = query.parse::<i64>("tailLines", "number")?;
        let limit = query.parse::<i64>("limitBytes", "number")?;
        let since = query.parse::<i64>("sinceSeconds", "number of seconds")?;
        let since_time = text("sinceTime");
        let wrong = |field: &str, value: i64, message: &str| {
            let error = FieldError::invalid(field, value, message);
            Err(Failure::invalid("PodLogOptions", &self.request.name, error))
        };
        if let Some(tail) = tail.filter(|tail| *tail < 0) {
            return wrong("tailLines", tail, "must be greater than or equal to 0");
        }
        if let Some(limit) = limit.filter(|limit| *limit < 1) {
            return wrong("limitBytes", limit, "must be greater than 0");
        }
        if let Some(since) = since.filter(|since| *since < 1) {
            return wrong("sinceSeconds", since, "must be greater than 0");
        }
        if since.is_some() && !since_time.is_empty() {
            let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            let error = FieldError::forbidden("", text);
            return Err(Failure::invalid("PodLogOptions", &self.request.name, error));
        }
        if !since_time.is_empty() && quorate_objects::time::parse(&since_time).is_err() {
            return Err(Failure::bad_request(format!("sinceTime {since_time:?} is no time")));
        }
        let unsigned = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
        Ok(v1::LogOptions {
            container: text("container"),
            follow: query.flag("follow")?,
            previous: query.flag("previous")?,
            timestamps: query.flag("timestamps")?,
            tail_lines: tail.unwrap_or(-1),
            since_seconds: unsigned(since),
            limit_bytes: unsigned(limit),
            since_time,
            stream: text("stream"),
        })
    }

    /// exec or attach.
    pub(super) async fn remote(&self, parts: &mut Parts) -> Result<Response> {
        let (query, attach) = (&self.query, self.request.subresource == "attach");
        let wanted = Wanted {
            stdin: query.flag("stdin")?,
            stdout: query.flag("stdout")?,
            stderr: query.flag("stderr")?,
            tty: query.flag("tty")?,
        };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(Failure::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        let Wanted { stdin, stdout, stderr, tty } = wanted;
        let stderr = stderr && !tty;
        let container = query.get("container").unwrap_or_default().to_owned();
        let kind = if attach {
            StreamKind::Attach(v1::AttachOptions { container, stdin, stdout, stderr, tty })
        } else {
            let command = query.all("command").map(str::to_owned).collect();
            StreamKind::Exec(v1::ExecOptions { container, command, stdin, stdout, stderr, tty })
        };
        let upgrade = Upgrade::of(parts, REMOTE, &REMOTE[1..]).await?;
        let place = self.session_place()?;
        let cancel = self.rest.cancel.clone();
        let pod = self.pod_stream(kind).await?;
        match upgrade {
            Upgrade::WebSocket(upgrade, _) => Ok(websocket(upgrade, move |socket| {
                hold(place, cancel, remote::over_websocket(socket, pod, wanted))
            })),
            Upgrade::Spdy(upgrade, protocol) => upgrade::spdy(upgrade, &protocol, move |session| {
                hold(place, cancel, remote::over_spdy(session, pod, wanted))
            }),
        }
    }

    pub(super) async fn port_forward(&self, parts: &mut Parts) -> Result<Response> {
        // Before anything is upgraded: errors are answers then.
        self.load().await?;
        let upgrade = Upgrade::of(parts, &[TUNNEL, CHANNELS], &[FORWARD]).await?;
        let place = self.session_place()?;
        let cancel = self.rest.cancel.clone();
        let target = Arc::new(forward::Target {
            nodes: self.rest.nodes.clone(),
            namespace: self.request.namespace.clone(),
            pod: self.request.name.clone(),
        });
        match upgrade {
            Upgrade::WebSocket(upgrade, protocol) if protocol == TUNNEL => {
                Ok(websocket(upgrade, move |socket| {
                    let serve = forward::over_spdy(upgrade::tunnel(socket), target);
                    hold(place, cancel, serve)
                }))
            }
            Upgrade::WebSocket(upgrade, _) => {
                let ports = self.ports()?;
                Ok(websocket(upgrade, move |socket| {
                    hold(place, cancel, forward::over_websocket(socket, target, ports))
                }))
            }
            Upgrade::Spdy(upgrade, protocol) => upgrade::spdy(upgrade, &protocol, move |session| {
                hold(place, cancel, forward::over_spdy(session, target))
            }),
        }
    }

    fn ports(&self) -> Result<Vec<u16>> {
        let texts = self.query.all("ports").flat_map(|value| value.split(','));
        let parse = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(Failure::bad_request(format!("ports: {text:?} is no port"))),
        };
        let ports: Vec<u16> = texts.map(parse).collect::<Result<_>>()?;
        if ports.is_empty() || ports.len() > MAX_PORTS {
            let text = format!("ports: between 1 and {MAX_PORTS} must be given");
            return Err(Failure::bad_request(text));
        }
        Ok(ports)
    }
}
