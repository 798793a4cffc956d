//! Statuses that agents report, written in batches by the leader.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeStatus, ObjectReference, PersistentVolume};
use quorate_objects::{kinds, storage};
use quorate_proto::v1;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_registry::{
    DeleteOptions, EventRecord, EventType, Object, RegistryError, Write, WriteOptions,
};
use quorate_store::Term;
use tokio::sync::mpsc;
use tonic::Status;

use super::Shared;
use super::registration::write_status;
use super::table::Session;

/// Who reports what happens on nodes; Kubernetes' tools look for this name.
const AGENT: &str = "kubelet";

/// Writes one session's batches, one after the other.
pub(crate) struct StatusWriter<'a> {
    shared: &'a Shared,
    session: &'a Session,
}

/// An answer for a batch that is not written at all.
pub(crate) fn refuse(batch: &v1::StatusBatch) -> v1::StatusAck {
    let retry_uids = batch.pods.iter().map(|pod| pod.uid.clone()).collect();
    v1::StatusAck { sequence: batch.sequence, retry_uids, refused: true, ..Default::default() }
}

impl<'a> StatusWriter<'a> {
    pub fn new(shared: &'a Shared, session: &'a Session) -> Self {
        Self { shared, session }
    }

    /// Until the session ends; returns why.
    pub async fn run(self, mut batches: mpsc::Receiver<v1::StatusBatch>) -> Status {
        // The sender lives as long as the session's reader, which ends the session.
        while let Some(batch) = batches.recv().await {
            let ready = self.shared.store.leadership().borrow().ready;
            let ack = match ready {
                Some(term) => self.write(batch, term).await,
                None => refuse(&batch),
            };
            if self.session.send(ToAgent::StatusAck(ack)).await.is_none() {
                break;
            }
        }
        self.session.reason()
    }

    async fn write(&self, batch: v1::StatusBatch, term: Term) -> v1::StatusAck {
        let retry_node_status = !self.write_node(&batch.node_status_json, term).await;
        // Of a pod that goes at once nobody would read the status.
        let (going, staying): (Vec<_>, Vec<_>) = batch
            .pods
            .iter()
            .partition(|pod| self.deleting(pod).is_some_and(|p| !has_finalizers(&p)));
        let mut retry_uids = self.write_pods(&staying, term).await;
        let deleted = staying.into_iter().filter(|pod| self.deleting(pod).is_some());
        let going = going.into_iter().chain(deleted).collect();
        retry_uids.extend(self.finalise(going, term).await);
        retry_uids.extend(self.release_volumes(&batch.removed_volumes, term).await);
        retry_uids.sort_unstable();
        retry_uids.dedup();
        for event in batch.events {
            self.shared.registry.events().record(self.event(event, term));
        }
        v1::StatusAck { sequence: batch.sequence, retry_uids, refused: false, retry_node_status }
    }

    /// Lets volumes go whose data is gone. Returns the uids of those that could not be written.
    async fn release_volumes(&self, removed: &[v1::RemovedVolume], term: Term) -> Vec<String> {
        let mut retry = Vec::new();
        let options = WriteOptions::fenced(term);
        for volume in removed {
            let ours = |object: &PersistentVolume| {
                let uid = object.metadata.uid.as_ref() == Some(&volume.uid);
                let data = storage::data_to_remove(object);
                uid && data.is_some_and(|data| data.node == self.session.node)
            };
            let change = |object: &mut PersistentVolume| {
                let doomed = ours(object);
                if doomed && let Some(finalizers) = &mut object.metadata.finalizers {
                    finalizers.retain(|one| one != storage::DATA_FINALIZER);
                }
                doomed
            };
            let kind = &kinds::PERSISTENT_VOLUME;
            match self.shared.registry.modify(kind, "", &volume.name, &options, change).await {
                Ok(_) | Err(RegistryError::NotFound { .. }) => {}
                Err(error) => {
                    tracing::warn!(volume = %volume.name, %error, "a volume cannot be let go yet");
                    retry.push(volume.uid.clone());
                }
            }
        }
        retry
    }

