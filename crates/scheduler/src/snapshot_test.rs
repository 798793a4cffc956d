use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolume;
use proptest::prelude::*;
use quorate_objects::storage;
use serde_json::{Value, json};

use super::*;
use crate::decide::{Policy, decide};
use crate::fixtures::{as_node, as_pod, node, pod};

const HOST: &str = "kubernetes.io/hostname";

/// What a pod of the tests asks for, besides room.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ask {
    Nothing,
    Port,
    /// Not with pods of this app, on a host or in a zone.
    Apart(usize, bool),
    /// With pods of this app, in a zone.
    With(usize),
    /// Spread over zones or hosts.
    Spread(bool),
    Zone(usize),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Nothing),
        Just(Ask::Port),
        (0..3_usize, any::<bool>()).prop_map(|(app, zone)| Ask::Apart(app, zone)),
        (0..3_usize).prop_map(Ask::With),
        any::<bool>().prop_map(Ask::Spread),
        (0..3_usize).prop_map(Ask::Zone),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Schedule { app: usize, cpu: i64, ask: Ask },
    Delete(prop::sample::Index),
    Terminate(prop::sample::Index),
    Relabel { node: usize, zone: usize },
    Remove(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_usize, 0..1500_i64, ask())
            .prop_map(|(app, cpu, ask)| Step::Schedule { app, cpu, ask }),
        1 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => any::<prop::sample::Index>().prop_map(Step::Terminate),
        1 => (0..6_usize, 0..4_usize).prop_map(|(node, zone)| Step::Relabel { node, zone }),
        1 => (0..6_usize).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..60)
}

fn term(app: usize, zone: bool) -> Value {
    json!({
        "topologyKey": if zone { "zone" } else { HOST },
        "labelSelector": {"matchLabels": {"app": format!("app{app}")}},
    })
}

fn make_pod(number: usize, app: usize, cpu: i64, ask: Ask) -> Value {
    let mut p = pod(&format!("p{number}"), &format!("{cpu}m"), "1Mi");
    p["metadata"]["labels"] = json!({"app": format!("app{app}")});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    match ask {
        Ask::Nothing => {}
        Ask::Port => {
            p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        }
        Ask::Apart(other, zone) => {
            p["spec"]["affinity"]["podAntiAffinity"][required] = json!([term(other, zone)]);
        }
        Ask::With(other) => {
            p["spec"]["affinity"]["podAffinity"][required] = json!([term(other, true)]);
        }
        Ask::Spread(zone) => {
            let mut constraint = term(app, zone);
            constraint["maxSkew"] = json!(1);
            constraint["whenUnsatisfiable"] = json!("DoNotSchedule");
            p["spec"]["topologySpreadConstraints"] = json!([constraint]);
        }
        Ask::Zone(zone) => p["spec"]["nodeSelector"] = json!({"zone": format!("z{zone}")}),
    }
    p
}

/// The cluster as plain lists, in which every rule is checked from scratch.
#[derive(Default)]
struct Model {
    /// Zone by node; an existing node without one has an empty text.
    nodes: BTreeMap<String, String>,
    pods: Vec<(Value, usize, Ask, String, bool)>,
}

impl Model {
    fn domain(&self, node: &str, zone: bool) -> Option<String> {
        let of_node = self.nodes.get(node)?;
        if !zone {
            return Some(node.to_owned());
        }
        Some(of_node.clone()).filter(|zone| !zone.is_empty())
    }

