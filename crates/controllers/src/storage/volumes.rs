//! Volumes: whose they are, and what becomes of them when their claim is gone.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use quorate_objects::kinds;
use quorate_objects::storage::{self, DATA_FINALIZER, VOLUME_PROTECTION};
use quorate_registry::{EventType, ObjectEvent, Propagation};

use super::release;
use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// The controller of PersistentVolumes.
pub struct Volumes {
    context: Arc<Context>,
}

impl Volumes {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// "Available", "Bound" or "Released".
    fn phase(&self, volume: &PersistentVolume) -> &'static str {
        let Some(reference) = storage::claim_ref(volume) else { return "Available" };
        if reference.uid.as_deref().unwrap_or_default().is_empty() {
            return "Available";
        }
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        // Whoever sees the volume's reference has seen the claim before: one that is not there is
        // gone, not late.
        let claim = self.context.get::<PersistentVolumeClaim>(namespace, name);
        let claim = claim.filter(|claim| storage::is_bound_to(volume, claim));
        let own = volume.metadata.name.as_deref();
        let has = |claim: Arc<PersistentVolumeClaim>| {
            storage::volume_of(&claim).is_none_or(|volume| Some(volume) == own)
        };
        if claim.is_some_and(has) { "Bound" } else { "Released" }
    }

    /// Carries out the reclaim policy of a volume that was a claim's; answers why it cannot.
    async fn reclaim(&self, volume: &PersistentVolume) -> Result<Option<String>, ControllerError> {
        let spec = volume.spec.clone().unwrap_or_default();
        match spec.persistent_volume_reclaim_policy.as_deref() {
            Some("Delete") if storage::docker_volume(volume).is_some() => {
                let kind = &kinds::PERSISTENT_VOLUME;
                let propagation = Propagation::Background;
                self.context.delete(kind, &volume.metadata, None, propagation).await?;
                Ok(None)
            }
            Some(policy @ ("Delete" | "Recycle")) => {
                let text = format!("nobody here can {} its data", policy.to_lowercase());
                self.context.event(volume, EventType::Warning, "VolumeFailedDelete", &text);
                Ok(Some(text))
            }
            _ => Ok(None),
        }
    }

    async fn set_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<String>,
    ) -> Result<(), ControllerError> {
        let mut updated = volume.clone();
        let status = updated.status.get_or_insert_default();
        if status.phase.as_deref() != Some(phase) || status.message != message {
            status.phase = Some(phase.to_owned());
            status.message = message;
            status.last_phase_transition_time = Some(quorate_objects::time::now());
            self.context.update_status(&updated).await?;
        }
        Ok(())
    }

    /// Takes away what keeps a volume that is being deleted, as far as it is ours to do: its
    /// node's agent takes away the last one when it has removed the data.
    async fn let_go(&self, volume: &PersistentVolume) -> Result<(), ControllerError> {
        if self.phase(volume) == "Bound" {
            return Ok(());
        }
        let mut freed = volume.clone();
        let mut changed = release(&mut freed.metadata, VOLUME_PROTECTION);
        match storage::data_to_remove(&freed) {
            Some(data) if self.context.get::<Node>("", data.node).is_some() => {}
            Some(data) => {
                let text = format!("node \"{}\" is gone, and the data with it", data.node);
                self.context.event(volume, EventType::Warning, "VolumeDelete", &text);
                changed |= release(&mut freed.metadata, DATA_FINALIZER);
            }
            // It is to be kept.
            None => changed |= release(&mut freed.metadata, DATA_FINALIZER),
        }
        if changed {
            self.context.update(&freed).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "persistentvolume"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::PERSISTENT_VOLUME {
            return vec![key_of(object)];
        }
        if *object.kind == kinds::NODE && event.kind == quorate_registry::EventKind::Deleted {
            return self.all();
        }
        if *object.kind != kinds::PERSISTENT_VOLUME_CLAIM {
            return Vec::new();
        }
        let Ok(claim) = object.typed::<PersistentVolumeClaim>() else { return Vec::new() };
        let key = |name: &str| Key {
            kind: &kinds::PERSISTENT_VOLUME,
            namespace: String::new(),
            name: name.to_owned(),
        };
        storage::volume_of(&claim).map(key).into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::PERSISTENT_VOLUME)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(volume) = self.context.get::<PersistentVolume>("", &key.name) else {
            return Ok(Requeue::Done);
        };
        if volume.metadata.deletion_timestamp.is_some() {
            self.let_go(&volume).await?;
            return Ok(Requeue::Done);
        }
        let phase = self.phase(&volume);
        let known = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        // First it says so, and then, woken by that, the policy is carried out.
        if phase == "Released" && matches!(known, Some("Released" | "Failed")) {
            if let Some(why) = self.reclaim(&volume).await? {
                self.set_phase(&volume, "Failed", Some(why)).await?;
            }
        } else {
            self.set_phase(&volume, phase, None).await?;
        }
        Ok(Requeue::Done)
    }
}
