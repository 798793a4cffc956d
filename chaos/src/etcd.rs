//! A small client of etcd's v3 API: the same one for Quorate and for etcd, so that neither is
//! measured or judged by a better client.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcd::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcd::mvccpb;
use quorate_proto::never_sent;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// How long a connection attempt may take.
const CONNECT: Duration = Duration::from_millis(300);
/// How long a server may take to say who leads.
const STATUS: Duration = Duration::from_millis(500);

/// How a write ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended<T> {
    /// With its answer.
    Done(T),
    /// Certainly not carried out.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// A client that holds all endpoints, stays with one as long as it answers, and never sends a
/// write twice.
#[derive(Clone, Debug)]
pub struct Etcd {
    channels: Vec<Channel>,
    current: usize,
    patience: Duration,
}

impl Etcd {
    /// A client of these URLs that begins with the `first`-th, and waits for an answer for
    /// `patience` at most.
    ///
    /// # Errors
    /// When a URL is malformed.
    pub fn new(urls: &[String], first: usize, patience: Duration) -> Result<Self> {
        ensure!(!urls.is_empty(), "no endpoint");
        let channel = |url: &String| {
            let endpoint = Endpoint::from_shared(url.clone()).with_context(|| url.clone())?;
            Ok(endpoint.connect_timeout(CONNECT).tcp_nodelay(true).connect_lazy())
        };
        let channels = urls.iter().map(channel).collect::<Result<_>>()?;
        Ok(Self { channels, current: first % urls.len(), patience })
    }

    fn channel(&self) -> Channel {
        self.channels[self.current].clone()
    }

    /// Turns to the next endpoint.
    pub fn move_on(&mut self) {
        self.current = (self.current + 1) % self.channels.len();
    }

