//! What a controller is, and the workers that run one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_registry::ObjectEvent;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::error::ControllerError;
use crate::queue::{Key, WorkQueue};

/// What to do with a key after it was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Nothing: an event will wake it.
    Done,
    /// Look again after this time.
    After(Duration),
}

/// A controller brings the world nearer to what objects say, one key at a time.
///
/// Invariant: `reconcile` takes no input but the key. Events only wake it; it reads the cache,
/// which is at least as new as everything this controller has written.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// For logs.
    fn name(&self) -> &'static str;

    /// Which keys an event concerns.
    fn wants(&self, event: &ObjectEvent) -> Vec<Key>;

    /// All keys, for a full pass.
    fn all(&self) -> Vec<Key>;

    /// How often a full pass is made; `None`: the common interval.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// How many keys may be worked on at the same time; `None`: the common number.
    fn workers(&self) -> Option<usize> {
        None
    }

    /// Brings one key nearer to what it shall be.
    ///
    /// # Errors
    /// Anything that makes it worthwhile to try again later.
    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError>;
}

/// Works on the keys of one controller until cancelled.
pub(crate) async fn work(
    controller: Arc<dyn Controller>,
    queue: Arc<WorkQueue>,
    context: Arc<Context>,
    cancel: CancellationToken,
) {
    loop {
        let key = tokio::select! {
            () = cancel.cancelled() => return,
            key = queue.next() => key,
        };
        let attempt = async {
            context.caught_up().await?;
            controller.reconcile(&key).await
        };
        let result = tokio::select! {
            () = cancel.cancelled() => return,
            result = attempt => result,
        };
        match result {
            Ok(Requeue::Done) => queue.done(&key, None),
            Ok(Requeue::After(wait)) => queue.done(&key, Some(wait)),
            Err(error) => {
                if let ControllerError::Fenced(_) = error {
                    tracing::info!(controller = controller.name(), %key, "{error}; leader work ends");
                    cancel.cancel();
                    return;
                }
                if error.is_benign() {
                    tracing::debug!(controller = controller.name(), %key, "{error}");
                } else {
                    tracing::warn!(controller = controller.name(), %key, "{error}");
                }
                queue.failed(&key);
            }
        }
    }
}

/// Makes a full pass at once and then again and again, until cancelled. `turns`: of all
/// controllers, those that do so at the same time. `missed` changes when events were missed, which
/// only a full pass makes up for.
pub(crate) async fn full_passes(
    controller: Arc<dyn Controller>,
    queue: Arc<WorkQueue>,
    interval: Duration,
    turns: Arc<Semaphore>,
    mut missed: watch::Receiver<()>,
    cancel: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
            // One that comes during a pass is seen after it.
            Ok(()) = missed.changed() => {}
        }
        let turn = tokio::select! {
            () = cancel.cancelled() => return,
            turn = turns.acquire() => turn,
        };
        // To look at every object takes longer than the tasks of this runtime may wait.
        let controller = Arc::clone(&controller);
        let keys = tokio::task::spawn_blocking(move || controller.all()).await;
        drop(turn);
        match keys {
            Ok(keys) => keys.into_iter().for_each(|key| queue.add(key)),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends.
            Err(_) => return,
        }
    }
}
