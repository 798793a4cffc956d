//! `etcdserverpb.Watch`: many watches on one stream.
//!
//! One task per stream pulls from the store's watchers in turn and sends to a channel of a few
//! responses. A client that does not read fills the channel and stops its own task, nothing
//! else: what it misses stays in the store's history.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcd::etcdserverpb::watch_server::Watch;
use quorate_store::{KeyRange, Revision, StoreError, WatchBatch, WatchRequest, Watcher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::Guard;
use super::convert::{event, signed, unsigned};
use super::{Etcd, error};

/// Responses that wait for a client that reads slowly.
const QUEUE: usize = 8;
/// A response is cut after the revision that brings it to this size, and within a revision
/// when the client takes fragments. Many clients take 4 MiB at most.
const RESPONSE_BYTES: usize = 1 << 20;
/// Watches on one stream.
const MAX_WATCHES: usize = 10_000;
/// The watch that answers to requests for progress are about: all of them.
const ALL_WATCHES: i64 = -1;

type Inbound = Result<pb::WatchRequest, Status>;
type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for Etcd {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let guard = self.guard(&request)?;
        Ok(Response::new(Box::pin(self.watch_stream(guard, request.into_inner()))))
    }
}

impl Etcd {
    fn watch_stream(
        &self,
        guard: Guard,
        inbound: impl Stream<Item = Inbound> + Send + Unpin + 'static,
    ) -> ReceiverStream<Result<pb::WatchResponse, Status>> {
        let (out, receiver) = mpsc::channel(QUEUE);
        let session = Session {
            etcd: self.clone(),
            guard,
            out,
            watches: BTreeMap::new(),
            next_id: 0,
            progress_wanted: 0,
        };
        // Task "etcd watch": ends with the stream; its failure is the stream's.
        tokio::spawn(session.run(inbound));
        ReceiverStream::new(receiver)
    }
}

/// One stream.
struct Session {
    etcd: Etcd,
    guard: Guard,
    out: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    watches: BTreeMap<i64, Watched>,
    next_id: i64,
    /// Requests for progress that are not answered yet.
    progress_wanted: usize,
}

struct Watched {
    watcher: Watcher,
    fragment: bool,
    progress_notify: bool,
    /// Nothing was sent since the last round of notifications.
    quiet: bool,
}

/// The client has gone, or the stream cannot go on.
struct Ended;

impl Session {
    async fn run(mut self, inbound: impl Stream<Item = Inbound> + Send + Unpin) {
        let (cancel, out) = (self.etcd.cancel.clone(), self.out.clone());
        tokio::select! {
            _ = self.serve(inbound) => {}
            // Also while it waits for a client that does not read.
            () = cancel.cancelled() => {
                // A full queue belongs to somebody who does not listen.
                let _ = out.try_send(Err(error::stopped()));
            }
        }
    }

    async fn serve(
        &mut self,
        mut inbound: impl Stream<Item = Inbound> + Send + Unpin,
    ) -> Result<(), Ended> {
        let mut applied = self.etcd.store.applied();
        let mut notify = tokio::time::interval(self.etcd.options.progress_notify);
        notify.reset();
        loop {
            // Before looking, so that nothing falls between the look and the wait.
            let now = *applied.borrow_and_update();
            let more = self.pump(now).await?;
            if !more {
                self.answer_progress().await?;
            }
            tokio::select! {
                biased;
                () = self.out.closed() => return Err(Ended),
                request = inbound.next() => match request {
                    Some(Ok(request)) => self.request(request).await?,
                    // The client has no more to ask; a broken stream has nobody to tell.
                    None | Some(Err(_)) => return Ok(()),
                },
                _ = notify.tick() => self.notify_progress().await?,
                changed = applied.changed(), if !more => {
                    if changed.is_err() {
                        return self.send_status(error::stopped()).await;
                    }
                }
                () = tokio::task::yield_now(), if more => {}
            }
        }
    }

