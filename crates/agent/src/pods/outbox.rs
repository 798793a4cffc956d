//! What the leader has not confirmed yet: statuses (the newest of each pod, no queue), volumes that
//! were removed, and events.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use k8s_openapi::api::core::v1::PodStatus;
use parking_lot::Mutex;
use quorate_objects::pod::AGENT_CONDITIONS;
use quorate_proto::v1;
use tokio::sync::Notify;

use super::events::Throttle;
use crate::runtime::PodRef;

/// Pods in one batch; the rest follows in the next.
const BATCH: usize = 256;
/// Events that wait, and in one batch; the oldest give way.
const EVENTS: usize = 256;

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
    /// Statuses to send.
    pub pods: Vec<v1::PodStatus>,
    /// Volumes whose data is gone.
    pub removed: Vec<v1::RemovedVolume>,
    /// What happened.
    pub events: Vec<v1::PodEvent>,
    /// The number of the first event that is not in it.
    events_until: u64,
    versions: BTreeMap<String, u64>,
}

/// The node's statuses, and which of them the leader must still hear.
#[derive(Default)]
pub struct Outbox {
    entries: Mutex<BTreeMap<String, Entry>>,
    removed: Mutex<BTreeMap<String, v1::RemovedVolume>>,
    /// With a number for each.
    events: Mutex<Events>,
    changed: Notify,
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<v1::PodEvent>,
    throttle: Throttle,
    /// How many were before the first that waits.
    gone: u64,
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

    /// The data of a volume is gone.
    pub fn removed(&self, volume: v1::RemovedVolume) {
        self.removed.lock().insert(volume.uid.clone(), volume);
        self.changed.notify_one();
    }

    /// Something happened to a pod.
    pub fn record(&self, event: v1::PodEvent) {
        let mut events = self.events.lock();
        if !events.throttle.admits(&event, Instant::now()) {
            return;
        }
        if events.waiting.len() >= EVENTS {
            events.waiting.pop_front();
            events.gone += 1;
        }
        events.waiting.push_back(event);
        drop(events);
        self.changed.notify_one();
    }

    /// The pod is no longer assigned: nobody wants to hear of it.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
        self.events.lock().throttle.forget(uid);
    }

    /// A leader told what it knows of a pod; when that is not what we last said, say it again.
    pub fn compare(&self, uid: &str, known: Option<&PodStatus>) {
        let known = known.cloned().map(without_others);
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(uid)
            && (entry.terminated || known.as_ref() != Some(&entry.status))
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
        let events = self.events.lock();
        let mut batch = Batch {
            pods: Vec::new(),
            removed: self.removed.lock().values().cloned().collect(),
            events: events.waiting.iter().cloned().collect(),
            events_until: events.gone + events.waiting.len() as u64,
            versions: BTreeMap::new(),
        };
        drop(events);
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
        let empty = batch.pods.is_empty() && batch.removed.is_empty() && batch.events.is_empty();
        (!empty).then_some(batch)
    }

    /// The leader wrote a batch, but for `retry`.
    pub fn acknowledge(&self, batch: &Batch, retry: &[String]) {
        let mut removed = self.removed.lock();
        for volume in batch.removed.iter().filter(|volume| !retry.contains(&volume.uid)) {
            removed.remove(&volume.uid);
        }
        drop(removed);
        let mut events = self.events.lock();
        while events.gone < batch.events_until && events.waiting.pop_front().is_some() {
            events.gone += 1;
        }
        drop(events);
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

/// A status without the conditions that others have set.
fn without_others(mut status: PodStatus) -> PodStatus {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|one| AGENT_CONDITIONS.contains(&one.type_.as_str()));
    }
    status
}

#[cfg(test)]
#[path = "outbox_test.rs"]
mod tests;
