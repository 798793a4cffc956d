//! Events: what happened to objects, for people.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use quorate_objects::{kinds, time};
use quorate_store::Term;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::RegistryError;
use crate::object::Object;
use crate::options::{DeleteOptions, Write, WriteOptions};
use crate::registry::Registry;

/// Events waiting to be written; more are dropped.
const QUEUE: usize = 1024;
/// Events whose repetition is recognised.
const KNOWN: usize = 4096;
/// Events taken from the queue at once.
const BATCH: usize = 128;
/// Events removed in one call of [`Registry::expire_events`].
const EXPIRE_AT_ONCE: usize = 500;
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// More events of one object for one reason than this, with different messages, are combined into
/// one that counts them and shows the last.
const SIMILAR: usize = 10;
/// Within this time.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// How such an event's message begins (kubectl's users know it).
const COMBINED: &str = "(combined from similar events): ";
/// Normal events written in a second, when there are many for long: a thousand pods that start at
/// once would cost as many writes as the pods themselves. Warnings are always written.
const NORMAL_PER_SECOND: u32 = 100;
/// Normal events written at once, after less busy times.
const NORMAL_BURST: u32 = 1_000;
/// Longer messages are cut.
const MESSAGE_MAX: usize = 1024;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Someone may have to look.
    Warning,
}

impl EventType {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// What it happened to: kind, apiVersion, namespace, name, uid.
    pub object: ObjectReference,
    /// How serious it is.
    pub event_type: EventType,
    /// In one word: `Scheduled`, `FailedScheduling`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// Who says so: `scheduler`, `deployment-controller`.
    pub component: String,
    /// On which node, when it is said on one.
    pub host: Option<String>,
    /// As in [`WriteOptions`].
    pub fence: Option<Term>,
}

impl EventRecord {
    /// About an object.
    pub fn about(
        object: &Object,
        event_type: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
        component: impl Into<String>,
        fence: Option<Term>,
    ) -> Self {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let object = ObjectReference {
            api_version: Some(object.kind.api_version()),
            kind: Some(object.kind.kind.to_owned()),
            namespace: text(object.namespace()),
            name: text(object.name()),
            uid: text(object.uid()),
            ..ObjectReference::default()
        };
        Self {
            object,
            event_type,
            reason: reason.into(),
            message: message.into(),
            component: component.into(),
            host: None,
            fence,
        }
    }
}

/// Takes events and returns at once.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<EventRecord>,
    dropped: Arc<AtomicU64>,
}

impl EventRecorder {
    pub(crate) fn new() -> (Self, mpsc::Receiver<EventRecord>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, dropped: Arc::default() }, receiver)
    }

    /// Records an event, when there is room. The second half of the queue is for warnings.
    pub fn record(&self, record: EventRecord) {
        let normal = record.event_type == EventType::Normal;
        if (normal && self.queue.capacity() < QUEUE / 2) || self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events found no room, or were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What makes two events the same.
type Sameness = (String, String, String, String, String, String, &'static str);

fn sameness(record: &EventRecord) -> Sameness {
    let object = &record.object;
    (
        object.kind.clone().unwrap_or_default(),
        namespace_of(record).to_owned(),
        format!(
            "{}/{}",
            object.name.as_deref().unwrap_or_default(),
            object.uid.as_deref().unwrap_or_default()
        ),
        record.reason.clone(),
        record.message.clone(),
        record.component.clone(),
        record.event_type.as_str(),
    )
}

/// Events about one object for one reason, told apart by their messages.
struct Similar {
    since: Instant,
    messages: HashSet<String>,
}

/// Recognises floods: a workload that makes a thousand pods says so in a few events.
#[derive(Default)]
struct Combiner {
    groups: HashMap<Sameness, Similar>,
}

impl Combiner {
    /// The event as it is to be written, and what makes it the same as others.
    fn combine(&mut self, mut record: EventRecord, now: Instant) -> (Sameness, EventRecord) {
        let same = sameness(&record);
        let mut group = same.clone();
        group.4.clear();
        if self.groups.len() >= KNOWN {
            self.groups.clear();
        }
        let fresh = || Similar { since: now, messages: HashSet::new() };
        let similar = self.groups.entry(group.clone()).or_insert_with(fresh);
        if now.saturating_duration_since(similar.since) >= SIMILAR_WINDOW {
            *similar = fresh();
        }
        if similar.messages.len() < SIMILAR || similar.messages.contains(&record.message) {
            similar.messages.insert(record.message.clone());
            return (same, record);
        }
        record.message.insert_str(0, COMBINED);
        COMBINED.clone_into(&mut group.4);
        (group, record)
    }
}

/// How many normal events may be written now.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: f64::from(NORMAL_BURST), at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let grown = now.saturating_duration_since(self.at).as_secs_f64();
        self.left += grown * f64::from(NORMAL_PER_SECOND);
        self.left = self.left.min(f64::from(NORMAL_BURST));
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// Events about objects without a namespace are in `default`.
fn namespace_of(record: &EventRecord) -> &str {
    record.object.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or("default")
}

/// Writes what the queue holds until cancelled.
pub(crate) async fn run(
    registry: Registry,
    mut queue: mpsc::Receiver<EventRecord>,
    cancel: CancellationToken,
) {
    let mut known: HashMap<Sameness, String> = HashMap::new();
    let mut combiner = Combiner::default();
    let mut budget = Budget::new(Instant::now());
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let taken = tokio::select! {
            () = cancel.cancelled() => return,
            taken = queue.recv_many(&mut batch, BATCH) => taken,
        };
        if taken == 0 {
            return;
        }
        let now = Instant::now();
        // Repetitions within the batch cost one write together.
        let mut counts: HashMap<Sameness, (EventRecord, i32)> = HashMap::new();
        for record in batch.drain(..) {
            if record.event_type == EventType::Normal && !budget.take(now) {
                registry.events().dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (same, record) = combiner.combine(record, now);
            let (last, count) = counts.entry(same).or_insert_with(|| (record.clone(), 0));
            *last = record;
            *count += 1;
        }
        if known.len() + counts.len() > KNOWN {
            known.clear();
        }
        let writes = counts.into_iter().map(|(same, (record, count))| {
            let (before, registry) = (known.get(&same).cloned(), &registry);
            async move {
                let reason = record.reason.clone();
                (same, reason, write(registry, before, record, count).await)
            }
        });
        let results = tokio::select! {
            () = cancel.cancelled() => return,
            results = join_all(writes) => results,
        };
        for (same, reason, result) in results {
            match result {
                Ok(name) => {
                    known.insert(same, name);
                }
                Err(error) => tracing::debug!(%error, reason, "an event was not written"),
            }
        }
    }
}

/// Counts up the event that is there, or creates one; returns its name.
async fn write(
    registry: &Registry,
    known: Option<String>,
    record: EventRecord,
    count: i32,
) -> Result<String, RegistryError> {
    let options = WriteOptions { fence: record.fence, ..WriteOptions::default() };
    let namespace = namespace_of(&record);
    if let Some(name) = &known {
        let counted = registry
            .modify::<Event>(&kinds::EVENT, namespace, name, &options, |event| {
                event.count = Some(event.count.unwrap_or(1).saturating_add(count));
                event.last_timestamp = Some(time::now());
                event.message = Some(cut(&record.message));
                true
            })
            .await;
        match counted {
            // It has expired: begin a new one.
            Err(error) if error.is_not_found() => {}
            other => return other.map(|object| object.name().to_owned()),
        }
    }
    let event = new_event(namespace, &record, count);
    registry.create_typed(&event, &options).await.map(|object| object.name().to_owned())
}

fn cut(message: &str) -> String {
    let end = (0..=MESSAGE_MAX.min(message.len())).rev();
    let end = end.into_iter().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    message[..end].to_owned()
}

fn new_event(namespace: &str, record: &EventRecord, count: i32) -> Event {
    let name = record.object.name.as_deref().unwrap_or("unknown");
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}.")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: record.object.clone(),
        reason: Some(record.reason.clone()),
        message: Some(cut(&record.message)),
        type_: Some(record.event_type.as_str().to_owned()),
        count: Some(count),
        first_timestamp: Some(time::now()),
        last_timestamp: Some(time::now()),
        source: Some(EventSource {
            component: Some(record.component.clone()),
            host: record.host.clone(),
        }),
        reporting_component: Some(record.component.clone()),
        reporting_instance: record.host.clone(),
        ..Event::default()
    }
}

