//! Clients that write and watch all the time, and note when each write is acknowledged and seen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bound;
use super::system::System;
use crate::etcd::{Ended, Etcd, put_of, text};
use crate::history::{Clock, Nanos};

/// Writers and watchers; each begins at another server.
const CLIENTS: usize = 3;
/// Pause of a writer between two writes.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a client waits for an answer before it turns to the next server.
const PATIENCE: Duration = Duration::from_millis(150);
const PREFIX: &str = "failover/";

/// A write: when it was sent, and when it ended.
#[derive(Clone, Debug)]
struct Write {
    sent: Nanos,
    ended: Nanos,
    /// Why it was not acknowledged.
    failure: Option<String>,
}

impl Write {
    fn acknowledged(&self) -> bool {
        self.failure.is_none()
    }
}

/// What clients have noted. Times of sending are the writes' values, so that a watcher knows
/// them.
#[derive(Debug, Default)]
pub(super) struct Notes {
    writes: Vec<Write>,
    /// Sent and seen.
    events: Vec<(Nanos, Nanos)>,
    /// Created and bound.
    pub(super) bound: Vec<(Nanos, Nanos)>,
}

/// Delays from a moment on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) write: Nanos,
    pub(super) event: Nanos,
    pub(super) bound: Option<Nanos>,
}

pub(super) type Shared = Arc<Mutex<Notes>>;

pub(super) fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    // Entries are pushed whole: a panic elsewhere leaves no half of one.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Running clients.
#[derive(Debug)]
pub(super) struct Probe {
    clock: Clock,
    notes: Shared,
    pods: bool,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Probe {
    pub(super) async fn start(system: &System) -> Result<Self> {
        let clock = Clock::start();
        let notes = Shared::default();
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let urls = system.urls()?;
        for number in 0..CLIENTS {
            let client = Etcd::new(&urls, number, PATIENCE)?;
            // Tasks "writer" and "watcher": they end when cancelled; failures are what is measured.
            let writer = write(client.clone(), number, clock, Arc::clone(&notes), cancel.clone());
            tasks.spawn(writer);
            tasks.spawn(watch(client, clock, Arc::clone(&notes), cancel.clone()));
        }
        let pods = system.pods();
        if let Some(target) = pods {
            bound::start(target, clock, &notes, &cancel, &mut tasks)?;
        }
        Ok(Self { clock, notes, pods: pods.is_some(), cancel, tasks })
    }

    /// The moment from which on is measured; what was noted before is forgotten.
    pub(super) fn begin(&self) -> Nanos {
        let mut notes = lock(&self.notes);
        let keep = notes.writes.len().saturating_sub(50);
        notes.writes.drain(..keep);
        notes.events.clear();
        notes.bound.clear();
        self.clock.now()
    }

    /// The delays, once all of them are known. Only what was begun after `moment` counts.
    pub(super) fn seen(&self, moment: Nanos) -> Option<Seen> {
        let notes = lock(&self.notes);
        let first = |pairs: &[(Nanos, Nanos)]| {
            let later = pairs.iter().filter(|(sent, _)| *sent >= moment);
            later.map(|(_, seen)| seen - moment).min()
        };
        let writes = notes.writes.iter().filter(|w| w.acknowledged() && w.sent >= moment);
        Some(Seen {
            write: writes.map(|write| write.ended - moment).min()?,
            event: first(&notes.events)?,
            bound: if self.pods { Some(first(&notes.bound)?) } else { None },
        })
    }

    /// The longest time without an acknowledgement around `moment`, and why writes that were on
    /// their way then or sent later were not acknowledged, with the milliseconds that they took.
    pub(super) fn aftermath(&self, moment: Nanos) -> (Nanos, Vec<String>) {
        let notes = lock(&self.notes);
        let mut acknowledged: Vec<Nanos> =
            notes.writes.iter().filter(|w| w.acknowledged()).map(|w| w.ended).collect();
        acknowledged.sort_unstable();
        let before = acknowledged.partition_point(|ended| *ended < moment).saturating_sub(1);
        let gaps = acknowledged[before..].windows(2).map(|pair| pair[1] - pair[0]);
        let failed = notes.writes.iter().filter(|w| w.ended >= moment).filter_map(|write| {
            let took = (write.ended - write.sent) / 1_000_000;
            Some(format!("{} ({took} ms)", write.failure.as_ref()?))
        });
        (gaps.max().unwrap_or(0), failed.collect())
    }

    pub(super) async fn stop(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn write(
    mut client: Etcd,
    number: usize,
    clock: Clock,
    notes: Shared,
    cancel: CancellationToken,
) {
    let key = format!("{PREFIX}{number}");
    while !cancel.is_cancelled() {
        let sent = clock.now();
        let failure = match client.put(&key, &sent.to_string()).await {
            Ended::Done(_) => None,
            Ended::Refused(reason) => Some(format!("refused: {reason}")),
            Ended::Unknown(reason) => Some(format!("unknown: {reason}")),
        };
        lock(&notes).writes.push(Write { sent, ended: clock.now(), failure });
        sleep(PAUSE).await;
    }
}

async fn watch(mut client: Etcd, clock: Clock, notes: Shared, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let Ok(mut stream) = client.watch(PREFIX, 0).await else {
            sleep(PAUSE).await;
            continue;
        };
        while let Some(Ok(response)) = cancel.run_until_cancelled(stream.next()).await {
            let seen = clock.now();
            let puts = response.events.iter().filter_map(put_of);
            let sent = puts.filter_map(|kv| text(&kv.value).parse().ok());
            lock(&notes).events.extend(sent.map(|sent| (sent, seen)));
        }
        client.move_on();
    }
}
