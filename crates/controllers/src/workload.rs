//! What controllers of pods have in common: which pods are theirs, how pods are created and
//! deleted many at a time, and when a pod counts as available.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_objects::{Selector, Typed, kinds, pod};
use quorate_registry::{EventType, ObjectEvent, Propagation};

use crate::context::{Context, controller_key, key_of};
use crate::error::ControllerError;
use crate::queue::Key;

/// Creations or deletions in one reconciliation; the rest follows at once in the next.
pub(crate) const BURST: usize = 256;
/// Creations of the first round; each round that succeeds doubles it. A template that the
/// registry refuses is so refused once, not a thousand times.
const SLOW_START: usize = 4;

/// An owner of pods, and the selector of its pods.
pub(crate) struct Workload<'a, T> {
    pub context: &'a Context,
    pub owner: &'a T,
    pub selector: Selector,
}

/// Whose pods are whose.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// Ours and matching, in whatever state; those to be adopted included.
    pub owned: Vec<Arc<Pod>>,
    /// Without a controller, and matching: to be made ours.
    pub adopt: Vec<Arc<Pod>>,
    /// Ours, but no longer matching: to be let go.
    pub release: Vec<Arc<Pod>>,
}

/// Sorts out `pods`: all that match or are owned. Pods of other controllers are left alone, and
/// an owner that is being deleted takes and gives nothing. `fits` says which orphans may be ours.
pub(crate) fn claim<T: Typed>(
    owner: &T,
    selector: &Selector,
    pods: Vec<Arc<Pod>>,
    fits: impl Fn(&Pod) -> bool,
) -> Claim {
    let mut claim = Claim::default();
    let uid = owner.metadata().uid.as_deref().unwrap_or_default();
    let deleting = owner.metadata().deletion_timestamp.is_some();
    for object in pods {
        let matches = selector.matches_labels(object.metadata.labels.as_ref());
        match pod::controller_of(&object.metadata) {
            Some(other) if other.uid != uid => {}
            Some(_) if matches => claim.owned.push(object),
            Some(_) if !deleting => claim.release.push(object),
            None if matches && !deleting && pod::is_active(&object) && fits(&object) => {
                claim.adopt.push(Arc::clone(&object));
                claim.owned.push(object);
            }
            _ => {}
        }
    }
    claim
}

