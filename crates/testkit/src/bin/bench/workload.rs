//! What the clients do, and how long that takes.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{self, KEY_SPACE, Kv};

/// Connections that many clients share, as programs with many tasks do.
const CONNECTIONS: usize = 12;
/// Not measured, at the beginning of each load.
const WARM_UP: Duration = Duration::from_millis(500);
/// Puts that watchers wait for.
const WATCHED_PUTS: u64 = 60;
/// Pause between them: each is seen by all before the next.
const WATCH_PAUSE: Duration = Duration::from_millis(40);
/// Streams over which the watchers are spread.
const WATCH_STREAMS: usize = 10;
/// Operations in a transaction that fills the store.
const FILL_OPS: usize = 100;
/// Transactions on their way at once, while filling.
const FILL_TASKS: usize = 16;
/// Longest wait for a watcher's event.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Put,
    LinearizableGet,
    SerializableGet,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "puts",
            Self::LinearizableGet => "linearizable reads",
            Self::SerializableGet => "serializable reads",
        })
    }
}

/// Times of operations, in ascending order.
#[derive(Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
    /// Time from the first to the last, as far as it was measured.
    pub elapsed: Duration,
}

impl Latencies {
    fn new(mut all: Vec<Duration>, elapsed: Duration) -> Self {
        all.sort_unstable();
        Self { sorted: all, elapsed }
    }

    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    pub fn per_second(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// In milliseconds; `share` 0.5 is the median.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

async fn connections(urls: &[String], clients: usize) -> Result<Vec<Kv>> {
    let mut all = Vec::new();
    for url in urls.iter().cycle().take(clients.min(CONNECTIONS)) {
        all.push(Kv::new(client::connect(url).await?));
    }
    Ok(all)
}

async fn operate(kv: &mut Kv, workload: Workload, number: u64) -> Result<()> {
    match workload {
        Workload::Put => drop(kv.put(client::put(number)).await?),
        Workload::LinearizableGet => drop(kv.range(client::get(number, false)).await?),
        Workload::SerializableGet => drop(kv.range(client::get(number, true)).await?),
    }
    Ok(())
}

/// Runs a load; the warm-up counts neither in the times nor in the number.
///
/// The processor time of the servers is measured by the caller over all of it, so the number of
/// all operations, warm-up included, is returned too.
pub async fn run(
    urls: &[String],
    workload: Workload,
    clients: usize,
    time: Duration,
) -> Result<Done> {
    let connections = connections(urls, clients).await?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let mut tasks: JoinSet<Result<(Vec<Duration>, usize)>> = JoinSet::new();
    for (number, kv) in connections.iter().cycle().take(clients).enumerate() {
        let mut kv = kv.clone();
        // Task "bench client": its failure is the run's.
        tasks.spawn(async move {
            let (mut times, mut all) = (Vec::new(), 0);
            let mut random = Random(number as u64 + 1);
            while Instant::now() < end {
                let sent = Instant::now();
                operate(&mut kv, workload, random.below(KEY_SPACE)).await?;
                all += 1;
                if sent >= begin {
                    times.push(sent.elapsed());
                }
            }
            Ok((times, all))
        });
    }
    let (mut times, mut all) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (some, count) = done??;
        times.extend(some);
        all += count;
    }
    let elapsed = begin.elapsed();
    ensure!(!times.is_empty(), "no {workload} were answered");
    Ok(Done { latencies: Latencies::new(times, elapsed), all })
}

/// What a load came to.
#[derive(Debug)]
pub struct Done {
    pub latencies: Latencies,
    /// Operations, those of the warm-up included.
    pub all: usize,
}

impl Done {
    pub fn per_second(&self) -> f64 {
        self.latencies.per_second()
    }
}

/// xorshift64*: good enough to spread keys, and the same for both systems.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

/// What many watchers of one key came to.
#[derive(Debug)]
pub struct Watched {
    /// From sending a put to the event at each of them.
    pub delays: Latencies,
    /// What the servers take more memory than before, in MB.
    pub more_mb: f64,
}

/// Watches one key many times, in streams that are spread over `urls`, and puts it.
pub async fn watch(
    urls: &[String],
    watchers: usize,
    resident_mb: impl Fn() -> f64,
) -> Result<Watched> {
    let before = resident_mb();
    let streams = WATCH_STREAMS.min(watchers);
    let (seen, mut events) = mpsc::channel(watchers.max(1) * 4);
    let mut tasks = JoinSet::new();
    for (number, url) in urls.iter().cycle().take(streams).enumerate() {
        let share = watchers / streams + usize::from(number < watchers % streams);
        let seen = seen.clone();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        // Task "bench watcher": when it fails, events are missing, and the wait for them ends.
        tasks.spawn(watch_stream(url.clone(), share, ready, seen));
        let created = tokio::time::timeout(PATIENCE, is_ready).await;
        created.context("watches are not created")?.context("a watch was refused")?;
    }
    drop(seen);
    let mut kv = Kv::new(client::connect(&urls[0]).await?);
    let begun = Instant::now();
    let mut delays = Vec::new();
    for _ in 0..WATCHED_PUTS {
        let sent = Instant::now();
        kv.put(client::put(0)).await?;
        for _ in 0..watchers {
            let arrived: Instant = tokio::time::timeout(PATIENCE, events.recv())
                .await
                .context("an event did not reach all watchers")?
                .context("the watches ended")?;
            delays.push(arrived - sent);
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
    let more_mb = resident_mb() - before;
    tasks.shutdown().await;
    Ok(Watched { delays: Latencies::new(delays, begun.elapsed()), more_mb })
}

async fn watch_stream(
    url: String,
    watches: usize,
    ready: tokio::sync::oneshot::Sender<()>,
    seen: mpsc::Sender<Instant>,
) -> Result<()> {
    let mut client = client::connect_watch(&url).await?;
    let (requests, stream) = mpsc::channel(watches.max(1));
    // All of them first: etcd sends no headers before it has something to say.
    for _ in 0..watches {
        let create = pb::WatchCreateRequest { key: client::key(0).into(), ..Default::default() };
        let union = Some(RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union: union }).await?;
    }
    let mut responses = client.watch(ReceiverStream::new(stream)).await?.into_inner();
    for _ in 0..watches {
        let created = responses.message().await?.context("the stream ended")?;
        ensure!(created.created && !created.canceled, "{created:?}");
    }
    // The receiver waits for it; when it does not, the run is over.
    let _ = ready.send(());
    while let Some(response) = responses.message().await? {
        let now = Instant::now();
        for _ in &response.events {
            if seen.send(now).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes `keys` keys in transactions.
pub async fn fill(urls: &[String], keys: usize) -> Result<()> {
    let connections = connections(urls, FILL_TASKS).await?;
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let chunk = keys.div_ceil(FILL_TASKS);
    for (number, kv) in connections.iter().cycle().take(FILL_TASKS).enumerate() {
        let mut kv = kv.clone();
        let (from, to) = (number * chunk, ((number + 1) * chunk).min(keys));
        // Task "bench fill": its failure is the run's.
        tasks.spawn(async move {
            let mut next = from;
            while next < to {
                let until = (next + FILL_OPS).min(to);
                // Beside the keys that the loads work on.
                let ops = (next..until).map(|n| client::put(KEY_SPACE + n as u64));
                let success = ops
                    .map(|put| pb::RequestOp {
                        request: Some(pb::request_op::Request::RequestPut(put)),
                    })
                    .collect();
                kv.txn(pb::TxnRequest { success, ..Default::default() }).await?;
                next = until;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