    async fn ended<T>(
        &mut self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Ended<T> {
        match timeout(self.patience, call).await {
            Ok(Ok(response)) => Ended::Done(response.into_inner()),
            Ok(Err(status)) => {
                self.move_on();
                if certainly_refused(&status) {
                    Ended::Refused(cause(&status))
                } else {
                    Ended::Unknown(cause(&status))
                }
            }
            Err(_) => {
                self.move_on();
                Ended::Unknown("no answer in time".to_owned())
            }
        }
    }

    /// Writes one key; answers with the revision. What was certainly not carried out is sent to
    /// the other endpoints in turn, as every client with several endpoints does.
    pub async fn put(&mut self, key: &str, value: &str) -> Ended<i64> {
        let mut ended = self.put_once(key, value).await;
        for _ in 1..self.channels.len() {
            if !matches!(ended, Ended::Refused(_)) {
                break;
            }
            ended = self.put_once(key, value).await;
        }
        ended
    }

    async fn put_once(&mut self, key: &str, value: &str) -> Ended<i64> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..pb::PutRequest::default()
        };
        let mut kv = KvClient::new(self.channel());
        match self.ended(async { kv.put(request).await }).await {
            Ended::Done(response) => Ended::Done(response.header.unwrap_or_default().revision),
            Ended::Refused(text) => Ended::Refused(text),
            Ended::Unknown(text) => Ended::Unknown(text),
        }
    }

    /// Carries a transaction out.
    pub async fn txn(&mut self, request: pb::TxnRequest) -> Ended<pb::TxnResponse> {
        let mut kv = KvClient::new(self.channel());
        self.ended(async { kv.txn(request).await }).await
    }

    /// Makes a lease of so many seconds; answers with its id and the seconds that it got.
    pub async fn lease_grant(&mut self, ttl: i64) -> Ended<(i64, i64)> {
        let mut leases = LeaseClient::new(self.channel());
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        match self.ended(async { leases.lease_grant(request).await }).await {
            Ended::Done(lease) => Ended::Done((lease.id, lease.ttl)),
            Ended::Refused(text) => Ended::Refused(text),
            Ended::Unknown(text) => Ended::Unknown(text),
        }
    }

    /// Renews a lease once; answers whether it was still there.
    pub async fn lease_keep_alive(&mut self, id: i64) -> Ended<bool> {
        let mut leases = LeaseClient::new(self.channel());
        // The answer comes before the stream ends.
        let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let renewed = self.ended(async {
            let mut answers = leases.lease_keep_alive(request).await?.into_inner();
            Ok(tonic::Response::new(answers.message().await?))
        });
        match renewed.await {
            Ended::Done(answer) => Ended::Done(answer.is_some_and(|lease| lease.ttl > 0)),
            Ended::Refused(text) => Ended::Refused(text),
            Ended::Unknown(text) => Ended::Unknown(text),
        }
    }

    /// Ends a lease, and with it its keys.
    pub async fn lease_revoke(&mut self, id: i64) -> Ended<()> {
        let mut leases = LeaseClient::new(self.channel());
        let request = pb::LeaseRevokeRequest { id };
        match self.ended(async { leases.lease_revoke(request).await }).await {
            Ended::Done(_) => Ended::Done(()),
            Ended::Refused(text) => Ended::Refused(text),
            Ended::Unknown(text) => Ended::Unknown(text),
        }
    }

    /// Number of keys with a prefix.
    ///
    /// # Errors
    /// When the endpoint does not answer.
    pub async fn count(&mut self, prefix: &str) -> Result<i64> {
        let range = pb::RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end_of(prefix).into(),
            count_only: true,
            ..pb::RangeRequest::default()
        };
        let mut kv = KvClient::new(self.channel());
        match self.ended(async { kv.range(range).await }).await {
            Ended::Done(response) => Ok(response.count),
            Ended::Refused(text) | Ended::Unknown(text) => bail!("counting {prefix}: {text}"),
        }
    }

    /// Watches all keys with a prefix from now on, or from a revision on.
    ///
    /// # Errors
    /// When the endpoint does not answer in time; the client has moved on then.
    pub async fn watch(&mut self, prefix: &str, start_revision: i64) -> Result<WatchStream> {
        let opened = timeout(self.patience, self.open_watch(prefix, start_revision)).await;
        let error = match opened {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer in time"),
        };
        self.move_on();
        Err(error)
    }

    async fn open_watch(&self, prefix: &str, start_revision: i64) -> Result<WatchStream> {
        let create = pb::WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: end_of(prefix).into(),
            start_revision,
            prev_kv: true,
            progress_notify: true,
            ..pb::WatchCreateRequest::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        let (requests, outgoing) = mpsc::channel(1);
        requests.send(request).await.context("the stream is closed")?;
        let mut watch = WatchClient::new(self.channel());
        let incoming = watch.watch(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut stream = WatchStream { requests, incoming };
        let created = stream.next().await?;
        ensure!(created.created && !created.canceled, "refused: {}", created.cancel_reason);
        Ok(stream)
    }

    /// What one endpoint says of the cluster: its own id and the leader's.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn status(url: &str) -> Result<pb::StatusResponse> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(CONNECT);
        let mut maintenance = MaintenanceClient::new(endpoint.connect_lazy());
        let status = timeout(STATUS, maintenance.status(pb::StatusRequest {})).await??;
        Ok(status.into_inner())
    }
}

/// What a server says, or what has happened to the connection.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Was the request never sent, or does the server say that it did nothing?
fn certainly_refused(status: &Status) -> bool {
    if never_sent(status).is_some() {
        return true;
    }
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

/// A watch that is open.
#[derive(Debug)]
pub struct WatchStream {
    /// Dropping it ends the stream.
    requests: mpsc::Sender<pb::WatchRequest>,
    incoming: Streaming<pb::WatchResponse>,
}

impl WatchStream {
    /// Asks how far the watch has come; the answer comes among the events. Does nothing when
    /// earlier requests are still on their way.
    pub fn ask_progress(&self) {
        let progress = pb::WatchProgressRequest {};
        let union = pb::watch_request::RequestUnion::ProgressRequest(progress);
        // A stream that is broken says so where its events are read.
        let _ = self.requests.try_send(pb::WatchRequest { request_union: Some(union) });
    }

    /// The next response.
    ///
    /// # Errors
    /// When the stream breaks or the server ends it.
    pub async fn next(&mut self) -> Result<pb::WatchResponse> {
        match self.incoming.message().await? {
            Some(response) => Ok(response),
            None => bail!("the server ended the watch"),
        }
    }
}

/// The first key after all keys with a prefix, which ends with a character of ASCII.
#[must_use]
pub fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Text of a key or a value.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The kv of an event that sets a key.
#[must_use]
pub fn put_of(event: &mvccpb::Event) -> Option<&mvccpb::KeyValue> {
    event.kv.as_ref().filter(|_| event.r#type() == mvccpb::event::EventType::Put)
}