    /// Pods of the app by domain.
    fn count(&self, app: usize, zone: bool, staying: bool) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        for (_, other, _, node, leaving) in &self.pods {
            if let Some(domain) = self.domain(node, zone).filter(|_| *other == app)
                && !(staying && *leaving)
            {
                *counts.entry(domain).or_default() += 1;
            }
        }
        counts
    }

    fn allows(&self, app: usize, ask: Ask, node: &str) -> Result<(), String> {
        let at = |zone| self.domain(node, zone);
        for (_, _, other, on, _) in &self.pods {
            let Ask::Apart(from, zone) = other else { continue };
            if *from == app && at(*zone).is_some() && at(*zone) == self.domain(on, *zone) {
                return Err("an existing pod wants to be apart".into());
            }
        }
        let here = |app, zone| {
            let counts = self.count(app, zone, false);
            at(zone).and_then(|domain| counts.get(&domain).copied()).unwrap_or_default()
        };
        let ok = match ask {
            Ask::Nothing => true,
            Ask::Port => {
                !self.pods.iter().any(|(_, _, other, on, _)| *other == Ask::Port && on == node)
            }
            Ask::Apart(other, zone) => here(other, zone) == 0,
            Ask::With(other) => {
                let first = other == app && self.count(other, true, false).is_empty();
                at(true).is_some() && (first || here(other, true) > 0)
            }
            Ask::Zone(zone) => at(true) == Some(format!("z{zone}")),
            Ask::Spread(zone) => {
                let counts = self.count(app, zone, true);
                let domains: BTreeSet<String> =
                    self.nodes.keys().filter_map(|node| self.domain(node, zone)).collect();
                let of = |domain: &String| counts.get(domain).copied().unwrap_or_default();
                let fewest = domains.iter().map(of).min().unwrap_or_default();
                at(zone).is_some_and(|domain| of(&domain) + 1 - fewest <= 1)
            }
        };
        if ok { Ok(()) } else { Err(format!("{ask:?} is not satisfied on {node}")) }
    }
}

fn make_node(number: usize, zone: usize) -> (Node, String, String) {
    let name = format!("n{number}");
    let mut value = node(&name, "4", "64Gi");
    // The last zone is none.
    let zone = if zone == 3 { String::new() } else { format!("z{zone}") };
    if !zone.is_empty() {
        value["metadata"]["labels"]["zone"] = json!(zone);
    }
    (as_node(&value), name, zone)
}

type Told = BTreeMap<String, String>;

