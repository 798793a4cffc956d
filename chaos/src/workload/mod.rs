//! What clients do while the cluster is broken, and the book they keep of it.

mod lists;
mod locks;
mod pods;
mod registers;
mod sets;
mod transactions;
mod watchers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use quorate_client::{Client, ClientError, Code, DeleteOptions, ListOptions, WriteOptions};
use quorate_objects::{Kind, Typed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::etcd::{Ended, Etcd};
use crate::evidence::{Evidence, Guarded, Held, PodSighting, WatchLog, Write, Writes};
use crate::history::{Clock, History, Nanos, Operation};
use crate::linear::{
    ListInput, ListOutput, RegisterInput, RegisterOutput, SetInput, SetOutput, TransactionInput,
    TransactionOutput,
};
use crate::meter::{Kind as Counted, Meter};

pub(crate) use locks::LOCKS;
pub use pods::{WITH_CONTAINERS, deployment, job, service, stateful_set};

/// Label on every object of a run; its value is the kind of workload.
pub(crate) const LABEL: &str = "quorate.dev/chaos";
/// Keys of objects in the evidence begin with this.
pub(crate) const OBJECTS: &str = "object/";
/// Keys of transactions, by etcd's API, begin with this.
pub(crate) const TRANSACTIONS: &str = "transaction/";
/// Where the objects are.
pub(crate) const NAMESPACE: &str = "default";
/// Turns of all clients per object before they move on to fresh ones: histories of one key stay
/// short enough to be judged.
const TURNS_PER_KEY: u64 = 400;
/// Most turns of a window.
const TURNS_PER_WINDOW: u64 = 100_000 * KEYS;
/// Most values of a window.
const VALUES_PER_WINDOW: u64 = 1_000_000_000;
/// Deletions at a time when a window is over.
const DELETIONS: usize = 16;
/// Objects of a kind that are worked on at the same time.
const KEYS: u64 = 4;

/// What the clients have seen; shared by all of them.
#[derive(Debug)]
pub struct Book {
    /// The run's clock.
    pub clock: Clock,
    /// Throughput and latency.
    pub meter: Arc<Meter>,
    /// Which window of the run it is for.
    window: usize,
    held: Mutex<Vec<Held>>,
    guarded: Mutex<Vec<Guarded>>,
    next: AtomicU64,
    turns: AtomicU64,
    registers: History<RegisterInput, RegisterOutput>,
    sets: History<SetInput, SetOutput>,
    lists: History<ListInput, ListOutput>,
    transactions: History<TransactionInput, TransactionOutput>,
    writes: Mutex<Writes>,
    watches: Mutex<Vec<WatchLog>>,
    pods: Mutex<Vec<PodSighting>>,
    /// The newest revision that every watcher has seen something of, one entry each.
    reached: Mutex<Vec<u64>>,
}

impl Book {
    /// An empty one, for the n-th window of a run: keys and values of different windows differ,
    /// so that a late effect of an earlier one cannot be mistaken.
    #[must_use]
    pub fn new(clock: Clock, meter: Arc<Meter>, window: usize) -> Arc<Self> {
        Arc::new(Self {
            clock,
            meter,
            window,
            held: Mutex::default(),
            guarded: Mutex::default(),
            next: AtomicU64::new(window as u64 * VALUES_PER_WINDOW + 1),
            turns: AtomicU64::new(window as u64 * TURNS_PER_WINDOW),
            registers: History::default(),
            sets: History::default(),
            lists: History::default(),
            transactions: History::default(),
            writes: Mutex::default(),
            watches: Mutex::default(),
            pods: Mutex::default(),
            reached: Mutex::default(),
        })
    }

    /// A value that nobody else writes.
    fn value(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the key to work on now.
    fn turn(&self) -> u64 {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        turn / (TURNS_PER_KEY * KEYS) * KEYS + turn % KEYS
    }

    /// The key to work on now.
    fn key(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.turn())
    }

    /// Notes what became of a write of an object.
    fn note(&self, name: &str, value: Option<u64>, answer: &Answer<u64>) {
        self.note_key(&format!("{OBJECTS}{name}"), value, answer);
    }

    fn note_key(&self, key: &str, value: Option<u64>, answer: &Answer<u64>) {
        let write = |revision| Write { key: key.to_owned(), value, revision };
        let mut writes = lock(&self.writes);
        match answer {
            Answer::Done(revision) => writes.acknowledged.push(write(*revision)),
            Answer::Unknown => writes.unknown.push(write(0)),
            Answer::Conflict | Answer::Missing | Answer::Refused(_) => {
                writes.refused.push(write(0));
            }
        }
    }

    /// Least revision that all watchers have reached; `None` without watchers.
    #[must_use]
    pub fn watched(&self) -> Option<u64> {
        lock(&self.reached).iter().min().copied()
    }

    /// Writes one key and one object more, and returns the revision that every watcher must
    /// have seen in the end.
    ///
    /// # Errors
    /// When one is not acknowledged.
    pub async fn mark(&self, client: &Client, etcd: Option<Etcd>) -> Result<u64> {
        let mut first = None;
        if let Some(mut etcd) = etcd {
            let (key, value) = (format!("{TRANSACTIONS}marker"), self.value());
            let answer = match etcd.put(&key, &value.to_string()).await {
                Ended::Done(revision) => Answer::Done(u64::try_from(revision)?),
                Ended::Refused(text) => Answer::Refused(text),
                Ended::Unknown(_) => Answer::Unknown,
            };
            self.note_key(&key, Some(value), &answer);
            first = Some(acknowledged(answer)?);
        }
        let value = self.value();
        let name = format!("marker-{value}");
        let object = config_map(&name, "marker", value, None);
        let answer = Answer::of(client.create(&object, &WriteOptions::default()).await);
        let answer = match answer {
            Answer::Done(object) => Answer::Done(object.revision),
            Answer::Unknown => Answer::Unknown,
            other => Answer::Refused(format!("{other:?}")),
        };
        self.note(&name, Some(value), &answer);
        let last = acknowledged(answer)?;
        // Watchers of keys see nothing after the first, those of objects only the last.
        Ok(first.unwrap_or(last))
    }

    /// Reads what is there in the end.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn read_back(&self, client: &Client, etcd: Option<Etcd>) -> Result<()> {
        let options = ListOptions {
            namespace: NAMESPACE.to_owned(),
            labels: LABEL.to_owned(),
            ..ListOptions::default()
        };
        let list = client.list(config_map_kind(), &options).await?;
        let objects = list.items.iter().filter_map(|object| {
            let key = format!("{OBJECTS}{}", object.name);
            Some((key, (value_of(&object.value)?, object.revision)))
        });
        let mut kept: BTreeMap<_, _> = objects.collect();
        if let Some(mut etcd) = etcd {
            kept.extend(transactions::read_all(&mut etcd).await?);
        }
        lock(&self.writes).kept = Some(kept);
        Ok(())
    }

    /// Deletes everything that clients have made: the next window begins with nothing.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn clean_up(&self, client: &Client, etcd: Option<Etcd>) -> Result<()> {
        let options = ListOptions {
            namespace: NAMESPACE.to_owned(),
            labels: LABEL.to_owned(),
            ..ListOptions::default()
        };
        let list = client.list(config_map_kind(), &options).await?;
        let delete = async |name: String| {
            let options = DeleteOptions::default();
            let kind = config_map_kind();
            match client.delete(kind, NAMESPACE, &name, &options).await {
                Err(error) if !error.is_not_found() => {
                    Err(error).with_context(|| format!("deleting {name}"))
                }
                _ => Ok(()),
            }
        };
        let names = list.items.into_iter().map(|object| object.name);
        let mut deletions = futures::stream::iter(names.map(delete)).buffer_unordered(DELETIONS);
        while let Some(deleted) = deletions.next().await {
            deleted?;
        }
        if let Some(mut etcd) = etcd {
            for prefix in [TRANSACTIONS, locks::GUARDED] {
                transactions::delete_all(&mut etcd, prefix).await?;
            }
        }
        Ok(())
    }

    /// Moves everything into `evidence`.
    pub fn hand_over(&self, evidence: &mut Evidence) {
        evidence.registers = self.registers.take();
        evidence.sets = self.sets.take();
        evidence.lists = self.lists.take();
        evidence.transactions = self.transactions.take();
        evidence.writes = std::mem::take(&mut *lock(&self.writes));
        evidence.watches = std::mem::take(&mut *lock(&self.watches));
        evidence.pods = std::mem::take(&mut *lock(&self.pods));
        evidence.held = std::mem::take(&mut *lock(&self.held));
        evidence.guarded = std::mem::take(&mut *lock(&self.guarded));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Entries are pushed whole: a panic elsewhere leaves no half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn acknowledged(answer: Answer<u64>) -> Result<u64> {
    match answer {
        Answer::Done(revision) => Ok(revision),
        other => bail!("a write to a healthy cluster: {other:?}"),
    }
}

/// How a call ended, as far as a history is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer<T> {
    Done(T),
    /// A precondition did not hold, or the name is taken.
    Conflict,
    /// There is no such object.
    Missing,
    /// Definitely not carried out.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

impl<T> Answer<T> {
    fn of(result: Result<T, ClientError>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(error) if error.outcome_unknown() || error.code == Code::DeadlineExceeded => {
                Self::Unknown
            }
            Err(error) if error.is_conflict() || error.is_already_exists() => Self::Conflict,
            Err(error) if error.is_not_found() => Self::Missing,
            Err(error) => Self::Refused(error.message),
        }
    }

    fn counted(&self) -> Counted {
        match self {
            Self::Done(_) | Self::Conflict | Self::Missing => Counted::Answered,
            Self::Refused(_) => Counted::Refused,
            Self::Unknown => Counted::Unknown,
        }
    }
}

