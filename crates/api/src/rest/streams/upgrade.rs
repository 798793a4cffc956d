//! Turning a request into a connection: WebSocket or SPDY.

use std::future::Future;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::codec::{BytesCodec, Framed};

use super::session::Session;
use crate::rest::failure::{Failure, Result};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Largest message of a WebSocket that is taken.
const MAX_MESSAGE: usize = 1 << 20;
const SPDY: &str = "SPDY/3.1";

/// How the client wants to go on.
pub(super) enum Upgrade {
    /// The protocol is among those offered to [`Upgrade::of`].
    WebSocket(WebSocketUpgrade, String),
    Spdy(OnUpgrade, String),
}

impl Upgrade {
    /// What the client asks for. `websocket` and `spdy` are the protocols that we speak over
    /// each, the best one first.
    ///
    /// # Errors
    /// When it asks for no upgrade, or speaks none of them.
    pub async fn of(parts: &mut Parts, websocket: &[&str], spdy: &[&str]) -> Result<Self> {
        let wanted = header(&parts.headers, &UPGRADE).to_ascii_lowercase();
        let refuse = |offered: &[&str], wanted: &str| {
            let text = format!(
                "unable to upgrade: none of the protocols {wanted:?} is spoken \
                                here; these are: {}",
                offered.join(", ")
            );
            Failure::new(StatusCode::FORBIDDEN, "Forbidden", text)
        };
        if wanted == "websocket" {
            let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
            let mut upgrade =
                upgrade.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
            let asked: Vec<String> = upgrade
                .requested_protocols()
                .filter_map(|value| Some(value.to_str().ok()?.trim().to_owned()))
                .collect();
            let chosen = websocket.iter().find(|ours| asked.iter().any(|one| one == **ours));
            let chosen = chosen.ok_or_else(|| refuse(websocket, &asked.join(", ")))?;
            let value = HeaderValue::from_str(chosen).map_err(Failure::internal)?;
            upgrade.set_selected_protocol(value);
            let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
            return Ok(Self::WebSocket(upgrade, (*chosen).to_owned()));
        }
        if wanted != "spdy/3.1" || spdy.is_empty() {
            return Err(Failure::bad_request("Upgrade request required: websocket or SPDY/3.1"));
        }
        let asked: Vec<&str> = parts
            .headers
            .get_all(&STREAM_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(',').map(str::trim))
            .collect();
        let chosen = spdy.iter().find(|ours| asked.contains(ours));
        let chosen = (*chosen.ok_or_else(|| refuse(spdy, &asked.join(", ")))?).to_owned();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| {
            Failure::bad_request("this connection cannot be upgraded: use HTTP/1.1")
        })?;
        Ok(Self::Spdy(upgrade, chosen))
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The answer to a WebSocket's request; `serve` runs when the client goes on.
pub(super) fn websocket<F>(
    upgrade: WebSocketUpgrade,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    upgrade.on_upgrade(serve).into_response()
}

/// The answer to a request for SPDY; `serve` runs when the client goes on.
pub(super) fn spdy<F>(
    upgrade: OnUpgrade,
    protocol: &str,
    serve: impl FnOnce(Session) -> F + Send + 'static,
) -> Result<Response>
where
    F: Future<Output = ()> + Send + 'static,
{
    // Task "SPDY connection": ends with its connection.
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let framed = Framed::new(TokioIo::new(upgraded), BytesCodec::new());
                let (output, input) = framed.split();
                let input = input.map(|item| item.map(BytesMut::freeze));
                serve(Session::start(input, output)).await;
            }
            Err(error) => tracing::debug!("a connection was not upgraded: {error}"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    *response.body_mut() = Body::empty();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    let protocol = HeaderValue::from_str(protocol).map_err(Failure::internal)?;
    headers.insert(STREAM_PROTOCOL, protocol);
    Ok(response)
}

/// SPDY inside a WebSocket: messages are pieces of one stream of bytes.
pub(super) fn tunnel(socket: WebSocket) -> Session {
    let (output, input) = socket.split();
    let input = input.filter_map(|message| async {
        match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(text)) => Some(Ok(Bytes::from(text))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    let output = output.with(|bytes: Bytes| async { Ok::<_, axum::Error>(Message::Binary(bytes)) });
    Session::start(Box::pin(input), Box::pin(output))
}
