//! Statuses that the leader has not confirmed yet: the newest of each pod, no queue.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodStatus;
use parking_lot::Mutex;
use quorate_proto::v1;
use tokio::sync::Notify;

use crate::runtime::PodRef;

/// Pods in one batch; the rest follows in the next.
const BATCH: usize = 256;

struct Entry {
    pod: PodRef,
    status: PodStatus,
    terminated: bool,
    /// Counts changes; an acknowledgement covers the change that was sent.
    version: u64,
    /// The leader has confirmed this version.
    acked: u64,
}

/// A batch that is under way: which version of which pod it carries.
pub struct Batch {
    /// To send.
    pub pods: Vec<v1::PodStatus>,
    versions: BTreeMap<String, u64>,
}

/// The node's statuses, and which of them the leader must still hear.
#[derive(Default)]
pub struct Outbox {
    entries: Mutex<BTreeMap<String, Entry>>,
    changed: Notify,
}

impl Outbox {
    /// Notes a pod's status. Only a change is sent.
    pub fn put(&self, pod: &PodRef, status: &PodStatus, terminated: bool) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(pod.uid.clone()).or_insert_with(|| Entry {
            pod: pod.clone(),
            status: PodStatus::default(),
            terminated: false,
            version: 0,
            acked: 0,
        });
        if entry.version > 0 && entry.status == *status && entry.terminated == terminated {
            return;
        }
        entry.status = status.clone();
        entry.terminated = terminated;
        entry.version += 1;
        drop(entries);
        self.changed.notify_one();
    }

    /// The pod is no longer assigned: nobody wants to hear of it.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    /// A leader told what it knows of a pod; when that is not what we last said, say it again.
    pub fn compare(&self, uid: &str, known: Option<&PodStatus>) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(uid)
            && (entry.terminated || known != Some(&entry.status))
            && entry.acked == entry.version
        {
            entry.acked = entry.version - 1;
            drop(entries);
            self.changed.notify_one();
        }
    }

    /// What to send next, if anything.
    #[must_use]
    pub fn batch(&self) -> Option<Batch> {
        let entries = self.entries.lock();
        let mut batch = Batch { pods: Vec::new(), versions: BTreeMap::new() };
        for (uid, entry) in entries.iter().filter(|(_, e)| e.acked < e.version).take(BATCH) {
            batch.pods.push(v1::PodStatus {
                namespace: entry.pod.namespace.clone(),
                name: entry.pod.name.clone(),
                uid: uid.clone(),
                status_json: serde_json::to_vec(&entry.status).unwrap_or_default().into(),
                terminated: entry.terminated,
            });
            batch.versions.insert(uid.clone(), entry.version);
        }
        (!batch.pods.is_empty()).then_some(batch)
    }

    /// The leader wrote a batch, but for `retry`.
    pub fn acknowledge(&self, batch: &Batch, retry: &[String]) {
        let mut entries = self.entries.lock();
        for (uid, version) in &batch.versions {
            if retry.contains(uid) {
                continue;
            }
            if let Some(entry) = entries.get_mut(uid) {
                entry.acked = entry.acked.max(*version);
            }
        }
    }

    /// Waits until there may be something new to send.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
#[path = "outbox_test.rs"]
mod tests;
