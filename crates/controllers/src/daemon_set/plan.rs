//! What has to be done for a DaemonSet: pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Taint, Toleration,
};
use quorate_objects::{affinity, pod};

use crate::revisions::HASH_LABEL;
use crate::workload::{count, share, until_available};

/// A pod that has failed is replaced after this time, so that a node that refuses it is not
/// asked again and again without a pause.
const FAILED_KEPT: Duration = Duration::from_secs(5);
/// The field by which a pod says which node it belongs to.
const NAME_FIELD: &str = "metadata.name";

/// A DaemonSet with its pods and all nodes.
pub(super) struct State<'a> {
    pub set: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    pub pods: Vec<Arc<Pod>>,
    /// The hash of the present template.
    pub update: &'a str,
    pub now: Timestamp,
}

/// What has to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that have to go.
    pub delete: Vec<Arc<Pod>>,
    /// When to look again although nothing happens.
    pub wait: Option<Duration>,
}

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It gets a pod.
    Wanted,
    /// It gets none, but a pod that is there stays (a taint NoSchedule came later).
    Tolerated,
    /// No pod may be there.
    Forbidden,
}

fn hash_of(object: &Pod) -> &str {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// Taints that pods of every DaemonSet tolerate: they are to run where others may not.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut keys = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        keys.push(("network-unavailable", "NoSchedule"));
    }
    // A node that is silent has NoSchedule too; its pod shall be there when it returns.
    keys.extend([("not-ready", "NoSchedule"), ("unreachable", "NoSchedule")]);
    let one = |(key, effect): (&str, &str)| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".into()),
        effect: Some(effect.into()),
        ..Toleration::default()
    };
    keys.into_iter().map(one).collect()
}

/// The template's spec with what every pod of a DaemonSet tolerates.
fn effective(set: &DaemonSet) -> PodSpec {
    let mut spec = set.spec.template.spec.clone().unwrap_or_default();
    let added = tolerations(&spec);
    let present = spec.tolerations.get_or_insert_default();
    for toleration in added {
        if !present.contains(&toleration) {
            present.push(toleration);
        }
    }
    spec
}

fn place(spec: &PodSpec, node: &Node) -> Place {
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some() && named != node.metadata.name.as_deref() || !affinity::allows(spec, node) {
        return Place::Forbidden;
    }
    let mut taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        taints.push(Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        });
    }
    let probe = Pod { spec: Some(spec.clone()), ..Pod::default() };
    if pod::untolerated(&probe, &taints, &["NoExecute"]).is_some() {
        Place::Forbidden
    } else if pod::untolerated(&probe, &taints, &["NoSchedule"]).is_some() {
        Place::Tolerated
    } else {
        Place::Wanted
    }
}

/// The pod of a node. The scheduler binds it, so that it is refused with a reason that users
/// see when the node has no room.
pub(super) fn new_pod(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let mut object = pod::from_template(&set.spec.template);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    object.metadata.generate_name = Some(format!("{name}-"));
    object.metadata.namespace.clone_from(&set.metadata.namespace);
    object.metadata.owner_references = Some(vec![pod::controller_reference(set)]);
    object.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.to_owned());
    let mut spec = effective(set);
    let term = || NodeSelectorRequirement {
        key: NAME_FIELD.into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required: &mut NodeSelector =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    // Whatever it asks for besides, the node is this one. The node satisfies the other terms.
    required.node_selector_terms =
        vec![NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![term()]) }];
    object.spec = Some(spec);
    object
}

/// The node that a pod is on or belongs to.
pub(super) fn node_of(object: &Pod) -> Option<&str> {
    if let Some(name) = pod::node_name(object) {
        return Some(name);
    }
    let affinity = object.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields =
        required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == NAME_FIELD)?;
    field.values.as_ref()?.first().map(String::as_str)
}

/// A node with the pods that are on it, oldest first.
struct Spot<'a> {
    name: &'a str,
    place: Place,
    pods: Vec<&'a Arc<Pod>>,
}

impl Spot<'_> {
    fn active(&self) -> impl Iterator<Item = &&Arc<Pod>> {
        self.pods.iter().filter(|object| pod::is_active(object))
    }
}

impl State<'_> {
    fn is_available(&self, object: &Pod) -> bool {
        let wait = until_available(object, self.set.spec.min_ready_seconds, self.now);
        pod::is_active(object) && wait.is_some_and(|wait| wait.is_zero())
    }

    fn spots(&self) -> Vec<Spot<'_>> {
        let spec = effective(self.set);
        let mut by_node: HashMap<&str, Vec<&Arc<Pod>>> = HashMap::new();
        for object in &self.pods {
            by_node.entry(node_of(object).unwrap_or_default()).or_default().push(object);
        }
        let mut spots = Vec::new();
        for node in self.nodes {
            let place = place(&spec, node);
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let mut pods = by_node.remove(name).unwrap_or_default();
            pods.sort_by_key(|object| {
                let created = object.metadata.creation_timestamp.as_ref().map(|t| t.0);
                (created, object.metadata.name.clone())
            });
            spots.push(Spot { name, place, pods });
        }
        spots
    }

    /// Pods that nobody will ever bind: the node that each belongs to is gone. (Those that were
    /// bound to it are the pod collector's.)
    fn stranded(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let names = self.nodes.iter().filter_map(|node| node.metadata.name.as_deref());
        let names: HashSet<&str> = names.collect();
        self.pods.iter().filter(move |object| {
            let unbound = pod::is_active(object) && pod::node_name(object).is_none();
            unbound && node_of(object).is_some_and(|node| !names.contains(node))
        })
    }

    fn bounds(&self, desired: i32) -> (i32, i32) {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge =
            rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |v| share(v, desired, true));
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref());
        let unavailable = unavailable.map_or(1, |value| share(value, desired, true));
        (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete")
    }
}

