//! [`Leader`]: all that only the leader does, in one value that can be stopped.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_objects::Selector;
use quorate_registry::{Consistency, ListOptions, Registry, RegistryError};
use quorate_scheduler::Standby;
use quorate_store::{Leadership, Term};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::api_access::{ApiService, RootCa};
use crate::autoscaler::Autoscalers;
use crate::context::Context;
use crate::controller::{self, Controller};
use crate::cron_job::CronJobs;
use crate::custom_resources::CustomResources;
use crate::daemon_set::DaemonSets;
use crate::deployment::Deployments;
use crate::disruption::DisruptionBudgets;
use crate::endpoints::Endpoints;
use crate::error::LeaderError;
use crate::garbage::GarbageCollector;
use crate::job::Jobs;
use crate::namespaces::Namespaces;
use crate::nodes::{NodeAddresses, NodeLifecycle, PodCollector, TaintEviction};
use crate::options::LeaderOptions;
use crate::queue::WorkQueue;
use crate::quotas::Quotas;
use crate::rebalance::Rebalance;
use crate::replica_set::ReplicaSets;
use crate::service_accounts::ServiceAccounts;
use crate::stateful_set::StatefulSets;
use crate::storage::{Claims, EphemeralClaims, Volumes};

/// Between attempts to begin when the store does not answer.
const RETRY: Duration = Duration::from_millis(100);
/// How long a stop may take before it is logged as too long.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Old Events are removed this often.
const EXPIRE_EVENTS: Duration = Duration::from_secs(60);

/// The leader's work: scheduler, controllers, node monitor.
///
/// Invariant: every write carries the term as its fence, so that it has no effect once the
/// store is in a newer term, whether or not this value has been stopped by then.
pub struct Leader {
    term: Term,
    cancel: CancellationToken,
    supervisor: JoinHandle<Result<(), LeaderError>>,
}

/// The tasks of a leader, each with its name.
#[derive(Default)]
struct Tasks {
    running: futures::stream::FuturesUnordered<
        futures::future::BoxFuture<'static, (String, Result<(), tokio::task::JoinError>)>,
    >,
}

impl Tasks {
    fn spawn(&mut self, name: String, work: impl Future<Output = ()> + Send + 'static) {
        let span = tracing::info_span!("leader_task", task = name);
        let handle = tokio::spawn(work.instrument(span));
        self.running.push(Box::pin(async move { (name, handle.await) }));
    }

    /// Waits for all of them. The first that panics cancels the others; it is the error.
    async fn join(mut self, cancel: &CancellationToken) -> Result<(), LeaderError> {
        use futures::StreamExt as _;
        let mut outcome = Ok(());
        while let Some((task, result)) = self.running.next().await {
            let reason = match result {
                Err(error) => error.to_string(),
                // Without cancellation no task has a reason to end.
                Ok(()) if !cancel.is_cancelled() => "it ended by itself".to_owned(),
                Ok(()) => continue,
            };
            tracing::error!(task, reason, "a task of the leader's work has failed");
            cancel.cancel();
            if outcome.is_ok() {
                outcome = Err(LeaderError::TaskFailed { task, reason });
            }
        }
        outcome
    }
}

impl Leader {
    /// Starts the leader's work in `term`. Returns at once; work begins as soon as the cache
    /// shows everything that was written before.
    #[must_use]
    pub fn start(registry: Registry, term: Term, options: LeaderOptions) -> Self {
        let standby = Standby::new(registry.clone(), options.scheduler.clone());
        Self::start_with(standby, registry, term, options)
    }

    /// [`Leader::start`] with a scheduler that knows the cluster already.
    fn start_with(
        standby: Standby,
        registry: Registry,
        term: Term,
        options: LeaderOptions,
    ) -> Self {
        let cancel = CancellationToken::new();
        let begin = Instant::now();
        let inner = cancel.clone();
        // Task "leader supervisor": its result is the leader's; see `Leader::ended`.
        let supervisor = tokio::spawn(async move {
            if !prepare(&registry, term, &inner).await {
                return Ok(());
            }
            let mut tasks = Tasks::default();
            let controllers = controllers(&registry, term, &options);
            start_controllers(&mut tasks, &registry, controllers, &options, &inner);
            start_rest(&mut tasks, &registry, term, standby, &inner);
            let after = begin.elapsed().as_millis();
            tracing::info!(term, after_ms = after, "leader work started");
            tasks.join(&inner).await
        });
        Self { term, cancel, supervisor }
    }

