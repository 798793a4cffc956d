//! Claims that pods bring along: made for the pod, gone with it.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_objects::{kinds, pod};
use quorate_registry::{EventKind, EventType, Object, ObjectEvent};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// The controller of `volumes[].ephemeral` of pods; its keys are pods.
pub struct EphemeralClaims {
    context: Arc<Context>,
}

impl EphemeralClaims {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn ensure(&self, object: &Pod, volume: &Volume) -> Result<(), ControllerError> {
        let template = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref());
        let Some(template) = template else { return Ok(()) };
        let meta = &object.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = format!("{}-{}", meta.name.as_deref().unwrap_or_default(), volume.name);
        if let Some(present) = self.context.get::<PersistentVolumeClaim>(namespace, &name) {
            let owner = pod::controller_of(&present.metadata).map(|owner| owner.uid.as_str());
            if owner != meta.uid.as_deref() {
                let text = format!(
                    "PVC \"{namespace}/{name}\" was not created for the pod; delete it, or call \
                     the volume otherwise"
                );
                self.context.event(object, EventType::Warning, "FailedBinding", &text);
            }
            return Ok(());
        }
        let more = template.metadata.clone().unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: meta.namespace.clone(),
                labels: more.labels,
                annotations: more.annotations,
                owner_references: Some(vec![pod::controller_reference(object)]),
                ..ObjectMeta::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        };
        match self.context.create(&claim).await {
            Ok(_) | Err(ControllerError::AlreadyExists(_)) => Ok(()),
            Err(error) => {
                let text = format!("ephemeral volume {}: {error}", volume.name);
                self.context.event(object, EventType::Warning, "FailedCreate", &text);
                Err(error)
            }
        }
    }
}

fn volumes(object: &Pod) -> impl Iterator<Item = &Volume> {
    let all = object.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    all.filter(|volume| volume.ephemeral.is_some())
}

/// Does the pod bring claims along? Hardly any does, so that most are not decoded for it.
fn brings(object: &Object) -> bool {
    object.mentions("ephemeral")
        && object.typed::<Pod>().is_ok_and(|pod| volumes(&pod).next().is_some())
}

#[async_trait]
impl Controller for EphemeralClaims {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = event.object.as_ref().filter(|o| *o.kind == kinds::POD) else {
            return Vec::new();
        };
        let bound = object.field("spec.nodeName").is_some_and(|node| !node.is_empty());
        let open = event.kind != EventKind::Deleted && !bound;
        if open && brings(object) { vec![key_of(object)] } else { Vec::new() }
    }

    fn all(&self) -> Vec<Key> {
        let pods = self.context.registry().cache().list(&kinds::POD, None);
        pods.iter().filter(|object| brings(object)).map(|object| key_of(object)).collect()
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(object) = self.context.get::<Pod>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        if pod::is_active(&object) {
            for volume in volumes(&object) {
                self.ensure(&object, volume).await?;
            }
        }
        Ok(Requeue::Done)
    }
}
