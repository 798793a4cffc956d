//! Pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, Container, NodeAffinity, NodeSelector, Pod, PodSpec};

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{pod, template, time};

/// Pod.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.podIP"],
    columns: &[
        Column::new("NAME"),
        Column::new("READY"),
        Column::new("STATUS"),
        Column::new("RESTARTS"),
        Column::new("AGE"),
        Column::wide("IP"),
        Column::wide("NODE"),
        Column::wide("NOMINATED NODE"),
        Column::wide("READINESS GATES"),
    ],
    ops: Ops::of::<Pod>(),
};

impl Typed for Pod {
    fn kind() -> &'static Kind {
        &KIND
    }

    /// Lists come out of the decoder with room for four, and most pods have one container, whose
    /// status is large: masters keep tens of thousands of them decoded.
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut pod: Self = serde_json::from_slice(text)?;
        if let Some(spec) = &mut pod.spec {
            spec.containers.shrink_to_fit();
            fit(&mut spec.init_containers);
            fit(&mut spec.volumes);
        }
        if let Some(status) = &mut pod.status {
            fit(&mut status.conditions);
            fit(&mut status.container_statuses);
            fit(&mut status.init_container_statuses);
        }
        Ok(pod)
    }

    fn set_defaults(&mut self) {
        if let Some(spec) = &mut self.spec {
            template::default_spec(spec);
            // No tolerations for nodes that fail, as Kubernetes adds them: how long such pods
            // stay is the leader's setting, and much shorter than 300 s.
        }
        let status = self.status.get_or_insert_default();
        template::default_text(&mut status.phase, "Pending");
        let class = || self.spec.as_ref().map_or("BestEffort", pod::qos_class).to_owned();
        status.qos_class.get_or_insert_with(class);
    }

    fn validate(&self, errors: &mut Errors) {
        match &self.spec {
            None => errors.required("spec.containers", ""),
            Some(spec) => template::validate_spec(spec, "spec", errors),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let mut allowed = old.clone();
        allow_images(&mut allowed.containers, &new.containers);
        if let (Some(allowed), Some(new)) = (&mut allowed.init_containers, &new.init_containers) {
            allow_images(allowed, new);
        }
        if all_in(&old.tolerations, &new.tolerations) {
            allowed.tolerations.clone_from(&new.tolerations);
        }
        if all_in(&new.scheduling_gates, &old.scheduling_gates) {
            allowed.scheduling_gates.clone_from(&new.scheduling_gates);
        }
        if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            allow_narrowing(&mut allowed, new);
        }
        allowed.active_deadline_seconds = new.active_deadline_seconds;
        if *new != allowed {
            errors.push(FieldError::forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`, \
                 `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, \
                 `spec.schedulingGates` (only removals) or `spec.tolerations` (only additions to \
                 existing tolerations); of a pod with scheduling gates also `spec.nodeSelector` \
                 and `spec.affinity.nodeAffinity` (only additions to what is required)",
            ));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let statuses: Vec<_> = pod::container_statuses(self).collect();
        let ready = statuses.iter().filter(|status| status.ready).count();
        let total = self.spec.as_ref().map_or(0, |spec| spec.containers.len());
        let none = || "<none>".to_owned();
        let status = self.status.as_ref();
        let nominated = status.and_then(|s| s.nominated_node_name.clone());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            format!("{ready}/{total}"),
            shown_status(self),
            restarts(self, now),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            pod::pod_ip(self).map_or_else(none, str::to_owned),
            pod::node_name(self).map_or_else(none, str::to_owned),
            nominated.filter(|name| !name.is_empty()).unwrap_or_else(none),
            none(),
        ]
    }
}

fn fit<T>(list: &mut Option<Vec<T>>) {
    if let Some(list) = list {
        list.shrink_to_fit();
    }
}

/// Lets images, and nothing else of containers, be as they are in `new`.
fn allow_images(allowed: &mut [Container], new: &[Container]) {
    if new.len() == allowed.len() {
        for (allowed, new) in allowed.iter_mut().zip(new) {
            allowed.image.clone_from(&new.image);
        }
    }
}

