//! The loop: from the cache's changes to bindings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_objects::{Kind, Selector, kinds, pod};
use quorate_registry::{EventKind, ObjectEvent, ObjectWatcher, Registry, RegistryError};
use quorate_store::Term;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bind::{self, Attempt, Verdict};
use crate::decide::{Outcome, decide_needs};
use crate::queue::Queue;
use crate::snapshot::{ClusterSnapshot, PodKey};

/// Between attempts to follow the cache again after an interruption.
const RETRY: Duration = Duration::from_millis(100);
/// Events taken in before the next pods are decided about.
const EVENTS_AT_ONCE: usize = 1024;

/// Settings of the scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Pods with another `spec.schedulerName` are left alone.
    pub name: String,
    /// Decides ties.
    pub seed: u64,
    /// Pods decided about and committed together.
    pub batch: usize,
    /// Batches being committed at the same time.
    pub batches_in_flight: usize,
    /// First wait of a pod that fitted nowhere or whose binding failed; doubles.
    pub back_off_first: Duration,
    /// Longest wait.
    pub back_off_longest: Duration,
    /// Pods that fitted nowhere are tried again this often, whatever events say.
    pub full_pass: Duration,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            seed: 0,
            batch: 128,
            batches_in_flight: 4,
            back_off_first: Duration::from_secs(1),
            back_off_longest: Duration::from_secs(10),
            full_pass: Duration::from_secs(30),
        }
    }
}

