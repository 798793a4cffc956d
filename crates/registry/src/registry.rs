//! [`Registry`]: reads and watches. Writes are in the modules beside this one.

use std::sync::Arc;
use std::time::Duration;

use quorate_objects::{FieldSelector, Kind, Selector};
use quorate_store::{Consistency, SharedStore};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::error::RegistryError;
use crate::events::EventRecorder;
use crate::heartbeats::Heartbeats;
use crate::object::{Object, ObjectKey};
use crate::options::{ListOptions, RegistryOptions};
use crate::watcher::{ObjectWatcher, WatchOptions};

/// Typed objects over the store. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: SharedStore,
    pub cache: Arc<Cache>,
    pub options: RegistryOptions,
    pub heartbeats: Arc<Heartbeats>,
    pub events: EventRecorder,
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
}

impl Registry {
    /// Starts the cache and the recorder of events, which run until `cancel`.
    #[must_use]
    pub fn start(store: SharedStore, options: RegistryOptions, cancel: CancellationToken) -> Self {
        let cache = Arc::new(Cache::new(options.watch_ring));
        let (events, queue) = EventRecorder::new();
        // Task "registry cache": ends with `cancel` only; it logs and retries its failures.
        tokio::spawn(crate::feed::run(Arc::clone(&store), Arc::clone(&cache), cancel.clone()));
        let heartbeats = Arc::default();
        let registry =
            Self { inner: Arc::new(Inner { store, cache, options, heartbeats, events }) };
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
    async fn freshen(&self, consistency: Consistency) -> Result<(), RegistryError> {
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
        self.freshen(consistency).await?;
        let after = options.continue_token.as_deref().map(parse_token).transpose()?;
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        Ok(self.inner.cache.read(|view| {
            let matching = view.iter(kind, namespace).filter(|object| {
                let place = (object.namespace(), object.name());
                after.as_ref().is_none_or(|(ns, name)| place > (ns.as_str(), name.as_str()))
                    && options.labels.matches(object.labels())
                    && object.matches_fields(&options.fields)
            });
            let mut items: Vec<_> = matching.take(limit.saturating_add(1)).cloned().collect();
            let more = items.len() > limit;
            items.truncate(limit);
            let continue_token = items.last().filter(|_| more).map(|last| token(last));
            List { revision: view.revision(), items, continue_token }
        }))
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

/// Pages follow each other by name: a page shows the revision at which it is read.
fn token(last: &Object) -> String {
    format!("{}/{}", last.namespace(), last.name())
}

fn parse_token(token: &str) -> Result<(String, String), RegistryError> {
    let (namespace, name) = token
        .split_once('/')
        .ok_or_else(|| RegistryError::BadRequest("the continue token is not one of ours".into()))?;
    Ok((namespace.to_owned(), name.to_owned()))
}
