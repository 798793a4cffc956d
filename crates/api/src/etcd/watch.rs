//! `etcdserverpb.Watch`: many watches on one stream.
//!
//! The stream of responses is the session itself: it looks for changes when the connection asks
//! for a response. A client that does not read therefore stops its own session, nothing else:
//! what it misses stays in the store's history.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcd::etcdserverpb::watch_server::Watch;
use quorate_store::{KeyRange, Revision, StoreError, WatchBatch, WatchRequest, Watcher};
use tokio::sync::watch::Receiver;
use tokio::time::Interval;
use tonic::{Request, Response, Status, Streaming};

use super::access::Guard;
use super::convert::{event, signed, unsigned};
use super::{Etcd, error};

/// Responses that are made ahead of the connection; a little more when a batch makes several.
const AHEAD: usize = 64;
/// A response is cut after the revision that brings it to this size, and within a revision
/// when the client takes fragments. Many clients take 4 MiB at most. Nothing is made ahead beyond
/// this either.
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
        Ok(Response::new(self.watch_stream(guard, request.into_inner())))
    }
}

impl Etcd {
    fn watch_stream(
        &self,
        guard: Guard,
        inbound: impl Stream<Item = Inbound> + Send + Unpin + 'static,
    ) -> Responses {
        let mut notify = tokio::time::interval(self.options.progress_notify);
        notify.reset();
        let session = Session {
            applied: self.store.applied(),
            etcd: self.clone(),
            guard,
            inbound,
            notify,
            out: VecDeque::new(),
            out_bytes: 0,
            last: None,
            watches: BTreeMap::new(),
            pumped: None,
            next_id: 0,
            progress_wanted: 0,
        };
        Box::pin(futures::stream::unfold(session, |mut session| async move {
            let response = session.next().await?;
            Some((response, session))
        }))
    }
}

/// One stream.
struct Session<I> {
    etcd: Etcd,
    guard: Guard,
    inbound: I,
    applied: Receiver<Revision>,
    notify: Interval,
    /// What the connection has not taken yet, and about how many bytes of events that is.
    out: VecDeque<pb::WatchResponse>,
    out_bytes: usize,
    /// After `out` comes nothing but this.
    last: Option<Last>,
    watches: BTreeMap<i64, Watched>,
    /// The watch that was looked at last, when not all have been.
    pumped: Option<i64>,
    next_id: i64,
    /// Requests for progress that are not answered yet.
    progress_wanted: usize,
}

/// How a stream ends.
enum Last {
    /// The client has no more to ask.
    Done,
    Status(Status),
}

struct Watched {
    watcher: Watcher,
    fragment: bool,
    progress_notify: bool,
    /// Nothing was sent since the last round of notifications.
    quiet: bool,
}

impl<I: Stream<Item = Inbound> + Send + Unpin> Session<I> {
    async fn next(&mut self) -> Option<Result<pb::WatchResponse, Status>> {
        loop {
            if let Some(response) = self.out.pop_front() {
                return Some(Ok(response));
            }
            match &self.last {
                Some(Last::Done) => return None,
                Some(Last::Status(status)) => {
                    let status = status.clone();
                    self.last = Some(Last::Done);
                    return Some(Err(status));
                }
                None => self.step().await,
            }
        }
    }

    /// Looks at everything once, and waits when there is nothing.
    async fn step(&mut self) {
        self.out_bytes = 0;
        // Before looking, so that nothing falls between the look and the wait.
        let now = *self.applied.borrow_and_update();
        let more = self.pump(now);
        if !more {
            self.answer_progress();
        }
        let idle = !more && self.out.is_empty() && self.last.is_none();
        tokio::select! {
            biased;
            () = self.etcd.cancel.cancelled() => self.end(error::stopped()),
            request = self.inbound.next() => match request {
                Some(Ok(request)) => self.request(request),
                // A broken stream has nobody to tell.
                None | Some(Err(_)) => self.last = Some(Last::Done),
            },
            _ = self.notify.tick() => self.notify_progress(),
            changed = self.applied.changed(), if idle => {
                if changed.is_err() {
                    self.end(error::stopped());
                }
            }
            () = tokio::task::yield_now(), if !idle => {}
        }
    }