    fn event(&self, event: v1::PodEvent, term: Term) -> EventRecord {
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        EventRecord {
            object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: filled(event.namespace),
                name: filled(event.name),
                uid: filled(event.uid),
                field_path: filled(event.field_path),
                ..ObjectReference::default()
            },
            event_type: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason,
            message: event.message,
            component: AGENT.to_owned(),
            host: Some(self.session.node.clone()),
            fence: Some(term),
        }
    }

    /// Returns the uids of pods that could not be written now.
    async fn write_pods(&self, pods: &[&v1::PodStatus], term: Term) -> Vec<String> {
        let mut sent = Vec::with_capacity(pods.len());
        let mut writes = Vec::with_capacity(pods.len());
        for pod in pods {
            if let Some(write) = status_write(pod) {
                sent.push(*pod);
                writes.push(write);
            }
        }
        let results = self.shared.registry.write_batch(writes, Some(term)).await;
        let failed = sent.iter().zip(results).filter(|(pod, result)| !settled(pod, result));
        failed.map(|(pod, _)| pod.uid.clone()).collect()
    }

    /// The pod, when it is being deleted and nothing of it is left on the node.
    fn deleting(&self, pod: &v1::PodStatus) -> Option<Arc<Object>> {
        let cache = self.shared.registry.cache();
        let object = cache.get(&kinds::POD, &pod.namespace, &pod.name)?;
        (pod.terminated && object.is_deleting() && object.uid() == pod.uid).then_some(object)
    }

    /// Removes pods that were being deleted and of which nothing is left on the node.
    async fn finalise(&self, sent: Vec<&v1::PodStatus>, term: Term) -> Vec<String> {
        let writes = sent.iter().map(|pod| removal(pod)).collect();
        let results = self.shared.registry.write_batch(writes, Some(term)).await;
        let failed = sent.iter().zip(results).filter(|(pod, result)| !settled(pod, result));
        failed.map(|(pod, _)| pod.uid.clone()).collect()
    }

    /// Says whether there is nothing more to do for the node's status.
    async fn write_node(&self, json: &[u8], term: Term) -> bool {
        if json.is_empty() {
            return true;
        }
        let name = &self.session.node;
        let status: NodeStatus = match serde_json::from_slice(json) {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, "the node's status is no NodeStatus");
                return true;
            }
        };
        match write_status(&self.shared.registry, name, &status, term).await {
            Ok(()) | Err(RegistryError::NotFound { .. }) => true,
            Err(RegistryError::Invalid(invalid)) => {
                tracing::error!(%invalid, "the node's status was refused");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write the node's status");
                false
            }
        }
    }
}

fn has_finalizers(object: &Object) -> bool {
    object.meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

fn status_write(pod: &v1::PodStatus) -> Option<Write> {
    (!pod.status_json.is_empty()).then(|| Write::PodStatus {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        status: pod.status_json.clone(),
    })
}

fn removal(pod: &v1::PodStatus) -> Write {
    let options = DeleteOptions {
        uid: Some(pod.uid.clone()),
        grace_seconds: Some(0),
        ..DeleteOptions::default()
    };
    Write::Delete {
        kind: &kinds::POD,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        options,
    }
}

/// Is there nothing more to do for this pod? A pod that is gone, or whose name another pod has
/// now, needs no status; a status that is refused would be refused again.
fn settled(pod: &v1::PodStatus, result: &Result<Arc<Object>, RegistryError>) -> bool {
    match result {
        Ok(_) | Err(RegistryError::NotFound { .. } | RegistryError::Conflict { .. }) => true,
        Err(RegistryError::Invalid(invalid)) => {
            tracing::error!(pod = %pod.name, %invalid, "a status was refused");
            true
        }
        Err(error) => {
            tracing::warn!(pod = %pod.name, %error, "a status could not be written");
            false
        }
    }
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
