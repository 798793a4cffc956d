#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use quorate_objects::kinds;
use quorate_registry::{EventKind, ObjectEvent, RegistryOptions};
use serde_json::json;

use super::*;
use crate::context::key_of;
use crate::controller::Requeue;
use crate::error::ControllerError;
use crate::fake::{Cluster, PATIENCE, options};
use crate::queue::Key;

/// Changes of a kind that are kept for watchers.
const RING: usize = 4;

/// Whoever comes waits while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.opened.notify_all();
    }

    fn pass(&self) {
        // Not for ever: a test that fails must end.
        let deadline = Instant::now() + PATIENCE;
        let mut closed = self.closed.lock();
        while *closed && Instant::now() < deadline {
            self.opened.wait_until(&mut closed, deadline);
        }
    }
}

/// A controller of ConfigMaps that is stopped where it looks.
struct Slow {
    context: Arc<Context>,
    dispatching: Gate,
    passing: Gate,
    passes: AtomicUsize,
    seen: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Controller for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        tokio::task::block_in_place(|| self.dispatching.pass());
        let object = event.object.iter().filter(|_| event.kind != EventKind::Deleted);
        let object = object.filter(|object| *object.kind == kinds::CONFIG_MAP);
        object.map(|object| key_of(object)).collect()
    }

    fn all(&self) -> Vec<Key> {
        let keys = self.context.keys(&kinds::CONFIG_MAP);
        self.passes.fetch_add(1, Ordering::SeqCst);
        self.passing.pass();
        keys
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        self.seen.lock().insert(key.name.clone());
        Ok(Requeue::Done)
    }
}

async fn create(cluster: &Cluster, name: &str) {
    let meta = json!({"name": name, "namespace": "default"});
    cluster.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})).await;
}

/// Neither those that were missed, nor those that come while the passes look, which have looked
/// at their kind already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_a_full_pass_and_the_next_watch() {
    let small = RegistryOptions { watch_ring: RING, ..RegistryOptions::default() };
    let cluster = Cluster::with_options(0, small).await;
    let slow = Arc::new(Slow {
        context: Arc::new(Context::new(cluster.registry.clone(), cluster.term(), "test")),
        dispatching: Gate::default(),
        passing: Gate::default(),
        passes: AtomicUsize::new(0),
        seen: Mutex::default(),
    });
    let options = LeaderOptions { full_pass: Duration::from_secs(3600), ..options() };
    let (mut tasks, cancel) = (Tasks::default(), CancellationToken::new());
    let controller: Arc<dyn Controller> = Arc::clone(&slow) as _;
    let controllers = vec![(controller, Arc::clone(&slow.context))];
    start_controllers(&mut tasks, &cluster.registry, controllers, &options, &cancel);
    let passes = |number: usize| slow.passes.load(Ordering::SeqCst) == number;
    let seen = |name: &str| slow.seen.lock().contains(name);
    cluster.until("the first pass", |_| passes(1)).await;
    create(&cluster, "first").await;
    cluster.until("events come through", |_| seen("first")).await;

    slow.passing.set(true);
    slow.dispatching.set(true);
    // More than the ring holds beside what the dispatcher may have taken out of it.
    for number in 0..3 * RING {
        create(&cluster, &format!("missed-{number}")).await;
    }
    cluster.settle().await;
    slow.dispatching.set(false);
    cluster.until("the second pass", |_| passes(2)).await;
    create(&cluster, "late").await;
    cluster.settle().await;
    slow.passing.set(false);
    cluster.until("the late one is seen", |_| seen("late")).await;
    let missed = |number: usize| seen(&format!("missed-{number}"));
    cluster.until("and all before it", |_| (0..3 * RING).all(missed)).await;
    cancel.cancel();
    tasks.join(&cancel).await.unwrap();
}