/// One client with its own endpoint order, its own dice, and the shared book.
struct Worker {
    number: u32,
    client: Client,
    etcd: Option<Etcd>,
    random: StdRng,
    book: Arc<Book>,
    pause: Duration,
}

impl Worker {
    /// Carries a call out and counts it.
    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> (Nanos, Nanos, Answer<T>) {
        let sent = self.book.clock.now();
        let answer = Answer::of(call.await);
        let answered = self.book.clock.now();
        self.book.meter.count(sent, answered, answer.counted());
        (sent, answered, answer)
    }

    fn push<I, O>(
        &self,
        history: &History<I, O>,
        (sent, answered): (Nanos, Nanos),
        input: I,
        output: Option<O>,
    ) {
        let answered = output.is_some().then_some(answered);
        history.push(Operation { client: self.number, sent, answered, input, output });
    }
}

fn config_map(name: &str, workload: &str, value: u64, elements: Option<String>) -> Value {
    let mut data = json!({"value": value.to_string()});
    if let Some(elements) = elements {
        data["elements"] = elements.into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: workload}},
        "data": data,
    })
}

fn config_map_kind() -> &'static Kind {
    <ConfigMap as Typed>::kind()
}

fn value_of(object: &Value) -> Option<u64> {
    object.pointer("/data/value")?.as_str()?.parse().ok()
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients that work on objects.
    pub clients: u32,
    /// Watchers of objects.
    pub watchers: u32,
    /// Pause of a client between two calls.
    pub pause: Duration,
    /// Watch pods too?
    pub pods: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { clients: 9, watchers: 3, pause: Duration::from_millis(10), pods: false }
    }
}

