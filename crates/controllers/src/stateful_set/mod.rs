//! StatefulSets: pods with names, host names and claims that outlive them, and never two pods
//! of one identity.
//!
//! Invariant: a pod of a set is made only under its own fixed name, so that the store itself
//! refuses a second one. A pod that is being deleted holds its name until its agent has said
//! that its containers are gone, or an administrator has removed the node.

mod identity;
mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use quorate_objects::{Selector, kinds};
use quorate_registry::{EventType, ObjectEvent};

use crate::context::Context;
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use crate::revisions::{self, HASH_LABEL, History};
use crate::workload::{self, BURST, Workload};
use plan::{Plan, State};

/// The controller of StatefulSets.
pub struct StatefulSets {
    context: Arc<Context>,
}

impl StatefulSets {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

fn selector_of(set: &StatefulSet) -> Option<Selector> {
    Selector::from_label_selector(&set.spec.selector).ok()
}

#[async_trait]
impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        workload::wants::<StatefulSet>(&self.context, event, selector_of)
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::STATEFUL_SET)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(set) = self.context.get::<StatefulSet>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        if set.metadata.deletion_timestamp.is_some() {
            // Pods and revisions go with their owner.
            return Ok(Requeue::Done);
        }
        let Some(selector) = selector_of(&set) else {
            return Err(ControllerError::Other("the selector cannot be read".into()));
        };
        let workload = Workload { context: &self.context, owner: &*set, selector };
        let number = |pod: &Pod| identity::ordinal(&set, pod.metadata.name.as_deref()?);
        let pods = workload.claim(|pod| number(pod).is_some()).await?;
        let pods: BTreeMap<i32, Arc<Pod>> =
            pods.into_iter().filter_map(|pod| Some((number(&pod)?, pod))).collect();
        let labels = set.spec.selector.match_labels.clone().unwrap_or_default();
        let history = revisions::sync(&self.context, &*set, &set.spec.template, &labels).await?;
        let update = revisions::name(&history.update).to_owned();
        let current = current(&set, &history).unwrap_or(&update).to_owned();
        let now = quorate_objects::time::timestamp();
        let state = State { set: &set, pods, current: &current, update: &update, now };
        let plan = plan::plan(&state);
        // Before a pod goes, its claims must say whether they go with it.
        let acted = match self.keep_claims(&set, &state.pods).await {
            Ok(()) => self.carry_out(&workload, &history, &current, &plan).await,
            Err(error) => Err(error),
        };
        let (status, wait) = plan::status(&state);
        if set.status.as_ref() != Some(&status) {
            let mut updated = StatefulSet::clone(&set);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        let more = acted?;
        self.clean_up(&set, &history, &state).await?;
        Ok(match wait {
            _ if more => Requeue::After(std::time::Duration::ZERO),
            Some(wait) => Requeue::After(wait),
            None => Requeue::Done,
        })
    }
}

/// The revision that pods below the partition have, as long as it is known.
fn current<'a>(set: &'a StatefulSet, history: &History) -> Option<&'a str> {
    let current = set.status.as_ref()?.current_revision.as_deref()?;
    history.find(current).map(|_| current)
}

impl StatefulSets {
    /// Says whether more is left to do at once.
    async fn carry_out(
        &self,
        workload: &Workload<'_, StatefulSet>,
        history: &History,
        current: &str,
        plan: &Plan,
    ) -> Result<bool, ControllerError> {
        let set = workload.owner;
        let mut pods = Vec::new();
        for (ordinal, stays_behind) in plan.create.iter().take(BURST) {
            for claim in identity::claims(set, *ordinal) {
                self.ensure_claim(workload, &claim).await?;
            }
            let update = revisions::name(&history.update);
            let old = history.find(current).filter(|_| *stays_behind);
            let old = old.and_then(|old| revisions::template_of(old));
            pods.push(match old {
                Some(template) => identity::new_pod(set, &template, current, *ordinal),
                None => identity::new_pod(set, &set.spec.template, update, *ordinal),
            });
        }
        workload.create(&pods).await?;
        workload.delete(&plan.delete[..plan.delete.len().min(BURST)]).await?;
        Ok(plan.create.len() > BURST || plan.delete.len() > BURST)
    }

    async fn ensure_claim(
        &self,
        workload: &Workload<'_, StatefulSet>,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), ControllerError> {
        let meta = &claim.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        match self.context.get::<PersistentVolumeClaim>(namespace, name) {
            Some(present) if identity::is_going(workload.owner, &present) => {
                let text = format!("persistentvolumeclaim {name:?} is still being deleted");
                return Err(ControllerError::Conflict(text));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        match self.context.create(claim).await {
            Ok(_) => {
                let text = format!("Created claim: {name}");
                workload.event(EventType::Normal, "SuccessfulCreate", &text);
                Ok(())
            }
            Err(ControllerError::AlreadyExists(_)) => Ok(()),
            Err(error) => {
                let text = format!("Error creating claim {name}: {error}");
                workload.event(EventType::Warning, "FailedCreate", &text);
                Err(error)
            }
        }
    }

    /// Carries out the retention policy: claims refer to what they go with, the set or a pod that
    /// is one too many, and the garbage collector does the rest. A claim whose pod is not there
    /// gets no new owner: its data may be that of an earlier set of this name.
    async fn keep_claims(
        &self,
        set: &StatefulSet,
        pods: &BTreeMap<i32, Arc<Pod>>,
    ) -> Result<(), ControllerError> {
        if set.spec.volume_claim_templates.as_ref().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        for claim in self.context.list::<PersistentVolumeClaim>(set.metadata.namespace.as_deref()) {
            let ordinal = identity::ordinal_of_claim(set, &claim);
            let Some(ordinal) = ordinal.filter(|_| claim.metadata.deletion_timestamp.is_none())
            else {
                continue;
            };
            let pod = pods.get(&ordinal).map(|pod| &**pod);
            if let Some(owners) = identity::claim_owners(set, ordinal, pod, &claim) {
                let mut changed = PersistentVolumeClaim::clone(&claim);
                changed.metadata.owner_references = Some(owners);
                self.context.update(&changed).await?;
            }
        }
        Ok(())
    }

    async fn clean_up(
        &self,
        set: &StatefulSet,
        history: &History,
        state: &State<'_>,
    ) -> Result<(), ControllerError> {
        let labels = state.pods.values().filter_map(|pod| pod.metadata.labels.as_ref());
        let mut live: HashSet<String> =
            labels.filter_map(|labels| labels.get(HASH_LABEL).cloned()).collect();
        live.extend([state.current.to_owned(), state.update.to_owned()]);
        revisions::clean_up(&self.context, history, set.spec.revision_history_limit, &live).await
    }
}
