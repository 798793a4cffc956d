//! Connections: TLS, HTTP/1.1 and HTTP/2 on one port, a bound on their number, and an end that
//! lets requests finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quorate_proto::Tls;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::auth::User;
use crate::authority::Lenient;
use crate::limits::MAX_CONNECTIONS;
use crate::server::ApiError;

/// HTTP/2 connections that are half dead are found after at most twice this.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// The same for HTTP/1.1, which has no pings: TCP's own.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_INTERVAL: Duration = Duration::from_secs(5);
/// What was sent must be acknowledged within this time.
const TCP_UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time between two requests of an HTTP/1.1 connection.
const IDLE: Duration = Duration::from_secs(180);
/// Requests that are being carried out get this long when the master shuts down.
const DRAIN: Duration = Duration::from_secs(3);
/// A new connection's first request comes within this time, or it is waited for no longer when the
/// master shuts down.
const FIRST_REQUEST: Duration = Duration::from_millis(200);
/// Pause when the system has no more file descriptors for us.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Open requests on one connection.
const MAX_CALLS_PER_CONNECTION: u32 = 4096;

/// The other end of a connection; an extension of every request.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Who it is, as far as the connection tells; `None`: its requests have to say it.
    pub user: Option<Arc<User>>,
}

impl Peer {
    /// Without TLS, which is on loopback only.
    pub(crate) fn plain() -> Self {
        Self { user: Some(Arc::new(User::trusted())) }
    }

    /// Over TLS, with the certificate that it showed, verified against the cluster's authority.
    pub(crate) fn secure(certificate: Option<&CertificateDer<'_>>) -> Self {
        Self { user: certificate.and_then(|der| User::of_certificate(der)).map(Arc::new) }
    }
}

/// TLS for servers. A certificate of the caller is asked for but not required: a bearer token may
/// come instead.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ApiError> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        ApiError::Certificates(format!("{what}: {error}"))
    };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.ca.as_bytes()) {
        let certificate = certificate.map_err(|e| wrong("ca.crt", &e))?;
        roots.add(certificate).map_err(|e| wrong("ca.crt", &e))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| wrong("ca.crt", &e))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(tls.cert.as_bytes()).collect();
    let chain = chain.map_err(|e| wrong("the certificate", &e))?;
    let key =
        PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(|e| wrong("the key", &e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
        })
        .map_err(|e| wrong("the certificate", &e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `cancel`, then takes no more connections and waits a moment for open requests.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: S,
    cancel: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (places, tasks) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    let take = |(stream, address): (TcpStream, SocketAddr)| {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%address, "refused: {MAX_CONNECTIONS} connections are open");
            return;
        };
        let (cancel, tls, service) = (cancel.clone(), tls.clone(), service.clone());
        // Task "connection": ends with its connection; what fails is the peer's matter.
        tasks.spawn(async move {
            let _place = place;
            if let Err(error) = Box::pin(connection(stream, tls, service, cancel)).await {
                tracing::debug!(%address, "connection: {error}");
            }
        });
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => take(accepted),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // Who has connected already may have sent something: to close the port resets them.
    for accepted in waiting(listener) {
        take(accepted);
    }
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("requests were still open when the API ended");
    }
}

/// The connections that wait to be accepted, as the system has them and not only as far as the runtime
/// has heard of them. Nobody listens afterwards.
fn waiting(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accept = || {
        // It does not block, and ends with the first that is not there.
        let (stream, address) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, address))
    };
    std::iter::from_fn(accept).take(MAX_CONNECTIONS).collect()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn connection<S>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    service: S,
    cancel: CancellationToken,
) -> Result<(), Failure>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    prepare(&stream)?;
    let first_request = Instant::now() + FIRST_REQUEST;
    let end = async move {
        cancel.cancelled().await;
        first_request
    };
    let Some(tls) = tls else {
        return http(stream, Peer::plain(), service, end).await;
    };
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = Peer::secure(certificates.and_then(<[_]>::first));
    http(stream, peer, service, end).await
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_IDLE).with_interval(TCP_INTERVAL))?;
    socket.set_tcp_user_timeout(Some(TCP_UNACKNOWLEDGED))
}

/// `end` says when the connection is to end, and until when a first request is waited for.
async fn http<I, S>(
    stream: I,
    peer: Peer,
    service: S,
    end: impl Future<Output = Instant>,
) -> Result<(), Failure>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (peer, begun) = (Arc::new(peer), Arc::new(Notify::new()));
    let heard = Arc::clone(&begun);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        heard.notify_one();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&peer));
        service.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION);
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(Lenient::new(stream)), service);
    tokio::pin!(connection);
    let end = async {
        let first_request = end.await;
        // hyper drops a connection on which nothing has been read, and with it what has just been
        // sent on it.
        let _ = tokio::time::timeout_at(first_request, begun.notified()).await;
    };
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = end => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