impl<T: Typed> Workload<'_, T> {
    /// All pods that match or that the owner owns.
    pub fn candidates(&self) -> Vec<Arc<Pod>> {
        let meta = self.owner.metadata();
        let mut pods = self.context.owned::<Pod>(meta.uid.as_deref().unwrap_or_default());
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let orphans = self.context.registry().cache().orphan_pods(namespace);
        let matching = orphans.iter().filter(|object| self.selector.matches(object.labels()));
        pods.extend(matching.filter_map(|object| object.typed::<Pod>().ok()));
        pods
    }

    /// The owner's pods, after those that fit were adopted and those that match no longer were
    /// let go.
    ///
    /// # Errors
    /// As the registry.
    pub async fn claim(
        &self,
        fits: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, ControllerError> {
        let claim = claim(self.owner, &self.selector, self.candidates(), fits);
        let mut owned = claim.owned;
        for object in &claim.release {
            self.release(object).await?;
        }
        for object in &claim.adopt {
            let adopted = self.adopt(object).await?;
            let name = &object.metadata.name;
            if let Some(place) = owned.iter_mut().find(|pod| pod.metadata.name == *name) {
                *place = adopted;
            }
        }
        Ok(owned)
    }

    async fn adopt(&self, object: &Pod) -> Result<Arc<Pod>, ControllerError> {
        let mut adopted = object.clone();
        let owners = adopted.metadata.owner_references.get_or_insert_default();
        owners.push(pod::controller_reference(self.owner));
        Ok(self.context.update(&adopted).await?.typed::<Pod>()?)
    }

    async fn release(&self, object: &Pod) -> Result<(), ControllerError> {
        let mut released = object.clone();
        let owners = released.metadata.owner_references.get_or_insert_default();
        owners.retain(|owner| Some(&owner.uid) != self.owner.metadata().uid.as_ref());
        self.context.update(&released).await?;
        Ok(())
    }

    /// Creates pods, at first a few and then more and more at once.
    ///
    /// # Errors
    /// The first that occurs; what comes after it is not tried.
    pub async fn create(&self, pods: &[Pod]) -> Result<(), ControllerError> {
        let (mut left, mut round) = (pods, SLOW_START);
        while !left.is_empty() {
            let (now, rest) = left.split_at(left.len().min(round));
            let results = join_all(now.iter().map(|pod| self.context.create(pod))).await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(created) => {
                        let message = format!("Created pod: {}", created.name());
                        self.event(EventType::Normal, "SuccessfulCreate", &message);
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                if !error.is_benign() {
                    let message = format!("Error creating: {error}");
                    self.event(EventType::Warning, "FailedCreate", &message);
                }
                return Err(error);
            }
            left = rest;
            round *= 2;
        }
        Ok(())
    }

    /// Deletes pods.
    ///
    /// # Errors
    /// The first that occurs, after all were tried.
    pub async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), ControllerError> {
        let results = join_all(pods.iter().map(|object| async {
            let meta = &object.metadata;
            self.context.delete(&kinds::POD, meta, None, Propagation::Background).await?;
            let message = format!("Deleted pod: {}", meta.name.as_deref().unwrap_or_default());
            self.event(EventType::Normal, "SuccessfulDelete", &message);
            Ok(())
        }))
        .await;
        results.into_iter().collect()
    }

    pub fn event(&self, event_type: EventType, reason: &str, message: &str) {
        self.context.event(self.owner, event_type, reason, message);
    }
}

/// The keys of a kind of owners that an event concerns: the owner itself, the controller of a
/// pod, or every owner that may adopt an orphan.
pub(crate) fn wants<T: Typed>(
    context: &Context,
    event: &ObjectEvent,
    selector_of: impl Fn(&T) -> Option<Selector>,
) -> Vec<Key> {
    let Some(object) = &event.object else { return Vec::new() };
    if object.kind == T::kind() {
        return vec![key_of(object)];
    }
    if *object.kind != kinds::POD {
        return Vec::new();
    }
    if pod::controller_of(&object.meta).is_some() {
        return controller_key(T::kind(), &object.meta).into_iter().collect();
    }
    let owners = context.list::<T>(Some(object.namespace()));
    let matching = owners.iter().filter(|owner| {
        selector_of(owner).is_some_and(|s| s.matches_labels(object.meta.labels.as_ref()))
    });
    matching.map(|owner| key::<T>(owner)).collect()
}

/// The key of an object of this type.
pub(crate) fn key<T: Typed>(object: &T) -> Key {
    let meta = object.metadata();
    Key {
        kind: T::kind(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// How long until the pod counts as available; `None`: it is not ready.
pub(crate) fn until_available(
    object: &Pod,
    min_ready_seconds: Option<i32>,
    now: Timestamp,
) -> Option<Duration> {
    let ready = pod::condition(object, "Ready").filter(|c| c.status == "True")?;
    let since = ready.last_transition_time.as_ref().map_or(now, |t| t.0);
    let min_ready = i64::from(min_ready_seconds.unwrap_or_default());
    let left = min_ready - (now.as_second() - since.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

/// A number, or a percentage of `of`, rounded up or down.
pub(crate) fn share(value: &IntOrString, of: i32, up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(number) => return (*number).max(0),
        IntOrString::String(text) => text.trim_end_matches('%').parse::<i64>().unwrap_or_default(),
    };
    let product = i64::from(of) * percent.max(0);
    i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
}

/// A count as statuses carry it.
pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
