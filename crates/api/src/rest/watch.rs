//! Watching.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use quorate_objects::{FieldError, FieldSelector};
use quorate_registry::{Consistency, EventKind, ObjectWatcher, RegistryError, WatchOptions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Call;
use super::failure::{Failure, Result};
use super::read::revision;
use super::render::{Renderer, frame};

/// A watch ends after this long (and up to twice that, at random) when the client names no time.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A watch on its way to the client.
struct Stream {
    watcher: ObjectWatcher,
    renderer: Renderer,
    bookmarks: bool,
    /// The first bookmark ends the initial list.
    initial: Initial,
    /// Has anything been sent?
    begun: bool,
    until: Instant,
    cancel: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Initial {
    /// There is none, or its end has been told.
    Over,
    /// Its end is not told to this client.
    Silent,
    /// Its end is a bookmark that says so.
    Announced,
}

impl Call {
    pub(super) async fn watch(&self) -> Result<Response> {
        let (labels, mut fields) = self.query.selectors()?;
        if !self.request.name.is_empty() {
            // A watch of one object.
            fields = FieldSelector::parse(&format!("metadata.name={}", self.request.name))
                .map_err(RegistryError::from)?;
        }
        let bookmarks = self.query.flag("allowWatchBookmarks")?;
        let (from_revision, initial) = self.begin(bookmarks).await?;
        let namespace = Some(self.request.namespace.clone()).filter(|ns| !ns.is_empty());
        let kind = Some(self.kind);
        let options = WatchOptions { kind, namespace, labels, fields, from_revision };
        let watcher = match self.rest.registry.watch_with(options) {
            Ok(watcher) => watcher,
            // Too old a revision is an event, not an answer.
            Err(error @ RegistryError::Gone { .. }) => {
                return Ok(stream(Body::from(error_frame(&error.into()))));
            }
            Err(error) => return Err(error.into()),
        };
        let seconds = self.query.parse::<u64>("timeoutSeconds", "number of seconds")?;
        let lifetime = match seconds {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.min(24 * 3600)),
            _ => LIFETIME.mul_f64(1.0 + rand::random::<f64>()),
        };
        let state = Stream {
            watcher,
            renderer: self.renderer()?,
            bookmarks,
            initial,
            begun: false,
            until: Instant::now() + lifetime,
            cancel: self.rest.cancel.clone(),
        };
        let events = futures::stream::unfold(Some(state), |state| async move {
            let (bytes, state) = state?.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), state))
        });
        Ok(stream(Body::from_stream(events)))
    }

    /// From where to watch (0: with what is there first), and how the initial list ends.
    async fn begin(&self, bookmarks: bool) -> Result<(u64, Initial)> {
        let revision = revision(&self.query)?;
        let initial = self.query.maybe_flag("sendInitialEvents")?;
        let matching = self.query.get("resourceVersionMatch");
        let forbidden = |path: &str, message: &str| {
            let error = FieldError::forbidden(path, message);
            Err(Failure::invalid("ListOptions.meta.k8s.io", "", error))
        };
        match (initial, matching) {
            (Some(_), Some("NotOlderThan")) | (None, None) => {}
            (Some(_), _) => {
                return forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            (None, Some(_)) => {
                return forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                     provided",
                );
            }
        }
        if initial == Some(true) && !bookmarks {
            return forbidden(
                "allowWatchBookmarks",
                "sendInitialEvents requires setting allowWatchBookmarks to true",
            );
        }
        match revision {
            Some(0) => {}
            Some(wanted) if initial.is_some() => self.reach(wanted).await?,
            // This master gets there; until then there is nothing to say.
            Some(_) => {}
            None => self.rest.registry.freshen(Consistency::Linearizable).await?,
        }
        Ok(match (initial, revision) {
            (Some(true), _) => (0, Initial::Announced),
            (Some(false), Some(0) | None) => (self.rest.registry.cache().revision(), Initial::Over),
            (None, Some(0) | None) => (0, Initial::Silent),
            (_, Some(revision)) => (revision, Initial::Over),
        })
    }
}

impl Stream {
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                event = self.watcher.next() => event,
            };
            let event = match event {
                Ok(event) => event,
                // The client watches on from its last revision, at another master.
                Err(RegistryError::Unavailable { .. }) => return None,
                Err(error) => return Some((error_frame(&error.into()), None)),
            };
            if event.kind == EventKind::Bookmark {
                let initial = std::mem::replace(&mut self.initial, Initial::Over);
                let wanted = match initial {
                    Initial::Over => self.bookmarks,
                    Initial::Silent => false,
                    Initial::Announced => true,
                };
                if !wanted {
                    continue;
                }
                let end = initial == Initial::Announced;
                let content = self.renderer.bookmark(event.revision, end);
                return Some((frame("BOOKMARK", &content), Some(self)));
            }
            self.renderer.now = quorate_objects::time::timestamp();
            let first = !std::mem::replace(&mut self.begun, true);
            return Some(match self.renderer.event(&event, first) {
                Ok(bytes) => (bytes, Some(self)),
                Err(failure) => (error_frame(&failure), None),
            });
        }
    }
}

fn error_frame(failure: &Failure) -> Bytes {
    frame("ERROR", failure.status().to_string().as_bytes())
}

fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
