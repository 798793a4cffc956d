//! Jobs: pods that run until enough of them have succeeded.

mod end;
mod indexes;
mod plan;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_objects::{Selector, job, kinds, pod};
use quorate_registry::{EventKind, Object, ObjectEvent, Propagation};

use crate::context::{Context, controller_key, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use crate::workload::{self, BURST, Workload};
use plan::{New, Plan, State};

/// The variable in which containers find their index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The controller of Jobs.
pub struct Jobs {
    context: Arc<Context>,
    back_off: Duration,
}

impl Jobs {
    /// The controller; `back_off`: the pause after the first failure of a pod.
    #[must_use]
    pub fn new(context: Arc<Context>, back_off: Duration) -> Self {
        Self { context, back_off }
    }

    /// Does a pod wait for being counted although no Job does that: its own is gone, or it has
    /// none any more?
    fn is_left_behind(&self, meta: &ObjectMeta) -> bool {
        if !plan::is_tracked(meta) {
            return false;
        }
        let cache = self.context.registry().cache();
        let key = controller_key(&kinds::JOB, meta);
        let job = key.and_then(|key| cache.get(key.kind, &key.namespace, &key.name));
        let owner = pod::controller_of(meta).map(|owner| owner.uid.as_str());
        job.is_none_or(|job| owner != Some(job.uid()))
    }

    /// The keys of those of these objects that are pods and left behind.
    fn left_behind(&self, objects: &[Arc<Object>]) -> Vec<Key> {
        let pods = objects.iter().filter(|object| *object.kind == kinds::POD);
        pods.filter(|object| self.is_left_behind(&object.meta)).map(|o| key_of(o)).collect()
    }

    /// Lets a pod go that was left behind.
    async fn let_go(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let found = self.context.get::<Pod>(&key.namespace, &key.name);
        if let Some(object) = found.filter(|object| self.is_left_behind(&object.metadata)) {
            self.untrack(&[object]).await?;
        }
        Ok(Requeue::Done)
    }

    async fn untrack(&self, pods: &[Arc<Pod>]) -> Result<(), ControllerError> {
        let tracked = pods.iter().filter(|pod| plan::is_tracked(&pod.metadata));
        let results = join_all(tracked.map(|object| async {
            let mut free = Pod::clone(object);
            let finalizers = free.metadata.finalizers.get_or_insert_default();
            finalizers.retain(|finalizer| finalizer != plan::TRACKING);
            match self.context.update(&free).await {
                Ok(_) | Err(ControllerError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }))
        .await;
        results.into_iter().collect()
    }

    async fn carry_out(
        &self,
        workload: &Workload<'_, Job>,
        spec: &JobSpec,
        plan: &Plan,
    ) -> Result<Requeue, ControllerError> {
        let job = workload.owner;
        if job.status.as_ref() != Some(&plan.status) {
            let mut updated = job.clone();
            updated.status = Some(plan.status.clone());
            self.context.update_status(&updated).await?;
            for (event_type, reason, message) in &plan.events {
                workload.event(*event_type, reason, message);
            }
        }
        let untrack = &plan.untrack[..plan.untrack.len().min(BURST)];
        self.untrack(untrack).await?;
        // What is taken away here counts as nothing, so it is not held for counting.
        let delete = &plan.delete[..plan.delete.len().min(BURST)];
        self.untrack(delete).await?;
        workload.delete(delete).await?;
        let new: Vec<Pod> =
            plan.create.iter().take(BURST).map(|new| new_pod(job, spec, *new)).collect();
        workload.create(&new).await?;
        // Pods that were let go become numbers in the next look.
        let more = !untrack.is_empty() || plan.delete.len() > BURST || plan.create.len() > BURST;
        Ok(match plan.wait {
            _ if more => Requeue::After(Duration::ZERO),
            Some(wait) => Requeue::After(wait),
            None => Requeue::Done,
        })
    }
}

/// A new pod of a Job.
fn new_pod(owner: &Job, spec: &JobSpec, new: New) -> Pod {
    let mut object = pod::from_template(&spec.template);
    let name = owner.metadata.name.as_deref().unwrap_or_default();
    object.metadata.namespace.clone_from(&owner.metadata.namespace);
    object.metadata.owner_references = Some(vec![pod::controller_reference(owner)]);
    object.metadata.finalizers.get_or_insert_default().push(plan::TRACKING.to_owned());
    object.metadata.generate_name = Some(match new.index {
        Some(index) => format!("{name}-{index}-"),
        None => format!("{name}-"),
    });
    let Some(index) = new.index else { return object };
    let text = index.to_string();
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert(job::COMPLETION_INDEX.to_owned(), text.clone());
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(job::COMPLETION_INDEX.to_owned(), text.clone());
    if spec.backoff_limit_per_index.is_some() {
        annotations.insert(plan::FAILURES.to_owned(), new.failures.to_string());
    }
    let pod = object.spec.get_or_insert_default();
    pod.hostname.get_or_insert_with(|| format!("{name}-{index}"));
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if variables.iter().all(|variable| variable.name != INDEX_VARIABLE) {
            let (name, value) = (INDEX_VARIABLE.to_owned(), Some(text.clone()));
            variables.push(EnvVar { name, value, value_from: None });
        }
    }
    object
}

fn selector_of(owner: &Job) -> Option<Selector> {
    let selector = owner.spec.as_ref()?.selector.as_ref()?;
    Selector::from_label_selector(selector).ok()
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        let gone = event.kind == EventKind::Deleted;
        if *object.kind == kinds::POD && !gone && self.is_left_behind(&object.meta) {
            return vec![key_of(object)];
        }
        // Orphans are never adopted: nobody could say how often they have been counted.
        let mut keys = workload::wants::<Job>(&self.context, event, |_| None);
        if *object.kind == kinds::JOB && gone {
            let theirs = self.context.registry().cache().by_owner(object.uid());
            keys.extend(self.left_behind(&theirs));
        }
        keys
    }

    fn all(&self) -> Vec<Key> {
        let mut keys = self.context.keys(&kinds::JOB);
        keys.extend(self.left_behind(&self.context.registry().cache().list(&kinds::POD, None)));
        keys
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        if *key.kind == kinds::POD {
            return self.let_go(key).await;
        }
        let Some(job) = self.context.get::<Job>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if manager.is_some_and(|manager| manager != job::CONTROLLER) {
            return Ok(Requeue::Done);
        }
        let (Some(spec), Some(selector)) = (&job.spec, selector_of(&job)) else {
            return Err(ControllerError::Other("the selector cannot be read".into()));
        };
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.context.owned::<Pod>(uid);
        pods.retain(|p| pod::controller_of(&p.metadata).is_some_and(|owner| owner.uid == uid));
        if job.metadata.deletion_timestamp.is_some() {
            // Nobody will ask for the figures.
            self.untrack(&pods).await?;
            return Ok(Requeue::Done);
        }
        let now = quorate_objects::time::timestamp();
        let workload = Workload { context: &self.context, owner: &*job, selector };
        let state = State { job: &job, spec, pods: &pods, now, back_off: self.back_off };
        if !job::is_finished(&job) {
            return self.carry_out(&workload, spec, &plan::plan(&state)).await;
        }
        let requeue = self.carry_out(&workload, spec, &plan::after_end(&state)).await?;
        match plan::until_removal(&job, now) {
            Some(wait) if wait.is_zero() => {
                let meta = &job.metadata;
                self.context.delete(&kinds::JOB, meta, None, Propagation::Background).await?;
                Ok(Requeue::Done)
            }
            Some(wait) if requeue == Requeue::Done => Ok(Requeue::After(wait)),
            _ => Ok(requeue),
        }
    }
}
