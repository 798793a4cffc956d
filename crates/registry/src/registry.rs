//! [`Registry`]: reads and watches. Writes are in the modules beside this one.

use std::sync::Arc;
use std::time::Duration;

use quorate_objects::{FieldSelector, Kind, Selector};
use quorate_store::{Consistency, MemberId, SharedStore};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::error::RegistryError;
use crate::events::EventRecorder;
use crate::fresh::Fresh;
use crate::heartbeats::Heartbeats;
use crate::metrics::Metrics;
use crate::object::{Object, ObjectKey};
use crate::options::{At, ListOptions, RegistryOptions};
use crate::proposer::Proposer;
use crate::quota::Turns;
use crate::watcher::{ObjectWatcher, WatchOptions};

/// Typed objects over the store. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: SharedStore,
    pub proposer: Proposer,
    pub cache: Arc<Cache>,
    pub options: RegistryOptions,
    pub heartbeats: Arc<Heartbeats>,
    pub metrics: Metrics,
    pub events: EventRecorder,
    pub quota_turns: Turns,
    pub fresh: Arc<Fresh>,
}

/// The answer to a list.
#[derive(Clone, Debug)]
pub struct List {
    /// The revision that the list shows; watch from here to miss nothing.
    pub revision: u64,
    /// The objects, in order of namespace and name.
    pub items: Vec<Arc<Object>>,
    /// Set when there is more.
    pub continue_token: Option<String>,
    /// How many more there are; known for lists without selectors only.
    pub remaining: Option<usize>,
}

impl Registry {
    /// Starts the cache and the recorder of events, which run until `cancel`.
    #[must_use]
    pub fn start(store: SharedStore, options: RegistryOptions, cancel: CancellationToken) -> Self {
        let cache = Arc::new(Cache::new(options.watch_ring));
        let (events, queue) = EventRecorder::new();
        // Task "registry cache": ends with `cancel` only; it logs and retries its failures.
        let fresh = Arc::<Fresh>::default();
        let known = Arc::clone(&fresh);
        let feed = crate::feed::run(Arc::clone(&store), Arc::clone(&cache), known, cancel.clone());
        tokio::spawn(feed);
        let (heartbeats, metrics) = <(Arc<Heartbeats>, _)>::default();
        heartbeats.answer_through(&*store);
        let quota_turns = Turns::default();
        let proposer = Proposer::new(Arc::clone(&store), options.request_timeout);
        let registry = Self {
            inner: Arc::new(Inner {
                store,
                proposer,
                cache,
                options,
                heartbeats,
                metrics,
                events,
                quota_turns,
                fresh,
            }),
        };
        // Task "event recorder": ends with `cancel` only; an event that cannot be written is
        // logged and dropped.
        tokio::spawn(crate::events::run(registry.clone(), queue, cancel));
        registry
    }

    /// Waits until the cache has read its first list.
    ///
    /// # Errors
    /// [`RegistryError::Timeout`]
    pub async fn wait_synced(&self, timeout: Duration) -> Result<(), RegistryError> {
        self.inner.cache.wait(1, timeout).await
    }

    /// The cache: reads without waiting.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Liveness of nodes.
    #[must_use]
    pub fn heartbeats(&self) -> Arc<Heartbeats> {
        Arc::clone(&self.inner.heartbeats)
    }

    /// Asks the other masters for nodes that this one has not heard; what they say is in
    /// [`Registry::heartbeats`] afterwards. Returns how many of them each master has heard within
    /// `recent`; who does not answer within `patience` is left out.
    pub async fn ask_who_is_heard(
        &self,
        nodes: Vec<String>,
        recent: Duration,
        patience: Duration,
    ) -> Vec<(MemberId, usize)> {
        self.inner.heartbeats.ask(&*self.inner.store, nodes, recent, patience).await
    }

    /// Hands leadership to another master.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when it does not take over.
    pub async fn hand_over(&self, to: MemberId) -> Result<(), RegistryError> {
        Ok(self.inner.store.transfer_leadership(Some(to)).await?)
    }