    /// Sends one batch of every watch that has something; true when one of them has not come up
    /// to `now` yet.
    async fn pump(&mut self, now: Revision) -> Result<bool, Ended> {
        let mut more = false;
        let ids: Vec<i64> = self.watches.keys().copied().collect();
        for id in ids {
            let Some(watched) = self.watches.get_mut(&id) else { continue };
            match watched.watcher.try_next() {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    more |= batch.revision < now;
                    let header = self.etcd.header(batch.revision.max(now));
                    let responses = watched.responses(header, id, batch);
                    watched.quiet &= responses.is_empty();
                    for response in responses {
                        self.send(response).await?;
                    }
                }
                Err(StoreError::Compacted(revision)) => {
                    self.watches.remove(&id);
                    self.send(pb::WatchResponse {
                        compact_revision: signed(revision),
                        ..self.canceled(id, "")
                    })
                    .await?;
                }
                Err(StoreError::Unavailable { .. }) => {
                    return self.send_status(error::stopped()).await.map(|()| false);
                }
                Err(other) => {
                    return self.send_status(error::store_status(other)).await.map(|()| false);
                }
            }
        }
        Ok(more)
    }

    async fn request(&mut self, request: pb::WatchRequest) -> Result<(), Ended> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.watches.remove(&cancel.watch_id).is_none() {
                    return Ok(());
                }
                self.send(self.canceled(cancel.watch_id, "")).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_wanted += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, r: pb::WatchCreateRequest) -> Result<(), Ended> {
        let refuse = |session: &Self, id: i64, reason: &str| pb::WatchResponse {
            created: true,
            ..session.canceled(id, reason)
        };
        let range = range(r.key, r.range_end);
        let Ok(range) = self.guard.read(range) else {
            // The text of a Go client's error, as etcd sends it.
            let text = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
            return self.send(refuse(self, r.watch_id, text)).await;
        };
        if range.end.as_ref() <= range.key.as_ref() && !range.is_single() && !range.is_unbounded() {
            return self.send(refuse(self, ALL_WATCHES, "mvcc: watcher range is empty")).await;
        }
        if self.watches.contains_key(&r.watch_id) && r.watch_id != 0 {
            let text = "mvcc: duplicate watch ID provided on the WatchStream";
            return self.send(refuse(self, ALL_WATCHES, text)).await;
        }
        if self.watches.len() >= MAX_WATCHES {
            let text = "etcdserver: too many watches on one stream";
            return self.send(refuse(self, ALL_WATCHES, text)).await;
        }
        let id = if r.watch_id == 0 { self.free_id() } else { r.watch_id };
        let filters = |kind: pb::watch_create_request::FilterType| r.filters.contains(&kind.into());
        let request = WatchRequest {
            range,
            start_revision: unsigned(r.start_revision),
            prev_kv: r.prev_kv,
            no_put: filters(pb::watch_create_request::FilterType::Noput),
            no_delete: filters(pb::watch_create_request::FilterType::Nodelete),
        };
        let watcher = self.etcd.store.watch(request);
        self.send(pb::WatchResponse { created: true, ..self.response(id) }).await?;
        match watcher {
            Ok(watcher) => {
                let watched = Watched {
                    watcher,
                    fragment: r.fragment,
                    progress_notify: r.progress_notify,
                    quiet: true,
                };
                self.watches.insert(id, watched);
                Ok(())
            }
            Err(StoreError::Compacted(revision)) => {
                let compact_revision = signed(revision);
                self.send(pb::WatchResponse { compact_revision, ..self.canceled(id, "") }).await
            }
            Err(other) => {
                let reason = error::store_status(other).message().to_owned();
                self.send(self.canceled(id, &reason)).await
            }
        }
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Nothing that a watch still has to deliver is at or before the revision that is told.
    async fn answer_progress(&mut self) -> Result<(), Ended> {
        while self.progress_wanted > 0 {
            let slowest = self.watches.values().map(|watched| watched.watcher.progress()).min();
            let mut response = self.response(ALL_WATCHES);
            if let Some(revision) = slowest {
                response.header = self.etcd.header(revision);
            }
            self.send(response).await?;
            self.progress_wanted -= 1;
        }
        Ok(())
    }

    /// Tells watches that have had nothing for a while how far they are.
    async fn notify_progress(&mut self) -> Result<(), Ended> {
        let mut responses = Vec::new();
        for (id, watched) in &mut self.watches {
            if watched.progress_notify && watched.quiet {
                let header = self.etcd.header(watched.watcher.progress());
                responses.push(pb::WatchResponse { header, watch_id: *id, ..Default::default() });
            }
            watched.quiet = true;
        }
        for response in responses {
            self.send(response).await?;
        }
        Ok(())
    }

    fn response(&self, watch_id: i64) -> pb::WatchResponse {
        pb::WatchResponse { header: self.etcd.header_now(), watch_id, ..Default::default() }
    }

    fn canceled(&self, watch_id: i64, reason: &str) -> pb::WatchResponse {
        pb::WatchResponse {
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.response(watch_id)
        }
    }

    async fn send(&self, response: pb::WatchResponse) -> Result<(), Ended> {
        self.out.send(Ok(response)).await.map_err(|_| Ended)
    }

    /// The last word on the stream.
    async fn send_status(&self, status: Status) -> Result<(), Ended> {
        // Whoever has gone needs no status.
        let _ = self.out.send(Err(status)).await;
        Err(Ended)
    }
}

/// An empty key stands for the first one.
fn range(key: Bytes, end: Bytes) -> KeyRange {
    KeyRange { key: if key.is_empty() { Bytes::from_static(&[0]) } else { key }, end }
}

impl Watched {
    /// A batch as responses of bearable size. Only the last fragment of a revision is not marked
    /// as one.
    fn responses(
        &self,
        header: Option<pb::ResponseHeader>,
        id: i64,
        batch: WatchBatch,
    ) -> Vec<pb::WatchResponse> {
        let mut responses: Vec<pb::WatchResponse> = Vec::new();
        let (mut size, mut last) = (usize::MAX, 0);
        for change in batch.events {
            let revision = change.kv.mod_revision;
            let change = event(change);
            let full = size >= RESPONSE_BYTES;
            if full && (revision != last || self.fragment) {
                if let Some(before) = responses.last_mut() {
                    before.fragment = revision == last;
                }
                responses.push(pb::WatchResponse { header, watch_id: id, ..Default::default() });
                size = 0;
            }
            size += change.encoded_len();
            last = revision;
            if let Some(response) = responses.last_mut() {
                response.events.push(change);
            }
        }
        responses
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
