//! Deleting objects: grace, finalizers, propagation.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use quorate_objects::{Kind, kinds};
use serde_json::Value;

use crate::alloc::Allocations;
use crate::commit::{Loaded, Outcome, Plan, decode_kv, encode};
use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{DeleteOptions, Propagation, Subresource, WriteOptions};
use crate::precondition::uid_mismatch;
use crate::prepare::metadata_mut;
use crate::registry::Registry;
use crate::system::SYSTEM_NAMESPACES;
use crate::write::busy;

const ATTEMPTS: usize = 32;
/// What keeps a namespace until its content is gone.
const CONTENT: &str = "kubernetes";
const DEFAULT_GRACE: u64 = 30;

/// What came of a deletion.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The object as it was, or, when it goes on for a while, as it is now.
    pub object: Arc<Object>,
    /// Is it gone already?
    pub gone: bool,
}

impl Registry {
    /// Deletes an object, or marks it for deletion: a pod that runs gets its grace period and
    /// goes when its agent says so (a deletion with grace 0); finalizers keep an object until
    /// they are removed; a namespace goes after its content.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Conflict`] for the preconditions;
    /// [`RegistryError::Forbidden`] for system namespaces.
    pub async fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        let key = ObjectKey::new(kind, namespace, name);
        if kind == &kinds::NAMESPACE && SYSTEM_NAMESPACES.contains(&name) {
            return Err(RegistryError::Forbidden(format!(
                "namespaces \"{name}\" is forbidden: this namespace may not be deleted"
            )));
        }
        let mut base = self.load(&key).await?;
        for _ in 0..ATTEMPTS {
            if let Err(error) = check_preconditions(&key, &base.object, options) {
                if base.verified {
                    return Err(error);
                }
                base = self.reload(&key).await?;
                continue;
            }
            let old = base.object.value();
            let new = marked(kind, &old, options);
            let gone = may_go(kind, &new);
            if new == old && !gone {
                return Ok(Deleted { object: base.object, gone: false });
            }
            match self.delete_once(&key, &base.object, new, gone, options).await? {
                Ok(object) => return Ok(Deleted { object, gone }),
                Err(None) => return Err(key.not_found()),
                Err(Some(object)) => base = Loaded { object, verified: true },
            }
        }
        Err(busy())
    }

    async fn delete_once(
        &self,
        key: &ObjectKey,
        old: &Arc<Object>,
        mut new: Value,
        gone: bool,
        options: &DeleteOptions,
    ) -> Result<Result<Arc<Object>, Option<Arc<Object>>>, RegistryError> {
        let mut plan = Plan::default();
        plan.expect(key.store_key(), old.revision);
        if gone {
            plan.delete(key.store_key());
            Allocations::release_all(key.kind, &old.value(), &mut plan);
        } else {
            plan.put(key.store_key(), encode(&mut new)?);
        }
        if options.dry_run {
            return Ok(Ok(Arc::clone(old)));
        }
        match self.commit(plan, options.fence).await? {
            Outcome::Done(revision) if gone => Ok(Ok(Arc::new(old.at_revision(revision)))),
            Outcome::Done(revision) => {
                Ok(Ok(Arc::new(Object::from_value(key.kind, new, revision)?)))
            }
            Outcome::Failed(found) => {
                decode_kv(key, found.first().and_then(Option::as_ref)).map(Err)
            }
        }
    }

    /// Deletes the content of a namespace that is being deleted, and then the namespace. Returns
    /// whether it is gone; when not (pods need their grace), call again later.
    ///
    /// # Errors
    /// Those of [`Self::delete`].
    pub async fn purge_namespace(
        &self,
        name: &str,
        fence: Option<u64>,
    ) -> Result<bool, RegistryError> {
        let key = ObjectKey::new(&kinds::NAMESPACE, "", name);
        let namespace = match self.reload(&key).await {
            Ok(loaded) => loaded.object,
            Err(error) if error.is_not_found() => return Ok(true),
            Err(error) => return Err(error),
        };
        if !namespace.is_deleting() {
            return Ok(false);
        }
        // Nothing is created in it any more; the cache must have seen everything until then.
        let timeout: Duration = self.inner.options.request_timeout;
        self.inner.cache.wait(namespace.revision, timeout).await?;
        let mut left = false;
        for kind in kinds().into_iter().filter(|kind| kind.namespaced) {
            for object in self.inner.cache.list(kind, Some(name)) {
                let options = DeleteOptions { fence, ..DeleteOptions::default() };
                match self.delete(kind, name, object.name(), &options).await {
                    Ok(deleted) => left |= !deleted.gone,
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if left {
            return Ok(false);
        }
        // Others may have reasons of their own to keep it.
        let options = WriteOptions { fence, ..WriteOptions::default() };
        let mut finalize = |old: &Object| {
            let mut new = old.value();
            let list = new["spec"]["finalizers"].as_array_mut();
            list.into_iter().for_each(|list| list.retain(|one| one != CONTENT));
            Ok(Some(new.into()))
        };
        match self.edit(&key, Subresource::Finalize, &options, &mut finalize).await {
            Ok(namespace) => Ok(may_go(key.kind, &namespace.value())),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn check_preconditions(
    key: &ObjectKey,
    object: &Object,
    options: &DeleteOptions,
) -> Result<(), RegistryError> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != object.uid()) {
        return Err(key.conflict(uid_mismatch(uid, object.uid())));
    }
    if let Some(revision) = options.revision.filter(|revision| *revision != object.revision) {
        return Err(key.conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion \
             in object meta: {}",
            object.revision
        )));
    }
    Ok(())
}

/// The object with the marks of its deletion.
fn marked(kind: &Kind, old: &Value, options: &DeleteOptions) -> Value {
    let mut new = old.clone();
    let grace = grace(kind, old, options);
    let meta = metadata_mut(&mut new);
    let before = meta.get("deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
    let deleting = meta.contains_key("deletionTimestamp");
    // A second deletion may only shorten the grace period.
    if !deleting || grace < before {
        let seconds = i64::try_from(grace).unwrap_or(i64::MAX);
        let until =
            quorate_objects::time::timestamp().saturating_add(SignedDuration::from_secs(seconds));
        let until = until.unwrap_or(Timestamp::MAX);
        meta.insert("deletionTimestamp".into(), quorate_objects::time::format(until).into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    let finalizer = match options.propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    };
    if let Some(finalizer) = finalizer.filter(|_| !deleting) {
        let finalizers = meta.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|known| known == finalizer)
        {
            list.push(finalizer.into());
        }
    }
    if kind == &kinds::NAMESPACE {
        new["status"]["phase"] = "Terminating".into();
    }
    new
}

/// Seconds that the object gets; only pods that run somewhere get any.
fn grace(kind: &Kind, old: &Value, options: &DeleteOptions) -> u64 {
    let bound = old["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if kind != &kinds::POD || !bound || ended {
        return 0;
    }
    if let Some(seconds) = options.grace_seconds {
        return seconds.into();
    }
    old["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE)
}

/// Is an object in this state to be removed now?
pub(crate) fn may_go(kind: &Kind, value: &Value) -> bool {
    let meta = &value["metadata"];
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    meta["deletionTimestamp"].is_string()
        && meta["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && empty(&meta["finalizers"])
        && (kind != &kinds::NAMESPACE || empty(&value["spec"]["finalizers"]))
}