/// Everything a snapshot knows, in an order that does not depend on how it came to know it.
fn told(snapshot: &ClusterSnapshot) -> Told {
    let mut told = BTreeMap::new();
    for node in snapshot.nodes().iter().filter(|node| !node.name.is_empty()) {
        let mut ports: Vec<_> =
            node.host_ports.iter().map(|(_, port)| format!("{port:?}")).collect();
        ports.sort();
        let groups: BTreeMap<_, _> = node.groups.iter().collect();
        let pods: BTreeSet<_> =
            node.pods.iter().filter_map(|id| snapshot.pod(*id)).map(|p| &p.key.name).collect();
        let text = format!(
            "{} {:?} {:?} {:?} {ports:?} {groups:?} {pods:?} {:?}",
            node.exists, node.labels, node.allocated, node.allocated_extended, node.priorities
        );
        told.insert(node.name.to_string(), text);
    }
    for term in snapshot.topology().terms() {
        let key = &snapshot.topology().keys[term.key];
        let named = |counts: &Counts| {
            let named =
                counts.iter().map(|(domain, count)| (key.value(domain).map(str::to_owned), count));
            named.collect::<BTreeMap<_, _>>()
        };
        let counts = [&term.matching, &term.leaving, &term.repelled, &term.attracted, &term.wished];
        told.insert(format!("{:?}", term.what), format!("{:?}", counts.map(named)));
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens: no node is overcommitted, every placement satisfies every rule, a pod is
    /// refused only if no node would do, the same question gets the same answer, and the snapshot
    /// equals one that is built from scratch.
    #[test]
    fn every_placement_is_right_and_the_snapshot_equals_a_new_one(seed: u64, steps in steps()) {
        let policy = Policy { seed, ..Policy::default() };
        let mut snapshot = ClusterSnapshot::new();
        let mut model = Model::default();
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut all: Vec<Value> = Vec::new();
        for number in 0..6 {
            let (object, name, zone) = make_node(number, number % 3);
            snapshot.set_node(&object);
            nodes.insert(name.clone(), object);
            model.nodes.insert(name, zone);
        }
        for step in steps {
            match step {
                Step::Schedule { app, cpu, ask } => {
                    let mut value = make_pod(all.len(), app, cpu, ask);
                    all.push(value.clone());
                    let object = as_pod(&value);
                    let decision = decide(&mut snapshot, &policy, &object);
                    prop_assert_eq!(&decision, &decide(&mut snapshot, &policy, &object));
                    let key = PodKey::of(&object);
                    let Some(chosen) = decision.node() else {
                        for name in model.nodes.keys() {
                            let node = snapshot.node(name).expect("it exists");
                            let fits = node.free().cpu_millis >= cpu && node.free().pods > 0;
                            prop_assert!(!fits || model.allows(app, ask, name).is_err(),
                                "{:?} would do for {:?}: {:?}", name, value, decision);
                        }
                        continue;
                    };
                    prop_assert_eq!(model.allows(app, ask, chosen), Ok(()));
                    let class = snapshot.class_of(&object);
                    snapshot.assume(key.clone(), &class, chosen);
                    // The cache shows it later; it must not count twice.
                    value["spec"]["nodeName"] = json!(chosen);
                    snapshot.set_pod(&as_pod(&value));
                    snapshot.forget(&key);
                    model.pods.push((value, app, ask, chosen.to_owned(), false));
                }
                Step::Delete(index) if !model.pods.is_empty() => {
                    let (value, ..) = model.pods.swap_remove(index.index(model.pods.len()));
                    snapshot.remove_pod(&PodKey::of(&as_pod(&value)));
                }
                Step::Terminate(index) if !model.pods.is_empty() => {
                    let index = index.index(model.pods.len());
                    let (value, _, _, _, leaving) = &mut model.pods[index];
                    *leaving = true;
                    value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    snapshot.set_pod(&as_pod(value));
                }
                Step::Relabel { node, zone } => {
                    let (object, name, zone) = make_node(node, zone);
                    snapshot.set_node(&object);
                    nodes.insert(name.clone(), object);
                    model.nodes.insert(name, zone);
                }
                Step::Remove(node) => {
                    let name = format!("n{node}");
                    snapshot.remove_node(&name);
                    nodes.remove(&name);
                    model.nodes.remove(&name);
                }
                Step::Delete(_) | Step::Terminate(_) => {}
            }
            for node in snapshot.nodes() {
                let free = node.free();
                prop_assert!(!node.exists || (free.cpu_millis >= 0 && free.pods >= 0));
            }
        }
        let mut scratch = ClusterSnapshot::new();
        let classes: Vec<Class> =
            all.iter().map(|value| scratch.class_of(&as_pod(value))).collect();
        nodes.values().for_each(|node| { scratch.set_node(node); });
        model.pods.iter().for_each(|(value, ..)| { scratch.set_pod(&as_pod(value)); });
        drop(classes);
        prop_assert_eq!(told(&snapshot), told(&scratch));
    }
}

#[test]
fn classes_and_terms_that_nobody_uses_go() {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("n1", "4", "64Gi")));
    for number in 0..2_000 {
        let mut value = make_pod(number, 0, 1, Ask::Apart(1, false));
        value["metadata"]["labels"] = json!({"app": format!("own{number}")});
        value["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            [0]["labelSelector"] = json!({"matchLabels": {"app": format!("own{number}")}});
        value["spec"]["nodeName"] = json!("n1");
        snapshot.set_pod(&as_pod(&value));
        snapshot.remove_pod(&PodKey::of(&as_pod(&value)));
    }
    assert!(snapshot.topology().terms().count() < 600);
}