    /// The term in which it leads.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Waits until the work has ended by itself: because the term is over, or because a task
    /// has failed. Safe to cancel.
    ///
    /// # Errors
    /// [`LeaderError`] when a task has failed.
    pub async fn ended(&mut self) -> Result<(), LeaderError> {
        match (&mut self.supervisor).await {
            Ok(result) => result,
            Err(error) => Err(LeaderError::TaskFailed {
                task: "leader supervisor".to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    /// Cancels all tasks and waits for them.
    ///
    /// # Errors
    /// [`LeaderError`] when a task has failed.
    pub async fn stop(mut self) -> Result<(), LeaderError> {
        let begin = Instant::now();
        self.cancel.cancel();
        let result = loop {
            match tokio::time::timeout(STOP_PATIENCE, self.ended()).await {
                Ok(result) => break result,
                Err(_) => tracing::error!(term = self.term, "leader work takes long to stop"),
            }
        };
        tracing::info!(
            term = self.term,
            after_ms = begin.elapsed().as_millis(),
            "leader work stopped"
        );
        result
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Waits until the cache shows everything written before this term, and makes what every
/// cluster has. Says whether work may begin.
async fn prepare(registry: &Registry, term: Term, cancel: &CancellationToken) -> bool {
    loop {
        let attempt = async {
            let everything = ListOptions { limit: 1, ..ListOptions::default() };
            let kind = &quorate_objects::kinds::NAMESPACE;
            registry.list(kind, None, &everything, Consistency::Linearizable).await?;
            registry.ensure_system_objects(Some(term)).await?;
            registry.ensure_system_roles(Some(term)).await
        };
        let result: Result<(), RegistryError> = tokio::select! {
            () = cancel.cancelled() => return false,
            result = attempt => result,
        };
        match result {
            Ok(()) => return true,
            Err(error) if quorate_scheduler::is_fenced(&error) => {
                tracing::info!(term, "{error}; leader work does not begin");
                return false;
            }
            Err(error) => tracing::warn!(term, "leader work cannot begin yet: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Controllers, each with what it reads and writes with.
type Controllers = Vec<(Arc<dyn Controller>, Arc<Context>)>;

pub(crate) fn controllers(registry: &Registry, term: Term, options: &LeaderOptions) -> Controllers {
    let context = |component| Arc::new(Context::new(registry.clone(), term, component));
    let mut all = Controllers::new();
    let mut add = |component, make: &dyn Fn(Arc<Context>) -> Arc<dyn Controller>| {
        let context = context(component);
        all.push((make(Arc::clone(&context)), context));
    };
    add("deployment-controller", &|c| Arc::new(Deployments::new(c)));
    add("replicaset-controller", &|c| Arc::new(ReplicaSets::new(c)));
    add("statefulset-controller", &|c| Arc::new(StatefulSets::new(c)));
    add("daemonset-controller", &|c| Arc::new(DaemonSets::new(c)));
    add("job-controller", &|c| Arc::new(Jobs::new(c, options.job_back_off)));
    add("cronjob-controller", &|c| Arc::new(CronJobs::new(c)));
    add("horizontal-pod-autoscaler", &|c| {
        Arc::new(Autoscalers::new(c, options.autoscale_interval))
    });
    add("disruption-controller", &|c| Arc::new(DisruptionBudgets::new(c)));
    add("resourcequota-controller", &|c| Arc::new(Quotas::new(c)));
    add("serviceaccount-controller", &|c| Arc::new(ServiceAccounts::new(c)));
    add("persistentvolume-controller", &|c| Arc::new(Claims::new(c)));
    add("persistentvolume-controller", &|c| Arc::new(Volumes::new(c)));
    add("ephemeral-volume-controller", &|c| Arc::new(EphemeralClaims::new(c)));
    if let Some(access) = &options.api {
        add("root-ca-publisher", &|c| Arc::new(RootCa::new(c, access)));
        add("api-service-controller", &|c| Arc::new(ApiService::new(c, access.clone())));
    }
    if options.rebalance.max_moves > 0 {
        add("rebalance", &|c| Arc::new(Rebalance::new(c, options.rebalance)));
    }
    add("node-controller", &|c| Arc::new(NodeLifecycle::new(c, options.node_grace)));
    add("taint-eviction-controller", &|c| {
        Arc::new(TaintEviction::new(c, options.default_unreachable_seconds))
    });
    add("pod-collector", &|c| {
        let (force, missing) = (options.force_delete_after, options.missing_node_grace);
        Arc::new(PodCollector::new(c, force, missing))
    });
    add("node-address-controller", &|c| Arc::new(NodeAddresses::new(c, options.pod_cidr)));
    add("endpoints-controller", &|c| Arc::new(Endpoints::new(c)));
    add("namespace-controller", &|c| Arc::new(Namespaces::new(c)));
    add("custom-resource-controller", &|c| Arc::new(CustomResources::new(c)));
    add("garbage-collector", &|c| Arc::new(GarbageCollector::new(c)));
    all
}

fn start_controllers(
    tasks: &mut Tasks,
    registry: &Registry,
    controllers: Controllers,
    options: &LeaderOptions,
    cancel: &CancellationToken,
) {
    // Before the first pass looks at anything: what happens from here on is an event.
    let from = registry.cache().revision();
    let missed = watch::Sender::new(());
    let mut routes = Vec::new();
    // One after the other: together they would keep the processors from everybody else.
    let turns = Arc::new(Semaphore::new(1));
    for (controller, context) in controllers {
        let queue = Arc::new(WorkQueue::default());
        routes.push((Arc::clone(&controller), Arc::clone(&queue)));
        for number in 0..controller.workers().unwrap_or(options.workers) {
            let (c, q, x) = (Arc::clone(&controller), Arc::clone(&queue), Arc::clone(&context));
            let name = format!("controller {} worker {number}", c.name());
            tasks.spawn(name, controller::work(c, q, x, cancel.clone()));
        }
        let interval = controller.interval().unwrap_or(options.full_pass);
        let name = format!("controller {} full passes", controller.name());
        let (turns, missed, cancel) = (Arc::clone(&turns), missed.subscribe(), cancel.clone());
        let passes = controller::full_passes(controller, queue, interval, turns, missed, cancel);
        tasks.spawn(name, passes);
    }
    let events = dispatch(registry.clone(), from, routes, missed, cancel.clone());
    tasks.spawn("event dispatcher".to_owned(), events);
}

fn start_rest(
    tasks: &mut Tasks,
    registry: &Registry,
    term: Term,
    standby: Standby,
    cancel: &CancellationToken,
) {
    let scheduler = quorate_scheduler::run(standby, term, cancel.clone());
    let over = cancel.clone();
    tasks.spawn("scheduler".to_owned(), async move {
        scheduler.await;
        // It ends by itself only when the term is over, and then all has to.
        over.cancel();
    });
    let (registry, cancel) = (registry.clone(), cancel.clone());
    tasks.spawn("expiry of events".to_owned(), async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(EXPIRE_EVENTS) => {}
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = registry.expire_events(quorate_objects::time::timestamp(), Some(term)) => {}
            }
        }
    });
}

type Routes = Vec<(Arc<dyn Controller>, Arc<WorkQueue>)>;

/// Hands every event after the revision `from` to the queues of the controllers that want it.
/// `missed` hears when some were missed.
async fn dispatch(
    registry: Registry,
    mut from: u64,
    routes: Routes,
    missed: watch::Sender<()>,
    cancel: CancellationToken,
) {
    loop {
        let error = tokio::select! {
            () = cancel.cancelled() => return,
            error = follow(&registry, &routes, from) => error,
        };
        tracing::warn!(
            "the leader's watch was interrupted, every controller looks at all: {error}"
        );
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
        // First from where to go on, then the passes: they cover what was before.
        from = registry.cache().revision();
        missed.send_replace(());
    }
}

async fn follow(registry: &Registry, routes: &Routes, from: u64) -> RegistryError {
    let mut watcher = match registry.watch(None, None, Selector::everything(), from) {
        Ok(watcher) => watcher,
        Err(error) => return error,
    };
    loop {
        let event = match watcher.next().await {
            Ok(event) => event,
            Err(error) => return error,
        };
        for (controller, queue) in routes {
            for key in controller.wants(&event) {
                queue.add(key);
            }
        }
    }
}

/// Starts and stops the leader's work as leadership comes and goes, until `cancel`. While another
/// master leads, a standby of the scheduler follows the cache.
///
/// # Errors
/// [`LeaderError`] when a task of the leader's work has failed: the process has to end, so that
/// another master takes over instead of a leader that works by half.
pub async fn lead(
    mut leadership: watch::Receiver<Leadership>,
    registry: Registry,
    options: LeaderOptions,
    cancel: CancellationToken,
) -> Result<(), LeaderError> {
    // What a leader's scheduler has assumed is worth nothing afterwards: then a new one begins.
    let standby = || Standby::new(registry.clone(), options.scheduler.clone());
    let mut waiting = standby();
    loop {
        let ready = leadership.borrow_and_update().ready;
        let Some(term) = ready else {
            let gone = tokio::select! {
                () = cancel.cancelled() => true,
                changed = leadership.changed() => changed.is_err(),
                never = waiting.follow() => match never {},
            };
            if gone {
                return Ok(());
            }
            continue;
        };
        let known = std::mem::replace(&mut waiting, standby());
        let mut leader = Leader::start_with(known, registry.clone(), term, options.clone());
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            result = leader.ended() => Some(result),
            _ = leadership.wait_for(|now| now.ready != Some(term)) => None,
        };
        match ended {
            Some(result) => result?,
            None => leader.stop().await?,
        }
        // The store may tell a writer that the term is over before it tells us.
        let gone = tokio::select! {
            () = cancel.cancelled() => true,
            next = leadership.wait_for(|now| now.ready != Some(term)) => next.is_err(),
        };
        if gone {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "dispatch_test.rs"]
mod dispatch_tests;
#[cfg(test)]
#[path = "leader_test.rs"]
mod tests;