/// Works out what has to be done.
pub(super) fn plan(state: &State<'_>) -> Plan {
    let mut plan = Plan::default();
    let spots = state.spots();
    for spot in &spots {
        settle(state, spot, &mut plan);
    }
    plan.delete.extend(state.stranded().map(Arc::clone));
    if !state.is_on_delete() {
        roll(state, &spots, &mut plan);
    }
    plan
}

/// One pod where one is wanted, none where none may be.
fn settle(state: &State<'_>, spot: &Spot<'_>, plan: &mut Plan) {
    if spot.place == Place::Forbidden {
        plan.delete.extend(spot.active().map(|object| Arc::clone(object)));
    }
    for object in spot.pods.iter().filter(|o| pod::is_terminal(o) && !pod::is_deleting(o)) {
        let wait = if pod::phase(object) == "Failed" {
            FAILED_KEPT.saturating_sub(since_end(object, state.now))
        } else {
            Duration::ZERO
        };
        if wait.is_zero() {
            plan.delete.push(Arc::clone(object));
        } else {
            plan.wait = Some(plan.wait.map_or(wait, |other| other.min(wait)));
        }
    }
    if spot.place == Place::Wanted && spot.pods.is_empty() {
        // A pod that ends or goes holds the place (its ports, its files) until it is gone.
        plan.create.push(spot.name.to_owned());
    }
    // Two of one template: the elder stays.
    for revision in [true, false] {
        let same = spot.active().filter(|object| (hash_of(object) == state.update) == revision);
        if spot.place != Place::Forbidden {
            plan.delete.extend(same.skip(1).map(|object| Arc::clone(object)));
        }
    }
}

fn since_end(object: &Pod, now: Timestamp) -> Duration {
    let ended = pod::container_statuses(object)
        .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let since = ended.or(created).map_or(0, |since| now.as_second() - since.as_second());
    Duration::from_secs(u64::try_from(since).unwrap_or_default())
}

/// From the old template to the new one, within maxUnavailable or maxSurge.
fn roll(state: &State<'_>, spots: &[Spot<'_>], plan: &mut Plan) {
    let wanted: Vec<_> = spots.iter().filter(|spot| spot.place == Place::Wanted).collect();
    let (surge, unavailable) = state.bounds(count(wanted.len()));
    let is_new = |object: &Pod| hash_of(object) == state.update;
    let missing = wanted.iter().filter(|s| !s.active().any(|o| state.is_available(o)));
    let mut missing = count(missing.count());
    let mut doubled = count(wanted.iter().filter(|s| s.active().count() > 1).count());
    for spot in spots.iter().filter(|spot| spot.place != Place::Forbidden) {
        let Some(old) = spot.active().find(|object| !is_new(object)) else { continue };
        let new = spot.active().find(|object| is_new(object));
        if new.is_some_and(|new| state.is_available(new)) || !state.is_available(old) {
            // Nothing is lost with it.
            plan.delete.push(Arc::clone(old));
        } else if spot.place == Place::Tolerated {
            // A pod taken away here would not come back.
        } else if surge > 0 {
            if new.is_none() && doubled < surge {
                doubled += 1;
                plan.create.push(spot.name.to_owned());
            }
        } else if missing < unavailable {
            missing += 1;
            plan.delete.push(Arc::clone(old));
        }
    }
}

/// The status, and when to look again for pods that become available by mere passing of time.
pub(super) fn status(state: &State<'_>) -> (DaemonSetStatus, Option<Duration>) {
    let old = state.set.status.clone().unwrap_or_default();
    let spots = state.spots();
    let wanted: Vec<_> = spots.iter().filter(|spot| spot.place == Place::Wanted).collect();
    let min_ready = state.set.spec.min_ready_seconds;
    let wait = |object: &Arc<Pod>| until_available(object, min_ready, state.now);
    let having = |test: &dyn Fn(&Arc<Pod>) -> bool| {
        count(wanted.iter().filter(|spot| spot.active().any(|object| test(object))).count())
    };
    let misplaced =
        spots.iter().filter(|s| s.place != Place::Wanted && s.active().next().is_some());
    let desired = count(wanted.len());
    let available = having(&|object| state.is_available(object));
    let status = DaemonSetStatus {
        current_number_scheduled: having(&|_| true),
        desired_number_scheduled: desired,
        number_available: Some(available),
        number_misscheduled: count(misplaced.count()),
        number_ready: having(&|object| wait(object).is_some()),
        number_unavailable: Some(desired - available),
        observed_generation: state.set.metadata.generation,
        updated_number_scheduled: Some(having(&|object| hash_of(object) == state.update)),
        ..old
    };
    let active = wanted.iter().flat_map(|spot| spot.active());
    let next = active.filter_map(|object| wait(object)).filter(|wait| !wait.is_zero()).min();
    (status, next)
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
