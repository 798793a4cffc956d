//! What owned objects leave behind: dependents of an owner that is gone, and the finalizers
//! with which an owner waits for its dependents.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use quorate_objects::{Kind, kinds, kinds::kinds as all_kinds};
use quorate_registry::{EventKind, EventType, Object, ObjectEvent, Propagation};
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
    /// It exists, or nobody can tell: see [`place_of`].
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
    fn owner(&self, object: &Object, reference: &OwnerReference) -> Owner {
        let Some(Key { kind, namespace, name }) = place_of(object, reference) else {
            return Owner::Alive;
        };
        let found = self.context.registry().cache().get(kind, &namespace, &name);
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

    /// Deletes a dependent, or, when another owner lives, takes the references to owners that are
    /// gone or wait for it out of it. Says whether it has taken any out.
    async fn as_dependent(&self, object: &Arc<Object>) -> Result<bool, ControllerError> {
        let references = object.meta.owner_references.as_deref().unwrap_or_default();
        if references.is_empty() || is_deleting(object) {
            return Ok(false);
        }
        self.tell_misplaced(object, references);
        let states: Vec<Owner> = references.iter().map(|r| self.owner(object, r)).collect();
        if states.contains(&Owner::Alive) {
            let lost = |uid: &str| {
                references.iter().zip(&states).any(|(r, s)| r.uid == uid && *s != Owner::Alive)
            };
            let any = states.iter().any(|state| *state != Owner::Alive);
            if any {
                self.drop_references(object, lost).await?;
            }
            return Ok(any);
        }
        let waiting = states.contains(&Owner::Waiting);
        let has_dependents = !self.dependents(object).is_empty();
        let propagation = if waiting && has_dependents {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        tracing::info!(?object, "deleted: its owner is gone");
        self.context.delete(object.kind, &object.meta, None, propagation).await?;
        Ok(false)
    }

    /// Kubernetes says so in the same words.
    fn tell_misplaced(&self, object: &Object, references: &[OwnerReference]) {
        for one in references.iter().filter(|one| is_misplaced(object, one)) {
            let OwnerReference { api_version, kind, name, uid, .. } = one;
            let message = format!(
                "ownerRef [{api_version}/{kind}, namespace: , name: {name}, uid: {uid}] does not \
                 exist in namespace \"\""
            );
            let (event_type, reason) = (EventType::Warning, "OwnerRefInvalidNamespace");
            self.context.event_about(object, event_type, reason, &message);
        }
    }

    /// Carries out the finalizers of an owner that is being deleted.
    async fn as_owner(&self, object: &Arc<Object>) -> Result<Requeue, ControllerError> {
        if !is_deleting(object) {
            return Ok(Requeue::Done);
        }
        if has_finalizer(object, ORPHAN) {
            for dependent in self.dependents(object) {
                self.drop_references(&dependent, |uid| uid == object.uid()).await?;
            }
            self.remove_finalizer(object, ORPHAN).await?;
            return Ok(Requeue::Done);
        }
        if !has_finalizer(object, FOREGROUND) {
            return Ok(Requeue::Done);
        }
        let place = Some(key_of(object));
        let blocks = |dependent: &Arc<Object>| {
            let references = dependent.meta.owner_references.iter().flatten();
            // A reference that leads elsewhere, or nowhere, would keep it waiting for ever.
            let mut ours =
                references.filter(|r| r.uid == object.uid() && place_of(dependent, r) == place);
            ours.any(|r| r.block_owner_deletion == Some(true))
        };
        let dependents = self.dependents(object);
        if dependents.iter().any(blocks) {
            let mut let_go = false;
            for dependent in &dependents {
                let_go |= self.as_dependent(dependent).await?;
            }
            // Of those that stay no event tells this owner.
            return Ok(if let_go { Requeue::After(Duration::ZERO) } else { Requeue::Done });
        }
        self.remove_finalizer(object, FOREGROUND).await?;
        Ok(Requeue::Done)
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

/// The kind that is meant: owners may be named in any version of theirs.
fn kind_of(reference: &OwnerReference) -> Option<&'static Kind> {
    let (group, _) = reference.api_version.rsplit_once('/').unwrap_or_default();
    kinds::find(|kind| kind.kind == reference.kind && kind.group == group)
}

/// Does an object without a namespace name an owner that has one? Nobody can tell which it is.
fn is_misplaced(object: &Object, reference: &OwnerReference) -> bool {
    kind_of(reference).is_some_and(|kind| kind.namespaced && object.namespace().is_empty())
}

/// Where an owner is to be found; `None`: nobody can tell, because its kind is not served here or
/// the object is misplaced.
fn place_of(object: &Object, reference: &OwnerReference) -> Option<Key> {
    let kind = kind_of(reference).filter(|_| !is_misplaced(object, reference))?;
    let namespace = if kind.namespaced { object.namespace() } else { "" };
    Some(Key { kind, namespace: namespace.to_owned(), name: reference.name.clone() })
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
            keys.extend(references.filter_map(|reference| place_of(object, reference)));
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
        let requeue = self.as_owner(&object).await?;
        self.as_dependent(&object).await?;
        Ok(requeue)
    }
}