#[test]
fn labels_of_namespaces_decide_who_is_meant() {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("n1", "4", "64Gi")));
    let mut there = make_pod(0, 0, 1, Ask::Nothing);
    there["metadata"]["namespace"] = json!("other");
    there["spec"]["nodeName"] = json!("n1");
    snapshot.set_pod(&as_pod(&there));
    let mut apart = make_pod(1, 1, 1, Ask::Apart(0, false));
    apart["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        [0]["namespaceSelector"] = json!({"matchLabels": {"team": "a"}});
    let apart = as_pod(&apart);
    let policy = Policy::default();
    assert_eq!(decide(&mut snapshot, &policy, &apart).node(), Some("n1"));
    let team = |name: &str| Some(BTreeMap::from([("team".to_owned(), name.to_owned())]));
    assert!(snapshot.set_namespace("other", team("a")).meets([Filter::InterPodAffinity].into()));
    assert_eq!(decide(&mut snapshot, &policy, &apart).node(), None);
    snapshot.set_namespace("other", team("b"));
    assert_eq!(decide(&mut snapshot, &policy, &apart).node(), Some("n1"));
}

#[test]
fn a_claim_stays_where_its_volume_is() {
    let mut snapshot = ClusterSnapshot::new();
    for name in ["n1", "n2"] {
        snapshot.set_node(&as_node(&node(name, "4", "64Gi")));
    }
    let class = serde_json::from_value(json!({"metadata": {"name": "local"},
        "provisioner": storage::PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"}));
    snapshot.claims.set_class("local", Some(class.expect("a class")));
    let mut value = pod("p", "1", "0");
    value["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let object = as_pod(&value);
    let policy = Policy::default();
    let ask = |snapshot: &mut ClusterSnapshot| decide(snapshot, &policy, &object).outcome;
    let words = |outcome: crate::Outcome| match outcome {
        crate::Outcome::Node(node) => node,
        crate::Outcome::Unschedulable(why) => why.to_string(),
    };
    assert_eq!(
        words(ask(&mut snapshot)),
        "0/2 nodes are available: 2 persistentvolumeclaim \"data\" not found."
    );
    let claim = |node: Option<&str>, volume: Option<&str>| {
        let annotations = node.map(|node| json!({(storage::SELECTED_NODE): node}));
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "data", "annotations": annotations},
            "spec": {"volumeName": volume, "storageClassName": "local"},
        }))
        .expect("a claim")
    };
    snapshot.claims.set_claim(&claim(None, None));
    let class = snapshot.class_of(&object);
    assert_eq!(snapshot.claims.without_node(class.needs()), ["data"]);
    // Chosen by us, then shown by the cache.
    snapshot.claims.choose(class.needs(), "n2");
    assert_eq!(words(ask(&mut snapshot)), "n2");
    snapshot.claims.set_claim(&claim(Some("n1"), None));
    assert_eq!(words(ask(&mut snapshot)), "n1");
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": "v"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": HOST, "operator": "In", "values": ["n2"]},
        ]}]}}},
    }))
    .expect("a volume");
    snapshot.claims.set_volume(&volume);
    snapshot.claims.set_claim(&claim(None, Some("v")));
    assert_eq!(words(ask(&mut snapshot)), "n2");
    snapshot.remove_node("n2");
    assert_eq!(
        words(ask(&mut snapshot)),
        "0/1 nodes are available: 1 node(s) had volume node affinity conflict."
    );
}

/// A cluster with one node and a pod `p` with a claim; what is decided about it, in words.
fn about_claims(objects: &[Value]) -> (ClusterSnapshot, String) {
    let mut snapshot = ClusterSnapshot::new();
    snapshot.set_node(&as_node(&node("n1", "4", "64Gi")));
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let read = |object: &Value| serde_json::from_value(object.clone()).expect("a class");
        match object["kind"].as_str() {
            Some("StorageClass") => snapshot.claims.set_class(name, Some(read(object))),
            Some("PersistentVolume") => {
                let volume = serde_json::from_value(object.clone()).expect("a volume");
                snapshot.claims.set_volume(&volume);
            }
            _ => {
                let claim = serde_json::from_value(object.clone()).expect("a claim");
                snapshot.claims.set_claim(&claim);
            }
        }
    }
    let decision = decide(&mut snapshot, &Policy::default(), &with_claim("p"));
    let words = match decision.outcome {
        crate::Outcome::Node(node) => node,
        crate::Outcome::Unschedulable(why) => why.to_string(),
    };
    (snapshot, words)
}

