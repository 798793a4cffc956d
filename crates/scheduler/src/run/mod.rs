//! The loop: from the cache's changes to bindings.

mod observe;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::select_all;
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{Kind, Selector, kinds, pod};
use quorate_registry::{EventKind, ObjectWatcher, Registry, RegistryError};
use quorate_store::Term;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::observe::Seen;
use crate::bind::{self, Attempt, Settled, Verdict};
use crate::claims;
use crate::decide::{Decision, Outcome, Policy, decide_class};
use crate::filter::{self, NodeView};
use crate::preempt::Preemption;
use crate::queue::{Queue, Waiting};
use crate::snapshot::{ClusterSnapshot, PodKey};
use crate::trace::{ExplainError, Explainer, Question};

/// Between attempts to follow the cache again after an interruption.
const RETRY: Duration = Duration::from_millis(100);
/// Events of one kind taken in before the next pods are decided about.
const EVENTS_AT_ONCE: usize = 1024;

/// Settings of the scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Pods with another `spec.schedulerName` are left alone.
    pub name: String,
    /// By what is decided.
    pub policy: Policy,
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
    /// Where decisions are explained.
    pub explainer: Explainer,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            policy: Policy::default(),
            batch: 128,
            batches_in_flight: 4,
            back_off_first: Duration::from_secs(1),
            back_off_longest: Duration::from_secs(10),
            full_pass: Duration::from_secs(30),
            explainer: Explainer::default(),
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
    let explainer = options.explainer.clone();
    let mut questions = explainer.begin(term);
    loop {
        // A new snapshot after an interruption: nothing of the old one can be trusted then.
        let mut scheduler = Scheduler::new(registry.clone(), term, options.clone());
        let end = tokio::select! {
            () = cancel.cancelled() => break,
            end = scheduler.follow(&mut questions) => end,
        };
        match end {
            End::Fenced => {
                tracing::info!(term, "the term is over, the scheduler ends");
                break;
            }
            End::Interrupted(error) => {
                tracing::warn!("the scheduler's watch was interrupted, it begins anew: {error}");
            }
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    explainer.end(term);
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
    settled: mpsc::Receiver<Settled>,
    report: mpsc::Sender<Settled>,
    in_flight: usize,
}

impl Scheduler {
    fn new(registry: Registry, term: Term, options: SchedulerOptions) -> Self {
        let (report, settled) = mpsc::channel(options.batches_in_flight.max(1));
        let queue = Queue::new(options.back_off_first, options.back_off_longest);
        let snapshot = ClusterSnapshot::new();
        Self { registry, term, options, snapshot, queue, settled, report, in_flight: 0 }
    }

    async fn follow(&mut self, questions: &mut mpsc::Receiver<Question>) -> End {
        // Pods last: what they refer to is known then, and everything placed must be known
        // before anything is placed.
        let kinds = claims::followed().into_iter().chain([&kinds::POD]);
        let watch =
            |kind: &'static Kind| self.registry.watch(Some(kind), None, Selector::everything(), 0);
        let watchers: Result<Vec<_>, _> = kinds.map(watch).collect();
        let mut watchers = match watchers {
            Ok(watchers) => watchers,
            Err(error) => return End::Interrupted(error),
        };
        for watcher in &mut watchers {
            if let Err(error) = self.read_list(watcher).await {
                return End::Interrupted(error);
            }
        }
        let mut passes = tokio::time::interval(self.options.full_pass);
        loop {
            self.queue.tick(Instant::now());
            self.schedule();
            let due = self.queue.next_due().map(tokio::time::Instant::from_std);
            let events = watchers.iter_mut().map(|watcher| watcher.next().boxed());
            let event = tokio::select! {
                (event, _, _) = select_all(events) => event,
                Some(settled) = self.settled.recv() => {
                    if !self.settle(settled) {
                        return End::Fenced;
                    }
                    continue;
                }
                Some(question) = questions.recv() => {
                    self.answer(question);
                    continue;
                }
                _ = passes.tick() => {
                    self.queue.wake_all(Instant::now());
                    continue;
                }
                () = sleep_until(due) => continue,
            };
            let taken = event.and_then(|event| {
                let mut seen = Seen::default();
                self.observe(&event, &mut seen);
                self.drain(&mut watchers, &mut seen)?;
                self.wake(&seen);
                Ok(())
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
            self.observe(&event, &mut Seen::default());
        }
    }

    /// Takes in what is there already, so that decisions are made on what is newest.
    fn drain(
        &mut self,
        watchers: &mut [ObjectWatcher],
        seen: &mut Seen,
    ) -> Result<(), RegistryError> {
        for watcher in watchers {
            for _ in 0..EVENTS_AT_ONCE {
                match watcher.next().now_or_never() {
                    Some(event) => self.observe(&event?, seen),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Wakes the pods that what was seen may help.
    fn wake(&mut self, seen: &Seen) {
        let snapshot = &self.snapshot;
        let nodes: Option<Vec<usize>> = seen
            .nodes
            .as_ref()
            .map(|nodes| nodes.iter().filter_map(|name| snapshot.slot_of(name)).collect());
        // All pods of a class fare alike.
        let mut fitting: HashMap<u32, bool> = HashMap::new();
        let worth = |key: &PodKey, waiting: &Waiting| {
            let Some(nodes) = nodes.as_ref().filter(|_| waiting.refused_by.is_local()) else {
                return true;
            };
            let needs = waiting.class.needs();
            *fitting.entry(waiting.class.id()).or_insert_with(|| {
                let views = nodes.iter().map(|slot| NodeView::of(snapshot, *slot));
                views
                    .filter(|view| view.node().exists)
                    .any(|view| filter::check(needs, view, Some(key)).is_ok())
            }) || snapshot.nomination(key).is_some()
        };
        self.queue.wake(seen.helped, worth, Instant::now());
    }

    fn is_ours(&self, object: &Pod) -> bool {
        let gates = object.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref());
        self.scheduler_of(object) == self.options.name
            && gates.unwrap_or_default().is_empty()
            && pod::is_active(object)
    }

    fn scheduler_of<'a>(&'a self, object: &'a Pod) -> &'a str {
        let name = object.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
        name.filter(|name| !name.is_empty()).unwrap_or(&self.options.name)
    }

    /// Decides about waiting pods, and hands the decisions to tasks that commit them.
    fn schedule(&mut self) {
        while self.in_flight < self.options.batches_in_flight && self.queue.has_active() {
            let mut attempts = Vec::new();
            let mut decisions = Vec::new();
            while attempts.len() < self.options.batch.max(1)
                && let Some((key, waiting)) = self.queue.pop()
            {
                let (attempt, decision) = self.attempt(key, waiting);
                decisions.push((attempt.key.clone(), decision));
                attempts.push(attempt);
            }
            self.options.explainer.decided(decisions);
            self.in_flight += 1;
            let commit = bind::commit(self.registry.clone(), self.term, attempts);
            let report = self.report.clone();
            // Task "scheduler batch": ends by the registry's time limit at the latest. Should it
            // panic, its pods stay in flight until the scheduler begins anew, so say so loudly.
            let task = tokio::spawn(commit);
            // Task "scheduler batch report": hands the result, or the loss of it, back.
            tokio::spawn(async move {
                let settled = task.await.unwrap_or_else(|error| {
                    tracing::error!("a batch of the scheduler has failed: {error}");
                    Settled::default()
                });
                // Nobody listens any more when the scheduler has ended.
                let _ = report.send(settled).await;
            });
        }
    }

    /// Decides about a pod, and takes the decision for done.
    fn attempt(&mut self, key: PodKey, waiting: Waiting) -> (Attempt, Decision) {
        let Waiting { pod, revision, class, .. } = waiting;
        // What an earlier attempt assumed, and whose fate was not known, counts no more.
        self.snapshot.forget(&key);
        let decision = decide_class(&mut self.snapshot, &self.options.policy, &key, &class);
        let mut open = Vec::new();
        match (&decision.outcome, &decision.preemption) {
            (Outcome::Node(node), _) => {
                open = self.snapshot.claims.without_node(class.needs());
                self.snapshot.claims.choose(class.needs(), node);
                self.snapshot.assume(key.clone(), &class, node);
            }
            (Outcome::Unschedulable(_), Some(preemption)) => {
                self.snapshot.preempt(&key, &class, preemption);
                self.note_victims(&key, preemption);
            }
            (Outcome::Unschedulable(_), None) => self.snapshot.nominate(&key, None),
        }
        let attempt = Attempt {
            key,
            pod,
            revision,
            outcome: decision.outcome.clone(),
            refused_by: decision.refused_by(),
            preemption: decision.preemption.clone(),
            claims: open,
        };
        (attempt, decision)
    }

    fn note_victims(&self, by: &PodKey, preemption: &Preemption) {
        let PodKey { namespace, name, .. } = by;
        let what = format!("preempted by {namespace}/{name} on {}", preemption.node);
        for victim in &preemption.victims {
            self.options.explainer.happened(victim, what.clone());
        }
    }

    /// Takes in what came of a batch. Says whether the term goes on.
    fn settle(&mut self, settled: Settled) -> bool {
        self.in_flight -= 1;
        let now = Instant::now();
        for key in settled.staying {
            let object = self.registry.cache().get(&kinds::POD, &key.namespace, &key.name);
            if let Some(Ok(object)) = object.map(|object| object.typed::<Pod>()) {
                self.snapshot.set_pod(&object);
            }
        }
        for (key, verdict) in settled.verdicts {
            match verdict {
                // The cache will show it, and takes it out of the queue.
                Verdict::Bound => {}
                Verdict::Nowhere(refused_by) => self.queue.unschedulable(&key, refused_by, now),
                Verdict::Gone => {
                    self.forget(&key);
                    self.queue.remove(&key);
                }
                Verdict::Conflict => {
                    self.forget(&key);
                    self.queue.failed(&key, now);
                }
                // It may be bound after all: it stays assumed until it is tried again.
                Verdict::Unknown => self.queue.failed(&key, now),
                Verdict::Fenced => return false,
            }
        }
        true
    }

    fn forget(&mut self, key: &PodKey) {
        let Some(placed) = self.snapshot.placed(key).filter(|placed| placed.assumed) else {
            return;
        };
        let class = placed.class.clone();
        self.snapshot.claims.forget(class.needs());
        self.snapshot.forget(key);
    }

    /// Answers why a pod is where it is, as of now.
    fn answer(&mut self, question: Question) {
        let Question { namespace, name, answer } = question;
        let object = self.registry.cache().get(&kinds::POD, &namespace, &name);
        let result = match object.and_then(|object| object.typed::<Pod>().ok()) {
            None => Err(ExplainError::NotFound(name)),
            Some(object) if self.scheduler_of(&object) != self.options.name => {
                let scheduler = self.scheduler_of(&object).to_owned();
                Err(ExplainError::NotOurs { pod: name, scheduler })
            }
            Some(object) => Ok(self.explain(&object)),
        };
        // Whoever asked may have gone.
        let _ = answer.send(result);
    }

    fn explain(&mut self, object: &Pod) -> (PodKey, Decision) {
        let key = PodKey::of(object);
        let mut asking = object.clone();
        if let Some(spec) = asking.spec.as_mut() {
            // Where it is bound is the question, not a wish.
            spec.node_name = None;
        }
        let class = self.snapshot.class_of(&asking);
        let policy = &self.options.policy;
        let decision = self.snapshot.without(&key, |s| decide_class(s, policy, &key, &class));
        (key, decision)
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "../run_test.rs"]
mod tests;