    /// Takes one batch of every watch that has something, as far as there is room; true when one
    /// of them has not come up to `now` yet.
    fn pump(&mut self, now: Revision) -> bool {
        let mut more = false;
        let mut ended = Vec::new();
        let from = self.pumped.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (id, watched) in self.watches.range_mut((from, Bound::Unbounded)) {
            match watched.watcher.try_next() {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    more |= batch.revision < now;
                    let header = self.etcd.header(batch.revision.max(now));
                    let (responses, bytes) = watched.responses(header, *id, batch);
                    watched.quiet &= responses.is_empty();
                    self.out.extend(responses);
                    self.out_bytes += bytes;
                }
                Err(error) => ended.push((*id, error)),
            }
            if self.out.len() >= AHEAD || self.out_bytes >= RESPONSE_BYTES {
                self.pumped = Some(*id);
                more = true;
                break;
            }
        }
        for (id, error) in ended {
            self.watch_ended(id, error);
        }
        // Those before the place where this round began have not been looked at.
        more || from != Bound::Unbounded
    }

    fn watch_ended(&mut self, id: i64, error: StoreError) {
        match error {
            StoreError::Compacted(revision) => {
                self.watches.remove(&id);
                let compact_revision = signed(revision);
                self.send(pb::WatchResponse { compact_revision, ..self.canceled(id, "") });
            }
            StoreError::Unavailable { .. } => self.end(error::stopped()),
            other => self.end(error::store_status(other)),
        }
    }

    fn request(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.progress_wanted += 1,
            None => {}
        }
    }

    fn cancel(&mut self, id: i64) {
        if self.watches.remove(&id).is_some() {
            self.send(self.canceled(id, ""));
        }
    }

    fn create(&mut self, r: pb::WatchCreateRequest) {
        let refuse = |session: &Self, id: i64, reason: &str| pb::WatchResponse {
            created: true,
            ..session.canceled(id, reason)
        };
        let range = range(r.key, r.range_end);
        let Ok(range) = self.guard.read(range) else {
            // The text of a Go client's error, as etcd sends it.
            let text = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
            return self.send(refuse(self, r.watch_id, text));
        };
        if range.end.as_ref() <= range.key.as_ref() && !range.is_single() && !range.is_unbounded() {
            return self.send(refuse(self, ALL_WATCHES, "mvcc: watcher range is empty"));
        }
        if self.watches.contains_key(&r.watch_id) && r.watch_id != 0 {
            let text = "mvcc: duplicate watch ID provided on the WatchStream";
            return self.send(refuse(self, ALL_WATCHES, text));
        }
        if self.watches.len() >= MAX_WATCHES {
            let text = "etcdserver: too many watches on one stream";
            return self.send(refuse(self, ALL_WATCHES, text));
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
        self.send(pb::WatchResponse { created: true, ..self.response(id) });
        match watcher {
            Ok(watcher) => {
                let watched = Watched {
                    watcher,
                    fragment: r.fragment,
                    progress_notify: r.progress_notify,
                    quiet: true,
                };
                self.watches.insert(id, watched);
            }
            Err(StoreError::Compacted(revision)) => {
                let compact_revision = signed(revision);
                self.send(pb::WatchResponse { compact_revision, ..self.canceled(id, "") });
            }
            Err(other) => {
                let reason = error::store_status(other).message().to_owned();
                self.send(self.canceled(id, &reason));
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
    fn answer_progress(&mut self) {
        while self.progress_wanted > 0 {
            let slowest = self.watches.values().map(|watched| watched.watcher.progress()).min();
            let mut response = self.response(ALL_WATCHES);
            if let Some(revision) = slowest {
                response.header = self.etcd.header(revision);
            }
            self.send(response);
            self.progress_wanted -= 1;
        }
    }

    /// Tells watches that have had nothing for a while how far they are.
    fn notify_progress(&mut self) {
        let mut responses = Vec::new();
        for (id, watched) in &mut self.watches {
            if watched.progress_notify && watched.quiet {
                let header = self.etcd.header(watched.watcher.progress());
                responses.push(pb::WatchResponse { header, watch_id: *id, ..Default::default() });
            }
            watched.quiet = true;
        }
        self.out.extend(responses);
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

    fn send(&mut self, response: pb::WatchResponse) {
        self.out.push_back(response);
    }

    /// The last word on the stream.
    fn end(&mut self, status: Status) {
        self.last = Some(Last::Status(status));
    }
}

/// An empty key stands for the first one.
fn range(key: Bytes, end: Bytes) -> KeyRange {
    KeyRange { key: if key.is_empty() { Bytes::from_static(&[0]) } else { key }, end }
}

impl Watched {
    /// A batch as responses of bearable size, and about how many bytes that is. Only the last
    /// fragment of a revision is not marked as one.
    fn responses(
        &self,
        header: Option<pb::ResponseHeader>,
        id: i64,
        batch: WatchBatch,
    ) -> (Vec<pb::WatchResponse>, usize) {
        let mut responses: Vec<pb::WatchResponse> = Vec::new();
        let (mut size, mut all, mut last) = (usize::MAX, 0, 0);
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
            let bytes = change.encoded_len();
            size += bytes;
            all += bytes;
            last = revision;
            if let Some(response) = responses.last_mut() {
                response.events.push(change);
            }
        }
        (responses, all)
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
