//! [`Follower`]: the snapshot and the queue, kept as the cache shows them.

use std::convert::Infallible;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_all;
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{Kind, Selector, kinds, pod};
use quorate_registry::{EventKind, ObjectEvent, ObjectWatcher, Registry, RegistryError};

use super::SchedulerOptions;
use super::observe::Seen;
use crate::claims;
use crate::queue::Queue;
use crate::snapshot::ClusterSnapshot;

/// Events of one kind taken in before others get their turn.
const EVENTS_AT_ONCE: usize = 1024;
/// How far a master that does not lead lets the cache get ahead: what changes several times
/// meanwhile is looked at once. A new leader makes up for it in milliseconds, and the cache's
/// history is long enough for ten times what three masters can write in it.
const LAG: Duration = Duration::from_millis(500);

/// The cluster as the cache shows it, and what the scheduler has decided beyond that.
pub(super) struct Follower {
    registry: Registry,
    /// Of the scheduler whose pods are ours.
    name: String,
    pub(super) snapshot: ClusterSnapshot,
    pub(super) queue: Queue,
    watchers: Vec<ObjectWatcher>,
}

impl Follower {
    /// Reads everything.
    ///
    /// # Errors
    /// When the cache is not ready, or has dropped what was not read in time.
    pub async fn start(
        registry: &Registry,
        options: &SchedulerOptions,
    ) -> Result<Self, RegistryError> {
        // Pods last: what they refer to is known then, and everything placed must be known
        // before anything is placed.
        let kinds = claims::followed().into_iter().chain([&kinds::POD]);
        let watch =
            |kind: &'static Kind| registry.watch(Some(kind), None, Selector::everything(), 0);
        let mut watchers = kinds.map(watch).collect::<Result<Vec<_>, _>>()?;
        let mut follower = Self {
            registry: registry.clone(),
            name: options.name.clone(),
            snapshot: ClusterSnapshot::new(),
            queue: Queue::new(options.back_off_first, options.back_off_longest),
            watchers: Vec::new(),
        };
        for watcher in &mut watchers {
            follower.read_list(watcher).await?;
        }
        follower.watchers = watchers;
        Ok(follower)
    }

    async fn read_list(&mut self, watcher: &mut ObjectWatcher) -> Result<(), RegistryError> {
        for number in 1_usize.. {
            let event = watcher.next().await?;
            if event.kind == EventKind::Bookmark {
                break;
            }
            self.observe(&event, &mut Seen::default());
            if number % EVENTS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// What comes next. Safe to cancel.
    ///
    /// # Errors
    /// As [`Follower::start`]; then nothing here can be trusted any more.
    pub async fn next(&mut self) -> Result<ObjectEvent, RegistryError> {
        let events = self.watchers.iter_mut().map(|watcher| watcher.next().boxed());
        select_all(events).await.0
    }

    /// Takes in what is there already, as far as it is not too much at once; says how many events
    /// that were.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub fn drain(&mut self, seen: &mut Seen) -> Result<usize, RegistryError> {
        let mut watchers = std::mem::take(&mut self.watchers);
        let mut taken = 0;
        for watcher in &mut watchers {
            for _ in 0..EVENTS_AT_ONCE {
                let Some(event) = watcher.next().now_or_never() else { break };
                let event = event?;
                taken += 1;
                if !self.is_overtaken(&event) {
                    self.observe(&event, seen);
                }
            }
        }
        self.watchers = watchers;
        Ok(taken)
    }

    /// Takes in all that is there already. Safe to cancel.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub async fn catch_up(&mut self) -> Result<(), RegistryError> {
        while self.drain(&mut Seen::default())? > 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Does an event follow that shows the object as it is by now?
    fn is_overtaken(&self, event: &ObjectEvent) -> bool {
        let Some(object) = event.object.as_ref().filter(|_| event.kind != EventKind::Deleted)
        else {
            return false;
        };
        let now = self.registry.cache().get(object.kind, object.namespace(), object.name());
        now.is_none_or(|now| now.revision > object.revision)
    }

    /// Is it a pod for which a node is to be found here?
    pub(super) fn is_ours(&self, object: &Pod) -> bool {
        let gates = object.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref());
        self.scheduler_of(object) == self.name
            && gates.unwrap_or_default().is_empty()
            && pod::is_active(object)
    }

    pub(super) fn scheduler_of<'a>(&'a self, object: &'a Pod) -> &'a str {
        let name = object.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
        name.filter(|name| !name.is_empty()).unwrap_or(&self.name)
    }
}

/// A scheduler that decides nothing yet: it knows the cluster before its master leads, so that
/// the first pod does not wait until all others have been looked at.
pub struct Standby {
    pub(super) registry: Registry,
    pub(super) options: SchedulerOptions,
    pub(super) follower: Option<Follower>,
}

impl Standby {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(registry: Registry, options: SchedulerOptions) -> Self {
        Self { registry, options, follower: None }
    }

    /// Keeps what it knows up to date, a moment behind the cache, as long as it is polled. Safe
    /// to cancel.
    pub async fn follow(&mut self) -> Infallible {
        loop {
            // A master that has just started, or no longer leads, has more urgent things to do.
            tokio::time::sleep(LAG).await;
            if let Err(error) = self.step().await {
                // Nobody waits for it: a cache that is not ready yet is nothing to speak of.
                tracing::debug!("the standby scheduler begins anew: {error}");
                self.follower = None;
            }
        }
    }

    pub(super) async fn step(&mut self) -> Result<(), RegistryError> {
        match &mut self.follower {
            None => self.follower = Some(Follower::start(&self.registry, &self.options).await?),
            Some(follower) => follower.catch_up().await?,
        }
        Ok(())
    }
}