/// Running clients and watchers.
#[derive(Debug)]
pub struct Running {
    clients: Group,
    watchers: Group,
}

#[derive(Debug, Default)]
struct Group {
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Group {
    async fn stop(&mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Running {
    /// Starts clients; `client` makes the n-th, `etcd` the n-th of etcd's API, where there is one.
    ///
    /// # Errors
    /// When a client cannot be made, or the watchers find nobody to ask where to begin.
    pub async fn start(
        load: Load,
        seed: u64,
        book: &Arc<Book>,
        client: impl Fn(u32) -> Result<Client>,
        etcd: impl Fn(u32) -> Result<Option<Etcd>>,
    ) -> Result<Self> {
        let (mut clients, mut watchers) = (Group::default(), Group::default());
        let revision = client(0)?.list(config_map_kind(), &ListOptions::default()).await?.revision;
        for number in 0..load.watchers {
            let cancel = watchers.cancel.clone();
            // Tasks "watcher": they end when cancelled.
            let watcher =
                watchers::run(number, client(number)?, revision, Arc::clone(book), cancel);
            watchers.tasks.spawn(watcher);
            if let Some(etcd) = etcd(number)? {
                let (book, cancel) = (Arc::clone(book), watchers.cancel.clone());
                watchers.tasks.spawn(watchers::run_etcd(number, etcd, revision, book, cancel));
            }
        }
        if load.pods {
            let (book, cancel) = (Arc::clone(book), watchers.cancel.clone());
            // Task "pod watcher": the same.
            watchers.tasks.spawn(pods::watch(client(1)?, book, cancel));
        }
        for number in 0..load.clients {
            let worker = Worker {
                number,
                client: client(number)?,
                etcd: etcd(number)?,
                random: StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + u64::from(number)),
                book: Arc::clone(book),
                pause: load.pause,
            };
            // Tasks "client": they record every failure, and end when cancelled.
            clients.tasks.spawn(work(worker, clients.cancel.clone()));
        }
        Ok(Self { clients, watchers })
    }

    /// Stops the clients; calls on their way are waited for, so that their outcome is known.
    pub async fn stop_clients(&mut self) {
        self.clients.stop().await;
    }

    /// Stops the watchers too.
    pub async fn stop(mut self) {
        self.clients.stop().await;
        self.watchers.stop().await;
    }
}

async fn work(mut worker: Worker, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        match worker.number % 3 {
            0 => sets::step(&mut worker).await,
            1 if worker.random.random_bool(0.4) => lists::step(&mut worker).await,
            2 if worker.random.random_bool(0.5) => transactions::step(&mut worker).await,
            2 if worker.random.random_bool(0.1) => locks::step(&mut worker).await,
            _ => registers::step(&mut worker).await,
        }
        tokio::time::sleep(worker.pause).await;
    }
}
