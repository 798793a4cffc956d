//! [`Watch`]: changes in order, across the death of masters.

use std::collections::HashSet;
use std::time::Duration;

use quorate_objects::Kind;
use quorate_proto::v1;
use quorate_proto::v1::objects_client::ObjectsClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Streaming};

use crate::call::jittered;
use crate::error::{Attempt, Outcome, classify, nobody};
use crate::object::kind_ref;
use crate::{Client, ClientError, MAX_ANSWER_BYTES, Object};

/// Masters send a bookmark at least every 10 s; one that is silent for longer is not heard.
const LONGEST_SILENCE: Duration = Duration::from_secs(25);
/// How long a master may take to begin.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Empty: all namespaces.
    pub namespace: String,
    /// `app=web`
    pub labels: String,
    /// `spec.nodeName=n1`
    pub fields: String,
    /// Changes strictly after this revision; 0: what is there comes first, as
    /// [`Event::Added`], ended by an [`Event::Bookmark`].
    pub revision: u64,
    /// When no master answers for this long, the watch ends with an error.
    pub patience: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            labels: String::new(),
            fields: String::new(),
            revision: 0,
            patience: Duration::from_secs(30),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is new, or begins to match the selector.
    Added(Object),
    /// It changed.
    Modified(Object),
    /// It was deleted, or no longer matches the selector; this is its last state.
    Deleted(Object),
    /// Everything up to this revision has been seen.
    Bookmark(u64),
}

/// A stream of changes. Moves to another master when one dies and resumes where it was: no
/// change is missed and none comes twice, except that the initial objects may come again when
/// the master dies while it sends them.
pub struct Watch {
    client: Client,
    request: v1::WatchRequest,
    patience: Duration,
    stream: Option<Streaming<v1::WatchEvent>>,
    place: Place,
    /// Since when no master has answered, and what each said.
    failing: Option<Instant>,
    problems: Vec<Option<Attempt>>,
    next_master: usize,
    pause: Duration,
}

/// Where in the history the watch is.
struct Place {
    /// Everything up to here has been seen.
    complete: u64,
    /// Some of this revision has been seen, namely of these objects (a transaction may change
    /// many objects at one revision, and the stream may break between them).
    partial: u64,
    seen: HashSet<(String, String, String)>,
    /// Have the initial objects all come?
    initial: bool,
}

impl Client {
    /// Watches objects of a kind. Connects at the first [`Watch::next`].
    #[must_use]
    pub fn watch(&self, kind: &Kind, options: WatchOptions) -> Watch {
        let request = v1::WatchRequest {
            kind: Some(kind_ref(kind)),
            namespace: options.namespace,
            label_selector: options.labels,
            field_selector: options.fields,
            revision: options.revision,
        };
        let place = Place {
            complete: options.revision,
            partial: 0,
            seen: HashSet::new(),
            initial: options.revision == 0,
        };
        Watch {
            next_master: self.pool.preferred(),
            problems: vec![None; self.pool.len()],
            client: self.clone(),
            request,
            patience: options.patience,
            stream: None,
            place,
            failing: None,
            pause: Duration::from_millis(25),
        }
    }
}

impl Watch {
    /// Everything up to this revision has been seen; a new watch may begin here.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.place.complete
    }

    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// `Expired` ([`ClientError::is_gone`]) when the history from here is compacted: list again.
    /// `Unreachable` when no master has answered for the whole patience. What masters refuse.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            match timeout(LONGEST_SILENCE, stream.message()).await {
                Ok(Ok(Some(event))) => {
                    self.failing = None;
                    if let Some(event) = self.place.take(event)? {
                        return Ok(event);
                    }
                }
                Ok(Ok(None)) => self.lost("the master ended the watch".into()).await?,
                Ok(Err(status)) => match classify(status) {
                    Outcome::Final(error) => {
                        self.stream = None;
                        return Err(error);
                    }
                    Outcome::Later(error) => self.lost(error.message).await?,
                    Outcome::NotSent(text) | Outcome::Broken(text) => self.lost(text).await?,
                },
                Err(_) => self.lost("silent for too long".into()).await?,
            }
        }
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let master = self.client.pool.get(self.next_master);
        let request = v1::WatchRequest { revision: self.place.complete, ..self.request.clone() };
        let mut objects =
            ObjectsClient::new(master.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let (reached, problem) =
            match timeout(OPEN_TIMEOUT, objects.watch(Request::new(request))).await {
                Ok(Ok(response)) => {
                    self.stream = Some(response.into_inner());
                    self.pause = Duration::from_millis(25);
                    return Ok(());
                }
                Ok(Err(status)) => match classify(status) {
                    Outcome::Final(error) => return Err(error),
                    Outcome::Later(error) => (true, error.message),
                    Outcome::NotSent(problem) => (false, problem),
                    Outcome::Broken(problem) => (true, problem),
                },
                Err(_) => (true, "no answer in time".into()),
            };
        self.move_on(reached, problem).await
    }

    async fn lost(&mut self, problem: String) -> Result<(), ClientError> {
        self.stream = None;
        tracing::debug!(%problem, revision = self.place.complete, "watch moves to another master");
        self.move_on(true, problem).await
    }

    /// Turns to the next master; pauses when all have been tried.
    async fn move_on(&mut self, reached: bool, problem: String) -> Result<(), ClientError> {
        let pool = &self.client.pool;
        let index = self.next_master % pool.len();
        let endpoint = pool.get(index).url.clone();
        self.problems[index] = Some(Attempt { endpoint, reached, problem });
        self.next_master = (index + 1) % pool.len();
        let since = *self.failing.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience {
            let tried = self.problems.iter().flatten().cloned().collect();
            return Err(nobody("watch", tried, None));
        }
        let pause = jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        sleep(pause).await;
        Ok(())
    }
}

impl Place {
    /// Takes an event in; `None` when it was seen before.
    fn take(&mut self, event: v1::WatchEvent) -> Result<Option<Event>, ClientError> {
        use v1::watch_event::Type;
        let kind = event.r#type();
        if kind == Type::Bookmark {
            self.initial = false;
            self.finish(event.revision);
            return Ok(Some(Event::Bookmark(event.revision)));
        }
        let Some(object) = event.object else { return Ok(None) };
        let object = Object::decode(object)?;
        if !self.initial {
            if event.revision <= self.complete {
                return Ok(None);
            }
            if event.revision > self.partial {
                self.finish(event.revision - 1);
                self.partial = event.revision;
            }
            let key = (object.kind.clone(), object.namespace.clone(), object.name.clone());
            if !self.seen.insert(key) {
                return Ok(None);
            }
        }
        Ok(match kind {
            Type::Added => Some(Event::Added(object)),
            Type::Modified => Some(Event::Modified(object)),
            Type::Deleted => Some(Event::Deleted(object)),
            Type::Unspecified | Type::Bookmark => None,
        })
    }

    fn finish(&mut self, revision: u64) {
        if revision > self.complete {
            self.complete = revision;
            self.seen.clear();
        }
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
