//! Namespaces that are being deleted are emptied first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_objects::kinds;
use quorate_registry::{EventKind, ObjectEvent};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// While pods of the namespace still stop, it is looked at this often.
const POLL: Duration = Duration::from_millis(500);

/// The controller that ends namespaces.
pub struct Namespaces {
    context: Arc<Context>,
}

impl Namespaces {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let object = event.object.as_ref().filter(|object| *object.kind == kinds::NAMESPACE);
        let ending = |meta: &quorate_registry::Object| meta.meta.deletion_timestamp.is_some();
        let object = object.filter(|object| event.kind != EventKind::Deleted && ending(object));
        object.map(|object| key_of(object)).into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::NAMESPACE)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let registry = self.context.registry();
        let found = registry.cache().get(&kinds::NAMESPACE, "", &key.name);
        if found.is_none_or(|namespace| namespace.meta.deletion_timestamp.is_none()) {
            return Ok(Requeue::Done);
        }
        let gone = registry.purge_namespace(&key.name, Some(self.context.term())).await?;
        Ok(if gone { Requeue::Done } else { Requeue::After(POLL) })
    }
}
