//! The masters' endpoints and their connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_proto::Tls;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::ClientError;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection on which nothing came for this long is asked whether it lives; it is given up
/// when it does not answer for the same time again.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Flow-control windows: large enough for a list of thousands of objects.
const WINDOW: u32 = 4 << 20;

/// One master.
pub(crate) struct Master {
    pub(crate) url: String,
    pub(crate) channel: Channel,
}

/// All of them. Connections are made when first used and again when they break.
pub(crate) struct Pool {
    masters: Vec<Master>,
    /// Which one answered last.
    preferred: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(urls: &[String], tls: Option<&Tls>) -> Result<Self, ClientError> {
        if urls.is_empty() {
            let text = "no master is known; give --cluster, or set QUORATE_CLUSTER";
            return Err(ClientError::new(Code::InvalidArgument, "BadRequest", text));
        }
        let masters = urls.iter().map(|url| connect(url, tls)).collect::<Result<_, _>>()?;
        Ok(Self { masters, preferred: AtomicUsize::new(0) })
    }

    pub(crate) fn len(&self) -> usize {
        self.masters.len()
    }

    pub(crate) fn get(&self, index: usize) -> &Master {
        &self.masters[index % self.masters.len()]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Master> {
        self.masters.iter()
    }

    pub(crate) fn position(&self, url: &str) -> Option<usize> {
        let url = url.trim_end_matches('/');
        self.masters.iter().position(|m| m.url.trim_end_matches('/') == url)
    }

    pub(crate) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    pub(crate) fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }
}

fn connect(url: &str, tls: Option<&Tls>) -> Result<Master, ClientError> {
    let bad = |problem: String| {
        let text = format!("{url:?} is not the URL of a master: {problem}");
        ClientError::new(Code::InvalidArgument, "BadRequest", text)
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|e| bad(e.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW);
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some("https") => {
            let tls = tls.ok_or_else(|| {
                bad("https needs certificates; pki/ beside cluster.json has them".into())
            })?;
            endpoint = endpoint.tls_config(tls.client()).map_err(|e| bad(e.to_string()))?;
        }
        _ => return Err(bad("it must begin with http:// or https://".into())),
    }
    Ok(Master { url: url.to_owned(), channel: endpoint.connect_lazy() })
}