impl Registry {
    /// Removes events that have not happened for an hour, at most some hundreds in one call.
    /// Returns how many.
    pub async fn expire_events(&self, now: Timestamp, fence: Option<Term>) -> usize {
        let events = self.inner.cache.list(&kinds::EVENT, None);
        let old = events.into_iter().filter(|object| {
            let last = object.typed::<Event>().ok().and_then(|event| {
                event.last_timestamp.as_ref().map(|time| time.0).or(event
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0))
            });
            last.is_some_and(|last| now.duration_since(last) >= LIFETIME)
        });
        // In order of age the oldest would go first; all of them go within a few calls.
        let writes: BTreeMap<_, _> =
            old.take(EXPIRE_AT_ONCE).map(|object| (object.revision, object)).collect();
        let writes = writes.into_values().map(|object| Write::Delete {
            kind: &kinds::EVENT,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            options: DeleteOptions { revision: Some(object.revision), ..DeleteOptions::default() },
        });
        let results = self.write_batch(writes.collect(), fence).await;
        results.iter().filter(|result| result.is_ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_events_have_a_budget_that_grows_again() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let taken = |budget: &mut Budget, at| (0..5_000).filter(|_| budget.take(at)).count();
        assert_eq!(taken(&mut budget, start), NORMAL_BURST as usize);
        let later = start + Duration::from_secs(2);
        assert_eq!(taken(&mut budget, later), 2 * NORMAL_PER_SECOND as usize);
        assert_eq!(taken(&mut budget, later + Duration::from_secs(60)), NORMAL_BURST as usize);
    }

    fn created(pod: usize) -> EventRecord {
        EventRecord {
            object: ObjectReference { name: Some("web".into()), ..ObjectReference::default() },
            event_type: EventType::Normal,
            reason: "SuccessfulCreate".into(),
            message: format!("Created pod: web-{pod}"),
            component: "replicaset-controller".into(),
            host: None,
            fence: None,
        }
    }

    #[test]
    fn a_flood_becomes_a_few_events() {
        let (mut combiner, start) = (Combiner::default(), Instant::now());
        let mut different = HashSet::new();
        for pod in 0..1000 {
            let (same, record) = combiner.combine(created(pod), start);
            assert_eq!(record.message.starts_with(COMBINED), pod >= SIMILAR);
            different.insert(same);
        }
        assert_eq!(different.len(), SIMILAR + 1);
        let (_, known) = combiner.combine(created(3), start);
        assert_eq!(known.message, "Created pod: web-3", "a repetition is none of the flood");
        let (_, later) = combiner.combine(created(2000), start + SIMILAR_WINDOW);
        assert_eq!(later.message, "Created pod: web-2000");
    }
}
