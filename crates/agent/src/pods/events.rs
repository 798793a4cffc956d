//! What happens to pods on the node, told to people: reasons and messages as `kubectl describe`
//! shows them for Kubernetes' own nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_proto::v1;

use super::outbox::Outbox;
use super::worker::Context;
use crate::runtime::{PodRef, Role};

/// Events of one pod for one reason that are told as they come.
const AT_ONCE: u32 = 10;
/// Between later ones.
const INTERVAL: Duration = Duration::from_secs(60);

/// Tells what happens to one pod.
#[derive(Clone)]
pub struct Recorder {
    /// None: nobody wants to hear of pods that only pretend to run.
    outbox: Option<Arc<Outbox>>,
    pod: PodRef,
}

impl Recorder {
    /// For a pod of the node.
    #[must_use]
    pub fn new(context: &Context, pod: PodRef) -> Self {
        let outbox = context.runtime.runs_processes().then(|| Arc::clone(&context.outbox));
        Self { outbox, pod }
    }

    /// As it should be. `container`: the part of the pod that is meant.
    pub fn normal(&self, container: Option<(Role, &str)>, reason: &str, message: String) {
        self.record(container, false, reason, message);
    }

    /// Someone may have to look.
    pub fn warning(&self, container: Option<(Role, &str)>, reason: &str, message: String) {
        self.record(container, true, reason, message);
    }

    fn record(
        &self,
        container: Option<(Role, &str)>,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let Some(outbox) = &self.outbox else { return };
        outbox.record(v1::PodEvent {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            field_path: container.map(|(role, name)| path(role, name)).unwrap_or_default(),
            warning,
            reason: reason.to_owned(),
            message,
        });
    }
}

/// Lets the first few events of a pod for one reason through, and then one a minute: a probe that
/// fails all night is no news.
#[derive(Default)]
pub(super) struct Throttle {
    seen: HashMap<(String, String, String), (u32, Instant)>,
}

impl Throttle {
    /// May it be told?
    pub(super) fn admits(&mut self, event: &v1::PodEvent, now: Instant) -> bool {
        let key = (event.uid.clone(), event.field_path.clone(), event.reason.clone());
        let (count, last) = self.seen.entry(key).or_insert((0, now));
        let admitted = *count < AT_ONCE || now.saturating_duration_since(*last) >= INTERVAL;
        if admitted {
            *count += 1;
            *last = now;
        }
        admitted
    }

    /// The pod is gone.
    pub(super) fn forget(&mut self, uid: &str) {
        self.seen.retain(|(of, _, _), _| of != uid);
    }
}

fn path(role: Role, name: &str) -> String {
    let list = match role {
        Role::Sandbox => return String::new(),
        Role::Init => "initContainers",
        Role::App => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{name}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_told_now_and_then() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let event = |uid: &str| v1::PodEvent { uid: uid.into(), ..Default::default() };
        let told = (0..100).filter(|_| throttle.admits(&event("1"), start)).count();
        assert_eq!(told, AT_ONCE as usize);
        assert!(throttle.admits(&event("2"), start), "another pod");
        assert!(throttle.admits(&event("1"), start + INTERVAL));
        assert!(!throttle.admits(&event("1"), start + INTERVAL));
        throttle.forget("1");
        assert!(throttle.admits(&event("1"), start + INTERVAL));
    }

    #[test]
    fn a_part_of_the_pod_is_named_as_kubectl_expects() {
        assert_eq!(path(Role::App, "web"), "spec.containers{web}");
        assert_eq!(path(Role::Init, "first"), "spec.initContainers{first}");
        assert_eq!(path(Role::Sandbox, ""), "");
    }
}
