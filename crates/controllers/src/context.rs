//! [`Context`]: how a controller reads the cache and writes with the term as fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_objects::{Kind, Typed};
use quorate_registry::{
    Consistency, DeleteOptions, EventRecord, EventType, Object, Propagation, Registry,
    RegistryError, WriteOptions,
};
use quorate_store::Term;
use serde_json::Value;

use crate::error::ControllerError;
use crate::queue::Key;

/// How long a reconciliation waits for the cache to show what was written before.
const CACHE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to learn what came of a write.
const RETRY: Duration = Duration::from_millis(200);
/// Letters that make no words.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// A name is to fit into a label together with the suffix.
const PREFIX_MAX: usize = 58;

/// What a controller reads and writes with. Each controller has its own.
pub struct Context {
    registry: Registry,
    term: Term,
    component: &'static str,
    written: AtomicU64,
}

impl Context {
    /// For one controller of the leader of `term`.
    #[must_use]
    pub fn new(registry: Registry, term: Term, component: &'static str) -> Self {
        Self { registry, term, component, written: AtomicU64::new(0) }
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The leader's term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Waits until the cache shows everything that this controller has written.
    ///
    /// # Errors
    /// When the cache does not get there in time.
    pub async fn caught_up(&self) -> Result<(), ControllerError> {
        let revision = self.written.load(Ordering::Acquire);
        Ok(self.registry.cache().wait(revision, CACHE_TIMEOUT).await?)
    }

    /// One object from the cache.
    #[must_use]
    pub fn get<T: Typed>(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        decoded(&self.registry.cache().get(T::kind(), namespace, name)?)
    }

    /// All objects of a type from the cache.
    #[must_use]
    pub fn list<T: Typed>(&self, namespace: Option<&str>) -> Vec<Arc<T>> {
        let all = self.registry.cache().list(T::kind(), namespace);
        all.iter().filter_map(decoded).collect()
    }

    /// The objects of a type that refer to `uid` as an owner.
    #[must_use]
    pub fn owned<T: Typed>(&self, uid: &str) -> Vec<Arc<T>> {
        let owned = self.registry.cache().by_owner(uid);
        owned.iter().filter(|object| object.kind == T::kind()).filter_map(decoded).collect()
    }

    /// The keys of all objects of a kind.
    #[must_use]
    pub fn keys(&self, kind: &'static Kind) -> Vec<Key> {
        self.registry.cache().list(kind, None).iter().map(|object| key_of(object)).collect()
    }

    /// Creates an object. A name is made here when there is only a `generateName`, so that a
    /// creation with unknown outcome can be tried again without being made twice.
    ///
    /// # Errors
    /// As the registry.
    pub async fn create<T: Typed>(&self, object: &T) -> Result<Arc<Object>, ControllerError> {
        let mut value = value_of(object)?;
        let meta = &value["metadata"];
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let prefix = meta["generateName"].as_str().unwrap_or_default();
            value["metadata"]["name"] = generated_name(prefix).into();
        }
        let mut unknown = false;
        loop {
            let result = self.registry.create(value.clone(), &self.options()).await;
            match self.noted(result) {
                Err(ControllerError::OutcomeUnknown(_)) => unknown = true,
                // Ours, of the attempt before: the name is random.
                Err(ControllerError::AlreadyExists(_)) if unknown => {
                    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
                    let (namespace, name) = (text("namespace"), text("name"));
                    let consistency = Consistency::Linearizable;
                    let read = self.registry.get(T::kind(), namespace, name, consistency).await;
                    return self.noted(read);
                }
                settled => return settled,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Replaces an object (not its status); its resourceVersion is the precondition.
    ///
    /// # Errors
    /// As the registry.
    pub async fn update<T: Typed>(&self, object: &T) -> Result<Arc<Object>, ControllerError> {
        self.update_value(value_of(object)?).await
    }

    /// [`Context::update`] of an object of any kind.
    ///
    /// # Errors
    /// As the registry.
    pub async fn update_value(&self, value: Value) -> Result<Arc<Object>, ControllerError> {
        let result = self.registry.update(value, &self.options()).await;
        self.noted(result)
    }

    /// Replaces an object's status; its resourceVersion is the precondition.
    ///
    /// # Errors
    /// As the registry.
    pub async fn update_status<T: Typed>(
        &self,
        object: &T,
    ) -> Result<Arc<Object>, ControllerError> {
        let result = self.registry.update_status(value_of(object)?, &self.options()).await;
        self.noted(result)
    }

    /// Deletes an object, as long as it is this very one. Gone already is fine.
    ///
    /// # Errors
    /// As the registry.
    pub async fn delete(
        &self,
        kind: &'static Kind,
        meta: &ObjectMeta,
        grace_seconds: Option<u32>,
        propagation: Propagation,
    ) -> Result<(), ControllerError> {
        let options = DeleteOptions {
            uid: meta.uid.clone(),
            grace_seconds,
            propagation,
            fence: Some(self.term),
            ..DeleteOptions::default()
        };
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        loop {
            let result = self.registry.delete(kind, namespace, name, &options).await;
            match self.noted(result.map(|deleted| deleted.object)) {
                // Another one might be deleted in its place if this one's fate were left open.
                Err(ControllerError::OutcomeUnknown(_)) => tokio::time::sleep(RETRY).await,
                Err(ControllerError::NotFound(_)) | Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells users what happened to an object.
    pub fn event<T: Typed>(&self, about: &T, event_type: EventType, reason: &str, message: &str) {
        let meta = about.metadata();
        let object = ObjectReference {
            api_version: Some(T::kind().api_version()),
            kind: Some(T::kind().kind.to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        };
        self.registry.events().record(EventRecord {
            object,
            event_type,
            reason: reason.to_owned(),
            message: message.to_owned(),
            component: self.component.to_owned(),
            host: None,
            fence: Some(self.term),
        });
    }

    /// [`Context::event`] about an object of any kind.
    pub fn event_about(&self, object: &Object, kind: EventType, reason: &str, message: &str) {
        let (component, fence) = (self.component, Some(self.term));
        let record = EventRecord::about(object, kind, reason, message, component, fence);
        self.registry.events().record(record);
    }

    fn options(&self) -> WriteOptions {
        WriteOptions::fenced(self.term)
    }

    /// Remembers the revision of a write.
    fn noted(
        &self,
        result: Result<Arc<Object>, RegistryError>,
    ) -> Result<Arc<Object>, ControllerError> {
        let object = result?;
        self.written.fetch_max(object.revision, Ordering::AcqRel);
        Ok(object)
    }
}

/// The key of an object.
#[must_use]
pub fn key_of(object: &Object) -> Key {
    Key {
        kind: object.kind,
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
    }
}

/// The key of the controller of an object, when it is of this kind.
#[must_use]
pub fn controller_key(kind: &'static Kind, meta: &ObjectMeta) -> Option<Key> {
    let owner = quorate_objects::pod::controller_of(meta)?;
    (owner.kind == kind.kind && owner.api_version == kind.api_version()).then(|| Key {
        kind,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: owner.name.clone(),
    })
}

fn decoded<T: Typed>(object: &Arc<Object>) -> Option<Arc<T>> {
    match object.typed::<T>() {
        Ok(typed) => Some(typed),
        Err(error) => {
            tracing::error!(?object, "an object in the cache cannot be decoded: {error}");
            None
        }
    }
}

fn value_of<T: Typed>(object: &T) -> Result<Value, ControllerError> {
    Ok(object.to_value()?)
}

fn generated_name(prefix: &str) -> String {
    let suffix = (0..5).map(|_| char::from(SUFFIX[rand::random_range(0..SUFFIX.len())]));
    prefix.chars().take(PREFIX_MAX).chain(suffix).collect()
}
