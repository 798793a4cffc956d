//! What owned objects leave behind: dependents of an owner that is gone, and the finalizers
//! with which an owner waits for its dependents.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use quorate_objects::{Kind, kinds, kinds::kinds as all_kinds};
use quorate_registry::{EventKind, Object, ObjectEvent, Propagation};
use serde_json::Value;

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The controller of owner references.
pub struct GarbageCollector {
    context: Arc<Context>,
}

/// What an owner reference points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It exists, or is of a kind that is not served here (and then nobody can tell).
    Alive,
    /// It exists and waits for its dependents to go.
    Waiting,
    /// It does not exist (any more).
    Gone,
}

impl GarbageCollector {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Looks the owner up, by uid: a later object of the same name is another one.
    fn owner(&self, namespace: &str, reference: &OwnerReference) -> Owner {
        let Some(kind) = Kind::by_gvk(&reference.api_version, &reference.kind) else {
            return Owner::Alive;
        };
        let namespace = if kind.namespaced { namespace } else { "" };
        let found = self.context.registry().cache().get(kind, namespace, &reference.name);
        match found.filter(|owner| owner.uid() == reference.uid) {
            None => Owner::Gone,
            Some(owner) if is_deleting(&owner) && has_finalizer(&owner, FOREGROUND) => {
                Owner::Waiting
            }
            Some(_) => Owner::Alive,
        }
    }

    fn dependents(&self, object: &Object) -> Vec<Arc<Object>> {
        self.context.registry().cache().by_owner(object.uid())
    }

    /// Deletes a dependent, or takes the references to owners that are gone out of it.
    async fn as_dependent(&self, object: &Arc<Object>) -> Result<(), ControllerError> {
        let references = object.meta.owner_references.as_deref().unwrap_or_default();
        if references.is_empty() || is_deleting(object) {
            return Ok(());
        }
        let states: Vec<Owner> =
            references.iter().map(|r| self.owner(object.namespace(), r)).collect();
        if states.contains(&Owner::Alive) {
            let gone = |uid: &str| {
                references.iter().zip(&states).any(|(r, s)| r.uid == uid && *s == Owner::Gone)
            };
            if states.contains(&Owner::Gone) {
                self.drop_references(object, gone).await?;
            }
            return Ok(());
        }
        let waiting = states.contains(&Owner::Waiting);
        let has_dependents = !self.dependents(object).is_empty();
        let propagation = if waiting && has_dependents {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        tracing::info!(?object, "deleted: its owner is gone");
        self.context.delete(object.kind, &object.meta, None, propagation).await
    }

    /// Carries out the finalizers of an owner that is being deleted.
    async fn as_owner(&self, object: &Arc<Object>) -> Result<(), ControllerError> {
        if !is_deleting(object) {
            return Ok(());
        }
        if has_finalizer(object, ORPHAN) {
            for dependent in self.dependents(object) {
                self.drop_references(&dependent, |uid| uid == object.uid()).await?;
            }
            return self.remove_finalizer(object, ORPHAN).await;
        }
        if !has_finalizer(object, FOREGROUND) {
            return Ok(());
        }
        let blocks = |dependent: &Arc<Object>| {
            let references = dependent.meta.owner_references.iter().flatten();
            let mut ours = references.filter(|r| r.uid == object.uid());
            ours.any(|r| r.block_owner_deletion == Some(true))
        };
        let dependents = self.dependents(object);
        if dependents.iter().any(blocks) {
            for dependent in &dependents {
                self.as_dependent(dependent).await?;
            }
            return Ok(());
        }
        self.remove_finalizer(object, FOREGROUND).await
    }

    async fn drop_references(
        &self,
        object: &Object,
        doomed: impl Fn(&str) -> bool,
    ) -> Result<(), ControllerError> {
        let mut value = object.value();
        let metadata = &mut value["metadata"];
        if let Some(references) = metadata["ownerReferences"].as_array_mut() {
            references.retain(|r| !doomed(r["uid"].as_str().unwrap_or_default()));
        }
        self.context.update_value(value).await?;
        Ok(())
    }

    async fn remove_finalizer(&self, object: &Object, name: &str) -> Result<(), ControllerError> {
        let mut value = object.value();
        if let Some(Value::Array(finalizers)) = value["metadata"].get_mut("finalizers") {
            finalizers.retain(|finalizer| finalizer != name);
        }
        self.context.update_value(value).await?;
        Ok(())
    }
}

fn is_deleting(object: &Object) -> bool {
    object.meta.deletion_timestamp.is_some()
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

/// Is there something to do for an object now or later?
fn concerns(object: &Object) -> bool {
    let owned = object.meta.owner_references.as_ref().is_some_and(|refs| !refs.is_empty());
    owned
        || (is_deleting(object)
            && (has_finalizer(object, ORPHAN) || has_finalizer(object, FOREGROUND)))
}

#[async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        // Events are many and own nothing.
        if *object.kind == kinds::EVENT {
            return Vec::new();
        }
        let mut keys = Vec::new();
        if event.kind == EventKind::Deleted {
            keys.extend(self.dependents(object).iter().map(|dependent| key_of(dependent)));
            // Owners that wait for this one.
            let references = object.meta.owner_references.iter().flatten();
            keys.extend(references.filter_map(|reference| {
                let kind = Kind::by_gvk(&reference.api_version, &reference.kind)?;
                let namespace = if kind.namespaced { object.namespace() } else { "" };
                let name = reference.name.clone();
                Some(Key { kind, namespace: namespace.to_owned(), name })
            }));
        } else if concerns(object) {
            keys.push(key_of(object));
        }
        keys
    }

    fn all(&self) -> Vec<Key> {
        let cache = self.context.registry().cache();
        let kinds = all_kinds().into_iter().filter(|kind| **kind != kinds::EVENT);
        let objects = kinds.flat_map(|kind| cache.list(kind, None));
        objects.filter(|object| concerns(object)).map(|object| key_of(&object)).collect()
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let found = self.context.registry().cache().get(key.kind, &key.namespace, &key.name);
        let Some(object) = found else { return Ok(Requeue::Done) };
        self.as_owner(&object).await?;
        self.as_dependent(&object).await?;
        Ok(Requeue::Done)
    }
}
