//! Resource quotas: what is used of them. The registry counts creations itself; here what went
//! away, or changed, is taken into account.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use quorate_objects::kinds;
use quorate_registry::{EventKind, Object, ObjectEvent, quota};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// A master that does not know of a new quota yet admits without counting. So much later all do,
/// and it is counted once more.
const KNOWN_EVERYWHERE: Duration = Duration::from_secs(5);

/// The controller of ResourceQuotas.
pub struct Quotas {
    context: Arc<Context>,
}

impl Quotas {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

/// Can the object use less of a quota than before? What it uses more is counted by the registry.
fn may_use_less(event: &ObjectEvent, object: &Object) -> bool {
    match event.kind {
        EventKind::Deleted => true,
        EventKind::Modified if *object.kind == kinds::POD => {
            matches!(object.field("status.phase"), Some("Succeeded" | "Failed"))
        }
        EventKind::Modified => {
            [&kinds::SERVICE, &kinds::PERSISTENT_VOLUME_CLAIM].contains(&object.kind)
        }
        EventKind::Added | EventKind::Bookmark => false,
    }
}

#[async_trait]
impl Controller for Quotas {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::RESOURCE_QUOTA {
            return vec![key_of(object)];
        }
        if !object.kind.namespaced || *object.kind == kinds::EVENT || !may_use_less(event, object) {
            return Vec::new();
        }
        let cache = self.context.registry().cache();
        let quotas = cache.list(&kinds::RESOURCE_QUOTA, Some(object.namespace()));
        quotas.iter().map(|quota| key_of(quota)).collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::RESOURCE_QUOTA)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        // Decoded before the cache is locked, so that nobody waits for that.
        let _pods = self.context.list::<Pod>(Some(&key.namespace));
        // The quota and what uses it at one revision: whoever was admitted after it has changed
        // the quota too, and the write below is refused.
        let found = self.context.registry().cache().read(|view| {
            let object = view.get(&kinds::RESOURCE_QUOTA, &key.namespace, &key.name)?;
            let quota = object.typed::<ResourceQuota>().ok()?;
            let used = quota::counted_usage(view, &quota);
            Some((quota, used))
        });
        let Some((quota, used)) = found else { return Ok(Requeue::Done) };
        let status = quota::status(&quota, &used);
        let new = quota.status.as_ref().is_none_or(|status| status.used.is_none());
        if quota.status.as_ref() != Some(&status) {
            let mut updated = ResourceQuota::clone(&quota);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        Ok(if new { Requeue::After(KNOWN_EVERYWHERE) } else { Requeue::Done })
    }
}

#[cfg(test)]
#[path = "quotas_test.rs"]
mod tests;