/// Schedules until cancelled, or until the term is over.
pub async fn run(
    registry: Registry,
    term: Term,
    options: SchedulerOptions,
    cancel: CancellationToken,
) {
    loop {
        // A new snapshot after an interruption: nothing of the old one can be trusted then.
        let mut scheduler = Scheduler::new(registry.clone(), term, options.clone());
        let end = tokio::select! {
            () = cancel.cancelled() => return,
            end = scheduler.follow() => end,
        };
        match end {
            End::Fenced => {
                tracing::info!(term, "the term is over, the scheduler ends");
                return;
            }
            End::Interrupted(error) => {
                tracing::warn!("the scheduler's watch was interrupted, it begins anew: {error}");
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

enum End {
    Fenced,
    Interrupted(RegistryError),
}

struct Scheduler {
    registry: Registry,
    term: Term,
    options: SchedulerOptions,
    snapshot: ClusterSnapshot,
    queue: Queue,
    verdicts: mpsc::Receiver<Vec<(PodKey, Verdict)>>,
    report: mpsc::Sender<Vec<(PodKey, Verdict)>>,
    in_flight: usize,
}

impl Scheduler {
    fn new(registry: Registry, term: Term, options: SchedulerOptions) -> Self {
        let (report, verdicts) = mpsc::channel(options.batches_in_flight.max(1));
        let queue = Queue::new(options.back_off_first, options.back_off_longest);
        let snapshot = ClusterSnapshot::new(options.seed);
        Self { registry, term, options, snapshot, queue, verdicts, report, in_flight: 0 }
    }

    async fn follow(&mut self) -> End {
        let watch =
            |kind: &'static Kind| self.registry.watch(Some(kind), None, Selector::everything(), 0);
        let (mut nodes, mut pods) = match (watch(&kinds::NODE), watch(&kinds::POD)) {
            (Ok(nodes), Ok(pods)) => (nodes, pods),
            (Err(error), _) | (_, Err(error)) => return End::Interrupted(error),
        };
        // Everything placed must be known before anything is placed.
        for watcher in [&mut nodes, &mut pods] {
            if let Err(error) = self.read_list(watcher).await {
                return End::Interrupted(error);
            }
        }
        let mut passes = tokio::time::interval(self.options.full_pass);
        loop {
            self.queue.tick(Instant::now());
            self.schedule();
            let due = self.queue.next_due().map(tokio::time::Instant::from_std);
            let event = tokio::select! {
                event = nodes.next() => event,
                event = pods.next() => event,
                Some(verdicts) = self.verdicts.recv() => {
                    if !self.settle(verdicts) {
                        return End::Fenced;
                    }
                    continue;
                }
                _ = passes.tick() => {
                    self.queue.wake(Instant::now());
                    continue;
                }
                () = sleep_until(due) => continue,
            };
            let taken = event.and_then(|event| {
                self.observe(&event);
                self.drain(&mut nodes)?;
                self.drain(&mut pods)
            });
            if let Err(error) = taken {
                return End::Interrupted(error);
            }
        }
    }

    async fn read_list(&mut self, watcher: &mut ObjectWatcher) -> Result<(), RegistryError> {
        loop {
            let event = watcher.next().await?;
            if event.kind == EventKind::Bookmark {
                return Ok(());
            }
            self.observe(&event);
        }
    }

    /// Takes in what is there already, so that decisions are made on what is newest.
    fn drain(&mut self, watcher: &mut ObjectWatcher) -> Result<(), RegistryError> {
        for _ in 0..EVENTS_AT_ONCE {
            match watcher.next().now_or_never() {
                Some(event) => self.observe(&event?),
                None => break,
            }
        }
        Ok(())
    }

    fn observe(&mut self, event: &ObjectEvent) {
        let Some(object) = &event.object else { return };
        let deleted = event.kind == EventKind::Deleted;
        let better = if *object.kind == kinds::NODE {
            match object.typed::<Node>() {
                Ok(_) if deleted => {
                    self.snapshot.remove_node(object.name());
                    false
                }
                Ok(node) => self.snapshot.set_node(&node),
                Err(error) => return unreadable(&error),
            }
        } else {
            match object.typed::<Pod>() {
                Ok(pod) => self.observe_pod(pod, object.revision, deleted),
                Err(error) => return unreadable(&error),
            }
        };
        if better {
            self.queue.wake(Instant::now());
        }
    }

    /// Says whether room has become free.
    fn observe_pod(&mut self, object: Arc<Pod>, revision: u64, deleted: bool) -> bool {
        let key = PodKey::of(&object);
        if deleted {
            self.queue.remove(&key);
            return self.snapshot.remove_pod(&key);
        }
        if pod::node_name(&object).is_some() || !self.is_ours(&object) {
            self.queue.remove(&key);
        } else {
            self.queue.upsert(Arc::clone(&object), revision);
        }
        self.snapshot.set_pod(&object)
    }

    fn is_ours(&self, object: &Pod) -> bool {
        let name = object.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
        let gates = object.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref());
        name.is_none_or(|name| name.is_empty() || name == self.options.name)
            && gates.unwrap_or_default().is_empty()
            && pod::is_active(object)
    }

    /// Decides about waiting pods, and hands the decisions to tasks that commit them.
    fn schedule(&mut self) {
        while self.in_flight < self.options.batches_in_flight && self.queue.has_active() {
            let mut attempts = Vec::new();
            while attempts.len() < self.options.batch.max(1)
                && let Some((key, waiting)) = self.queue.pop()
            {
                // What an earlier attempt assumed, and whose fate was not known, counts no more.
                self.snapshot.forget(&key);
                let decision = decide_needs(&self.snapshot, &key, &waiting.needs);
                if let Outcome::Node(node) = &decision.outcome {
                    self.snapshot.assume(key.clone(), &waiting.needs, node);
                }
                let outcome = decision.outcome;
                attempts.push(Attempt {
                    key,
                    pod: waiting.pod,
                    revision: waiting.revision,
                    outcome,
                });
            }
            self.in_flight += 1;
            let commit = bind::commit(self.registry.clone(), self.term, attempts);
            let report = self.report.clone();
            // Task "scheduler batch": ends by the registry's time limit at the latest. Should it
            // panic, its pods stay in flight until the scheduler begins anew, so say so loudly.
            let task = tokio::spawn(commit);
            // Task "scheduler batch report": hands the result, or the loss of it, back.
            tokio::spawn(async move {
                let verdicts = task.await.unwrap_or_else(|error| {
                    tracing::error!("a batch of the scheduler has failed: {error}");
                    Vec::new()
                });
                // Nobody listens any more when the scheduler has ended.
                let _ = report.send(verdicts).await;
            });
        }
    }

    /// Takes in what came of a batch. Says whether the term goes on.
    fn settle(&mut self, verdicts: Vec<(PodKey, Verdict)>) -> bool {
        self.in_flight -= 1;
        let now = Instant::now();
        for (key, verdict) in verdicts {
            match verdict {
                // The cache will show it, and takes it out of the queue.
                Verdict::Bound => {}
                Verdict::Nowhere => self.queue.unschedulable(&key, now),
                Verdict::Gone => {
                    self.snapshot.forget(&key);
                    self.queue.remove(&key);
                }
                Verdict::Conflict => {
                    self.snapshot.forget(&key);
                    self.queue.failed(&key, now);
                }
                // It may be bound after all: it stays assumed until it is tried again.
                Verdict::Unknown => self.queue.failed(&key, now),
                Verdict::Fenced => return false,
            }
        }
        true
    }
}

fn unreadable(error: &RegistryError) {
    tracing::error!("an object in the cache cannot be read: {error}");
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
