//! Definitions of custom kinds that are being deleted: their objects go first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use quorate_objects::kinds::{self, CLEANUP_FINALIZER};
use quorate_registry::{DeleteOptions, EventKind, Object, ObjectEvent, WriteOptions};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// While objects wait for their finalizers, the definition is looked at this often.
const POLL: Duration = Duration::from_millis(500);

/// The controller that ends custom kinds.
pub struct CustomResources {
    context: Arc<Context>,
}

impl CustomResources {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Deletes all objects of the definition's kind; says whether any are left.
    async fn empty(&self, definition: &str) -> Result<bool, ControllerError> {
        let registry = self.context.registry();
        let Some(kind) = kinds::find(|kind| kind.is_custom() && kind.resource() == definition)
        else {
            return Ok(false);
        };
        let options =
            DeleteOptions { fence: Some(self.context.term()), ..DeleteOptions::default() };
        let mut left = false;
        for object in registry.cache().list(kind, None) {
            match registry.delete(kind, object.namespace(), object.name(), &options).await {
                Ok(deleted) => left |= !deleted.gone,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(left)
    }
}

fn is_ending(object: &Object) -> bool {
    let finalizers = object.meta.finalizers.iter().flatten();
    object.is_deleting() && finalizers.into_iter().any(|one| one == CLEANUP_FINALIZER)
}

#[async_trait]
impl Controller for CustomResources {
    fn name(&self) -> &'static str {
        "custom-resources"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let object = event.object.as_ref();
        let object = object.filter(|o| *o.kind == kinds::CUSTOM_RESOURCE_DEFINITION);
        let object = object.filter(|o| event.kind != EventKind::Deleted && is_ending(o));
        object.map(|object| key_of(object)).into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::CUSTOM_RESOURCE_DEFINITION)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let registry = self.context.registry();
        let kind = &kinds::CUSTOM_RESOURCE_DEFINITION;
        let found = registry.cache().get(kind, "", &key.name);
        if !found.is_some_and(|definition| is_ending(&definition)) {
            return Ok(Requeue::Done);
        }
        if self.empty(&key.name).await? {
            return Ok(Requeue::After(POLL));
        }
        let options = WriteOptions::fenced(self.context.term());
        let forget = |definition: &mut CustomResourceDefinition| {
            let Some(finalizers) = &mut definition.metadata.finalizers else { return false };
            let before = finalizers.len();
            finalizers.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
            finalizers.len() != before
        };
        let done =
            registry.modify::<CustomResourceDefinition>(kind, "", &key.name, &options, forget);
        match done.await {
            Ok(_) => Ok(Requeue::Done),
            Err(error) if error.is_not_found() => Ok(Requeue::Done),
            Err(error) => Err(error.into()),
        }
    }
}