/// Lets the choice of nodes be as it is in `new`, if it is the same or narrower: what holds a pod
/// back may be about to find out where it shall run.
fn allow_narrowing(allowed: &mut PodSpec, new: &PodSpec) {
    let kept = allowed.node_selector.iter().flatten();
    let chosen = new.node_selector.as_ref();
    if kept.into_iter().all(|(key, value)| chosen.and_then(|all| all.get(key)) == Some(value)) {
        allowed.node_selector.clone_from(&new.node_selector);
    }
    let node = |spec: &PodSpec| spec.affinity.as_ref().and_then(|all| all.node_affinity.clone());
    let required = |affinity: Option<NodeAffinity>| {
        affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution)
    };
    let narrower = match (required(node(allowed)), required(node(new))) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(old), Some(new)) => is_narrower(&new, &old),
    };
    if narrower && new.affinity.is_some() {
        let all: &mut Affinity = allowed.affinity.get_or_insert_default();
        all.node_affinity = node(new);
    }
}

/// Does each term of `new` ask for all that the same term of `old` does? Any one of a selector's
/// terms is enough, so another term would make it wider.
fn is_narrower(new: &NodeSelector, old: &NodeSelector) -> bool {
    let (new, old) = (&new.node_selector_terms, &old.node_selector_terms);
    new.len() == old.len()
        && new.iter().zip(old).all(|(new, old)| {
            all_in(&old.match_expressions, &new.match_expressions)
                && all_in(&old.match_fields, &new.match_fields)
        })
}

/// Is all of `some` in `others`?
fn all_in<T: PartialEq>(some: &Option<Vec<T>>, others: &Option<Vec<T>>) -> bool {
    let others = others.as_deref().unwrap_or_default();
    some.iter().flatten().all(|one| others.contains(one))
}

/// The STATUS column: the most telling reason.
fn shown_status(this: &Pod) -> String {
    let status = this.status.as_ref();
    let mut shown = status
        .and_then(|s| s.reason.clone())
        .filter(|reason| !reason.is_empty())
        .unwrap_or_else(|| pod::phase(this).to_owned());
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let init: Vec<_> = status.iter().flat_map(|s| s.init_container_statuses.iter().flatten()).collect();
    let total = this.spec.as_ref().and_then(|s| s.init_containers.as_ref()).map_or(0, Vec::len);
    let unfinished = init.iter().position(|one| {
        let ended = one.state.as_ref().and_then(|s| s.terminated.as_ref());
        !one.started.unwrap_or(false) && ended.is_none_or(|ended| ended.exit_code != 0)
    });
    if let Some(index) = unfinished {
        let state = init[index].state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| filled(&w.reason));
        let ended = state.and_then(|s| s.terminated.as_ref()).and_then(|t| filled(&t.reason));
        let reason = ended.or(waiting.filter(|reason| reason != "PodInitializing"));
        shown = reason.map_or_else(|| format!("Init:{index}/{total}"), |r| format!("Init:{r}"));
    } else {
        // As kubectl: the first container has the last word.
        for one in pod::container_statuses(this).collect::<Vec<_>>().into_iter().rev() {
            let Some(state) = &one.state else { continue };
            if let Some(reason) = state.waiting.as_ref().and_then(|w| filled(&w.reason)) {
                shown = reason;
            } else if let Some(ended) = &state.terminated {
                shown = filled(&ended.reason).unwrap_or_else(|| match ended.signal {
                    Some(signal) if signal != 0 => format!("Signal:{signal}"),
                    _ => format!("ExitCode:{}", ended.exit_code),
                });
            }
        }
    }
    if pod::is_deleting(this) {
        let lost = status.and_then(|s| s.reason.as_deref()) == Some("NodeLost");
        shown = if lost { "Unknown".into() } else { "Terminating".into() };
    }
    shown
}

fn restarts(this: &Pod, now: Timestamp) -> String {
    let count: i32 = pod::container_statuses(this).map(|status| status.restart_count).sum();
    let last = pod::container_statuses(this)
        .filter_map(|status| status.last_state.as_ref()?.terminated.as_ref()?.finished_at.clone())
        .max();
    match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", time::age(last.0, now)),
        _ => count.to_string(),
    }
}