fn with_claim(name: &str) -> Pod {
    let mut value = pod(name, "1", "0");
    value["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    as_pod(&value)
}

fn claim_of_class(class: &Value, mode: &str) -> Value {
    json!({"metadata": {"namespace": "default", "name": "data"},
        "spec": {"accessModes": [mode], "storageClassName": class}})
}

fn storage_class(provisioner: &str, mode: &str) -> Value {
    json!({"kind": "StorageClass", "metadata": {"name": "c"}, "provisioner": provisioner,
        "volumeBindingMode": mode})
}

#[test]
fn a_pod_waits_for_claims_that_nothing_can_be_made_for() {
    let ours = storage_class(storage::PROVISIONER, "WaitForFirstConsumer");
    let once = "ReadWriteOnce";
    let cases = [
        (vec![claim_of_class(&json!("c"), once)], "storageclass.storage.k8s.io \"c\" not found"),
        (vec![claim_of_class(&Value::Null, once)], "unbound immediate PersistentVolumeClaims"),
        (
            vec![storage_class("p", "Immediate"), claim_of_class(&json!("c"), once)],
            "unbound immediate PersistentVolumeClaims",
        ),
        (vec![ours.clone(), claim_of_class(&json!("c"), "ReadWriteMany")], "use ReadWriteOnce"),
    ];
    for (objects, says) in cases {
        let (_, words) = about_claims(&objects);
        assert!(words.contains(says), "{words}");
    }
    assert_eq!(about_claims(&[ours, claim_of_class(&json!("c"), once)]).1, "n1");
}

#[test]
fn a_claim_without_a_provisioner_goes_where_a_free_volume_is() {
    let class = storage_class(storage::NO_PROVISIONER, "WaitForFirstConsumer");
    let claim = claim_of_class(&json!("c"), "ReadWriteOnce");
    let volume = |host: &str| {
        json!({"kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "c",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": HOST, "operator": "In", "values": [host]}]}]}}}})
    };
    let none = "didn't find available persistent volumes to bind";
    assert!(about_claims(&[class.clone(), claim.clone()]).1.contains(none));
    assert!(about_claims(&[class.clone(), claim.clone(), volume("n2")]).1.contains(none));
    assert_eq!(about_claims(&[class, claim, volume("n1")]).1, "n1");
}

#[test]
fn a_claim_for_one_pod_is_for_one_pod() {
    let class = storage_class(storage::PROVISIONER, "WaitForFirstConsumer");
    let claim = claim_of_class(&json!("c"), "ReadWriteOncePod");
    let (mut snapshot, words) = about_claims(&[class, claim]);
    assert_eq!(words, "n1");
    let mut first = with_claim("first");
    first.spec.as_mut().expect("a spec").node_name = Some("n1".to_owned());
    snapshot.set_pod(&first);
    let second = with_claim("second");
    let why = decide(&mut snapshot, &Policy::default(), &second).outcome;
    assert!(
        matches!(&why, crate::Outcome::Unschedulable(why)
        if why.to_string().contains("ReadWriteOncePod")),
        "{why:?}"
    );
    let freed = snapshot.remove_pod(&PodKey::of(&first));
    assert!(freed.meets([Filter::VolumeBinding].into()), "its end wakes the second");
    assert_eq!(decide(&mut snapshot, &Policy::default(), &second).node(), Some("n1"));
}
