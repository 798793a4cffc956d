//! The loop: from the cache's changes to bindings.

mod follow;
mod observe;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use quorate_objects::kinds;
use quorate_registry::{Registry, RegistryError};
use quorate_store::Term;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::follow::Follower;
pub use self::follow::Standby;
use self::observe::Seen;
use crate::bind::{self, Attempt, Settled, Verdict};
use crate::decide::{Decision, Outcome, Policy, decide_class};
use crate::filter::{self, NodeView};
use crate::preempt::Preemption;
use crate::queue::Waiting;
use crate::snapshot::PodKey;
use crate::trace::{ExplainError, Explainer, Question};

/// Between attempts to follow the cache again after an interruption.
const RETRY: Duration = Duration::from_millis(100);

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

/// Schedules until cancelled, or until the term is over, beginning with what `standby` knows.
pub async fn run(standby: Standby, term: Term, cancel: CancellationToken) {
    let Standby { registry, options, mut follower } = standby;
    let explainer = options.explainer.clone();
    let mut questions = explainer.begin(term);
    loop {
        let attempt = async {
            let cluster = match follower.take() {
                Some(mut follower) => follower.catch_up().await.map(|()| follower)?,
                None => Follower::start(&registry, &options).await?,
            };
            let pods = (cluster.snapshot.pod_count(), cluster.queue.len());
            tracing::info!(term, placed = pods.0, waiting = pods.1, "the scheduler begins");
            let mut scheduler = Scheduler::new(registry.clone(), term, options.clone(), cluster);
            scheduler.schedule_all(&mut questions).await
        };
        let end = tokio::select! {
            () = cancel.cancelled() => break,
            end = attempt => end,
        };
        match end {
            Ok(()) => {
                tracing::info!(term, "the term is over, the scheduler ends");
                break;
            }
            // A new snapshot after an interruption: nothing of the old one can be trusted then.
            Err(error) => {
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

struct Scheduler {
    registry: Registry,
    term: Term,
    options: SchedulerOptions,
    cluster: Follower,
    settled: mpsc::Receiver<Settled>,
    report: mpsc::Sender<Settled>,
    in_flight: usize,
}

impl Scheduler {
    fn new(registry: Registry, term: Term, options: SchedulerOptions, cluster: Follower) -> Self {
        let (report, settled) = mpsc::channel(options.batches_in_flight.max(1));
        Self { registry, term, options, cluster, settled, report, in_flight: 0 }
    }

    /// Schedules until the term is over.
    ///
    /// # Errors
    /// When the cache cannot be followed any more.
    async fn schedule_all(
        &mut self,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Result<(), RegistryError> {
        let mut passes = tokio::time::interval(self.options.full_pass);
        loop {
            self.cluster.queue.tick(Instant::now());
            self.schedule();
            let due = self.cluster.queue.next_due().map(tokio::time::Instant::from_std);
            let event = tokio::select! {
                event = self.cluster.next() => event?,
                Some(settled) = self.settled.recv() => {
                    if !self.settle(settled) {
                        return Ok(());
                    }
                    continue;
                }
                Some(question) = questions.recv() => {
                    self.answer(question);
                    continue;
                }
                _ = passes.tick() => {
                    self.cluster.queue.wake_all(Instant::now());
                    continue;
                }
                () = sleep_until(due) => continue,
            };
            let mut seen = Seen::default();
            self.cluster.observe(&event, &mut seen);
            self.cluster.drain(&mut seen)?;
            self.wake(&seen);
        }
    }

    /// Wakes the pods that what was seen may help.
    fn wake(&mut self, seen: &Seen) {
        let snapshot = &self.cluster.snapshot;
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
        self.cluster.queue.wake(seen.helped, worth, Instant::now());
    }

    /// Decides about waiting pods, and hands the decisions to tasks that commit them.
    fn schedule(&mut self) {
        while self.in_flight < self.options.batches_in_flight && self.cluster.queue.has_active() {
            let mut attempts = Vec::new();
            let mut decisions = Vec::new();
            while attempts.len() < self.options.batch.max(1)
                && let Some((key, waiting)) = self.cluster.queue.pop()
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
        self.cluster.snapshot.forget(&key);
        let decision = decide_class(&mut self.cluster.snapshot, &self.options.policy, &key, &class);
        let mut open = Vec::new();
        match (&decision.outcome, &decision.preemption) {
            (Outcome::Node(node), _) => {
                open = self.cluster.snapshot.claims.without_node(class.needs());
                self.cluster.snapshot.claims.choose(class.needs(), node);
                self.cluster.snapshot.assume(key.clone(), &class, node);
            }
            (Outcome::Unschedulable(_), Some(preemption)) => {
                self.cluster.snapshot.preempt(&key, &class, preemption);
                self.note_victims(&key, preemption);
            }
            (Outcome::Unschedulable(_), None) => self.cluster.snapshot.nominate(&key, None),
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
                self.cluster.snapshot.set_pod(&object);
            }
        }
        for (key, verdict) in settled.verdicts {
            match verdict {
                // The cache will show it, and takes it out of the queue.
                Verdict::Bound => {}
                Verdict::Nowhere(refused_by) => {
                    self.cluster.queue.unschedulable(&key, refused_by, now)
                }
                Verdict::Gone => {
                    self.forget(&key);
                    self.cluster.queue.remove(&key);
                }
                Verdict::Conflict => {
                    self.forget(&key);
                    self.cluster.queue.failed(&key, now);
                }
                // It may be bound after all: it stays assumed until it is tried again.
                Verdict::Unknown => self.cluster.queue.failed(&key, now),
                Verdict::Fenced => return false,
            }
        }
        true
    }

    fn forget(&mut self, key: &PodKey) {
        let Some(placed) = self.cluster.snapshot.placed(key).filter(|placed| placed.assumed) else {
            return;
        };
        let class = placed.class.clone();
        self.cluster.snapshot.claims.forget(class.needs());
        self.cluster.snapshot.forget(key);
    }

    /// Answers why a pod is where it is, as of now.
    fn answer(&mut self, question: Question) {
        let Question { namespace, name, answer } = question;
        let object = self.registry.cache().get(&kinds::POD, &namespace, &name);
        let result = match object.and_then(|object| object.typed::<Pod>().ok()) {
            None => Err(ExplainError::NotFound(name)),
            Some(object) if self.cluster.scheduler_of(&object) != self.options.name => {
                let scheduler = self.cluster.scheduler_of(&object).to_owned();
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
        let class = self.cluster.snapshot.class_of(&asking);
        let policy = &self.options.policy;
        let decision =
            self.cluster.snapshot.without(&key, |s| decide_class(s, policy, &key, &class));
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
