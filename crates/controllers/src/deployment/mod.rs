//! Deployments: from the pods of the old template to those of the new one, within the bounds
//! of maxSurge and maxUnavailable at every moment.

mod plan;
mod status;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{Selector, kinds, pod};
use quorate_registry::{EventType, ObjectEvent, Propagation};

use crate::context::{Context, controller_key, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
#[cfg(test)]
pub(crate) use plan::REVISION as TEST_REVISION;
use plan::{Plan, REVISION, Rollout};

/// The controller of Deployments.
pub struct Deployments {
    context: Arc<Context>,
}

impl Deployments {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Its ReplicaSets; orphans that match are adopted first.
    async fn sets(
        &self,
        deployment: &Deployment,
        selector: &Selector,
    ) -> Result<Vec<Arc<ReplicaSet>>, ControllerError> {
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let mut sets = self.context.owned::<ReplicaSet>(uid);
        sets.retain(|set| pod::controller_of(&set.metadata).is_some_and(|owner| owner.uid == uid));
        if deployment.metadata.deletion_timestamp.is_none() {
            for set in self.context.list::<ReplicaSet>(deployment.metadata.namespace.as_deref()) {
                let orphan = pod::controller_of(&set.metadata).is_none()
                    && set.metadata.deletion_timestamp.is_none();
                if orphan && selector.matches_labels(set.metadata.labels.as_ref()) {
                    let mut adopted = ReplicaSet::clone(&set);
                    let owners = adopted.metadata.owner_references.get_or_insert_default();
                    owners.push(pod::controller_reference(deployment));
                    let adopted = self.context.update(&adopted).await?;
                    sets.extend(adopted.typed::<ReplicaSet>().ok());
                }
            }
        }
        sets.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (created, set.metadata.name.clone())
        });
        Ok(sets)
    }

    /// Do pods of these sets still run (those that are being deleted included)?
    fn any_pods(&self, sets: &[Arc<ReplicaSet>]) -> bool {
        let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.into_iter().any(|uid| {
            self.context.owned::<Pod>(uid).iter().any(|object| !pod::is_terminal(object))
        })
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        plan: Plan,
    ) -> Result<bool, ControllerError> {
        let mut acted = false;
        for change in plan.changes {
            acted = true;
            self.context.update(&change.set).await?;
            if let Some(message) = change.event {
                self.context.event(deployment, EventType::Normal, "ScalingReplicaSet", &message);
            }
        }
        for set in plan.remove {
            let kind = &kinds::REPLICA_SET;
            self.context.delete(kind, &set.metadata, None, Propagation::Background).await?;
        }
        if let Some(new) = plan.create {
            acted = true;
            self.create(deployment, &new).await?;
        }
        Ok(acted)
    }

    async fn create(
        &self,
        deployment: &Deployment,
        new: &ReplicaSet,
    ) -> Result<(), ControllerError> {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        match self.context.create(new).await {
            Ok(_) => {
                let replicas = crate::replica_set::replicas(new);
                let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                self.context.event(deployment, EventType::Normal, "ScalingReplicaSet", &message);
                Ok(())
            }
            Err(ControllerError::AlreadyExists(_)) => {
                // Another template with the same hash, or a foreign set: take another hash.
                let mut collided = deployment.clone();
                let status = collided.status.get_or_insert_default();
                *status.collision_count.get_or_insert_default() += 1;
                self.context.update_status(&collided).await?;
                Ok(())
            }
            Err(error) => {
                self.tell_refusal(deployment, name, &error).await?;
                Err(error)
            }
        }
    }

    async fn tell_refusal(
        &self,
        deployment: &Deployment,
        name: &str,
        error: &ControllerError,
    ) -> Result<(), ControllerError> {
        if error.is_benign() || matches!(error, ControllerError::OutcomeUnknown(_)) {
            return Ok(());
        }
        let text = error.to_string();
        let message = format!("Failed to create new replica set \"{name}\": {text}");
        self.context.event(deployment, EventType::Warning, status::CREATE_ERROR, &message);
        let status = status::refused(deployment, name, &text, quorate_objects::time::timestamp());
        if deployment.status.as_ref() != Some(&status) {
            let mut updated = deployment.clone();
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        Ok(())
    }

    async fn annotate(
        &self,
        deployment: &Deployment,
        revision: i64,
    ) -> Result<(), ControllerError> {
        let revision = revision.to_string();
        let annotations = deployment.metadata.annotations.as_ref();
        if annotations.and_then(|a| a.get(REVISION)) == Some(&revision) {
            return Ok(());
        }
        let mut annotated = deployment.clone();
        annotated.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision);
        self.context.update(&annotated).await?;
        Ok(())
    }
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::DEPLOYMENT {
            return vec![key_of(object)];
        }
        if *object.kind == kinds::REPLICA_SET {
            return controller_key(&kinds::DEPLOYMENT, &object.meta).into_iter().collect();
        }
        // The strategy Recreate waits until the last old pod is gone.
        let gone = event.kind == quorate_registry::EventKind::Deleted && *object.kind == kinds::POD;
        let set = controller_key(&kinds::REPLICA_SET, &object.meta).filter(|_| gone);
        let set = set.and_then(|key| self.context.get::<ReplicaSet>(&key.namespace, &key.name));
        set.and_then(|set| controller_key(&kinds::DEPLOYMENT, &set.metadata)).into_iter().collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::DEPLOYMENT)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(deployment) = self.context.get::<Deployment>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        let spec = &deployment.spec;
        let selector = Selector::from_label_selector(&spec.selector)
            .map_err(|error| ControllerError::Other(error.to_string()))?;
        let sets = self.sets(&deployment, &selector).await?;
        let rollout = Rollout::new(&deployment, &sets);
        if deployment.metadata.deletion_timestamp.is_none() {
            let old_pods = rollout.is_recreate() && self.any_pods(&rollout.old);
            let plan = plan::plan(&rollout, old_pods);
            if let Some(revision) = plan.revision {
                self.annotate(&deployment, revision).await?;
            }
            if self.carry_out(&deployment, plan).await? {
                // The status is worked out from what the cache shows then.
                return Ok(Requeue::After(Duration::ZERO));
            }
        }
        let (status, wait) = status::status(&rollout, quorate_objects::time::timestamp());
        if deployment.status.as_ref() != Some(&status) {
            let mut updated = Deployment::clone(&deployment);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        Ok(wait.map_or(Requeue::Done, Requeue::After))
    }
}