    /// What nodes and containers use.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Records Events.
    #[must_use]
    pub fn events(&self) -> &EventRecorder {
        &self.inner.events
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &RegistryOptions {
        &self.inner.options
    }

    /// Waits until the cache is as fresh as asked for.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when a linearizable read finds no quorum.
    pub async fn freshen(&self, consistency: Consistency) -> Result<(), RegistryError> {
        let timeout = self.inner.options.request_timeout;
        let revision = match consistency {
            Consistency::Linearizable => self.inner.store.read_revision().await?,
            Consistency::Serializable => 1,
        };
        self.inner.cache.wait(revision, timeout).await
    }

    /// Reads one object; `namespace` is ignored for kinds without.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Unavailable`] when a linearizable read
    /// finds no quorum.
    pub async fn get(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Arc<Object>, RegistryError> {
        self.freshen(consistency).await?;
        let found = self.inner.cache.get(kind, namespace, name);
        found.ok_or_else(|| ObjectKey::new(kind, namespace, name).not_found())
    }

    /// Reads all objects of a kind that match; `None` or "" means all namespaces.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when a linearizable read finds no quorum.
    pub async fn list(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        options: &ListOptions,
        consistency: Consistency,
    ) -> Result<List, RegistryError> {
        check_fields(Some(kind), &options.fields)?;
        let page = options.continue_token.as_deref().map(Page::parse).transpose()?;
        let exactly = match (&page, options.at) {
            (Some(page), _) => Some(page.revision),
            (None, At::Exactly(revision)) => Some(revision),
            _ => None,
        };
        match (exactly, options.at) {
            (Some(revision), _) | (None, At::NotOlderThan(revision)) => {
                self.inner.cache.wait(revision, self.inner.options.request_timeout).await?;
            }
            _ => self.freshen(consistency).await?,
        }
        let (objects, revision) = self.inner.cache.objects_at(kind, namespace, exactly)?;
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let everything = options.labels.is_everything() && options.fields.is_everything();
        let mut matching = objects.into_iter().filter(|object| {
            page.as_ref().is_none_or(|page| page.is_before(object))
                && options.labels.matches(object.labels())
                && object.matches_fields(&options.fields)
        });
        let items: Vec<_> = matching.by_ref().take(limit).collect();
        // Without selectors the count of the rest is free; with them a look at one is enough.
        let rest = if everything { matching.count() } else { matching.take(1).count() };
        let last = items.last().filter(|_| rest > 0);
        let continue_token = last.map(|last| Page::after(last, revision).token());
        let remaining = Some(rest).filter(|rest| everything && *rest > 0);
        Ok(List { revision, items, continue_token, remaining })
    }

    /// Watches; see [`WatchOptions`].
    ///
    /// # Errors
    /// [`RegistryError::Gone`] when the revision is too old; [`RegistryError::Unavailable`]
    /// while the cache has not been read yet.
    pub fn watch(
        &self,
        kind: Option<&'static Kind>,
        namespace: Option<&str>,
        labels: Selector,
        from_revision: u64,
    ) -> Result<ObjectWatcher, RegistryError> {
        let namespace = namespace.map(str::to_owned);
        self.watch_with(WatchOptions {
            kind,
            namespace,
            labels,
            fields: FieldSelector::everything(),
            from_revision,
        })
    }

    /// [`Self::watch`] with a field selector.
    ///
    /// # Errors
    /// As [`Self::watch`].
    pub fn watch_with(&self, options: WatchOptions) -> Result<ObjectWatcher, RegistryError> {
        check_fields(options.kind, &options.fields)?;
        if !self.inner.cache.synced() {
            return Err(RegistryError::Unavailable {
                reason: "this master is still reading its state".into(),
                leader: None,
            });
        }
        let interval = self.inner.options.bookmark_interval;
        ObjectWatcher::start(Arc::clone(&self.inner.cache), options, interval)
    }
}

fn check_fields(kind: Option<&Kind>, fields: &FieldSelector) -> Result<(), RegistryError> {
    for path in fields.paths() {
        let known = matches!(path, "metadata.name" | "metadata.namespace")
            || kind.is_none_or(|kind| kind.selectable.contains(&path));
        if !known {
            return Err(RegistryError::BadRequest(format!("field label not supported: {path}")));
        }
    }
    Ok(())
}

/// Where a page of a list begins. All pages of a list show the revision of the first one.
struct Page {
    revision: u64,
    namespace: String,
    name: String,
}

impl Page {
    fn after(last: &Object, revision: u64) -> Self {
        let (namespace, name) = (last.namespace().to_owned(), last.name().to_owned());
        Self { revision, namespace, name }
    }

    fn token(&self) -> String {
        format!("{}:{}/{}", self.revision, self.namespace, self.name)
    }

    fn parse(token: &str) -> Result<Self, RegistryError> {
        let parse = || {
            let (revision, place) = token.split_once(':')?;
            let (namespace, name) = place.split_once('/')?;
            Some(Self {
                revision: revision.parse().ok()?,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        };
        parse().ok_or_else(|| {
            RegistryError::BadRequest("continue key is not valid: it is not one of ours".into())
        })
    }

    fn is_before(&self, object: &Object) -> bool {
        (object.namespace(), object.name()) > (&self.namespace, &self.name)
    }
}
