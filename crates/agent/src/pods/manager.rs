//! The set of workers: one for each pod that is assigned or of which something is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};
use tracing::{Instrument as _, error, info, info_span};

use super::resolve::pod_ref;
use super::worker::{Context, Desired, Worker};
use crate::runtime::{PodRef, Record};

struct Handle {
    pod: PodRef,
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    task: Id,
}

/// Starts, wakes and forgets workers.
pub struct Manager {
    context: Arc<Context>,
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<()>,
}

impl Manager {
    /// No workers yet.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, workers: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// These pods are assigned, and no others.
    pub fn assign(&mut self, pods: &[Arc<Pod>]) {
        let mut assigned = BTreeSet::new();
        for pod in pods {
            let reference = pod_ref(pod);
            assigned.insert(reference.uid.clone());
            self.want(reference, Desired::Assigned(pod.clone()));
        }
        for (uid, handle) in &self.workers {
            if !assigned.contains(uid) && !matches!(*handle.desired.borrow(), Desired::Removed) {
                info!(pod = %handle.pod, "no longer assigned");
                handle.desired.send_replace(Desired::Removed);
            }
        }
    }

    /// Removes containers of pods that are not assigned. Only to be called with what a ready
    /// leader said in full: what masters that are away would say is not known.
    pub fn remove_orphans(&mut self, records: &[Record]) {
        for record in records {
            if !self.workers.contains_key(&record.pod.uid) {
                info!(pod = %record.pod, uid = record.pod.uid, "found containers of no pod");
                self.want(record.pod.clone(), Desired::Removed);
            }
        }
    }

    fn want(&mut self, pod: PodRef, desired: Desired) {
        if let Some(handle) = self.workers.get(&pod.uid) {
            handle.desired.send_if_modified(|present| {
                let same = matches!((&*present, &desired),
                    (Desired::Assigned(a), Desired::Assigned(b)) if Arc::ptr_eq(a, b));
                if !same {
                    *present = desired;
                }
                !same
            });
            return;
        }
        let (sender, receiver) = watch::channel(desired);
        let wake = Arc::new(Notify::new());
        let worker = Worker::new(self.context.clone(), pod.clone(), receiver, wake.clone());
        let span = info_span!("pod worker", pod = %pod);
        let task = self.tasks.spawn(worker.run().instrument(span)).id();
        self.workers.insert(pod.uid.clone(), Handle { pod, desired: sender, wake, task });
    }

    /// Something happened to the containers of a pod.
    pub fn wake(&self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.wake.notify_one();
        }
    }

    /// Something happened that concerns any pod.
    pub fn wake_all(&self) {
        for handle in self.workers.values() {
            handle.wake.notify_one();
        }
    }

    /// Waits for a worker to end, and tidies up. A worker that died is started again: the
    /// next one finds everything where it is.
    pub async fn finished(&mut self) {
        let (id, died) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, false),
            Some(Err(failure)) => {
                error!(error = %failure, "a pod worker died; starting it again");
                (failure.id(), true)
            }
            None => return std::future::pending().await,
        };
        let uid = self.workers.iter().find(|(_, h)| h.task == id).map(|(uid, _)| uid.clone());
        let Some(handle) = uid.and_then(|uid| self.workers.remove(&uid)) else { return };
        let desired = handle.desired.borrow().clone();
        // Assigned again while it was ending.
        if died || matches!(desired, Desired::Assigned(_)) {
            self.want(handle.pod, desired);
        }
    }

    /// Is there none?
    #[cfg(test)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}

#[cfg(test)]
#[path = "manager_test.rs"]
mod tests;
