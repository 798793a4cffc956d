#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn object(kind: &str, name: &str, uid: &str) -> v1::Object {
    let json = json!({
        "kind": kind, "metadata": {"name": name, "namespace": "d", "uid": uid},
        "spec": {"containers": [], "podCIDR": "10.1.0.0/24"},
    });
    v1::Object {
        kind: Some(v1::KindRef { api_version: "v1".into(), kind: kind.into() }),
        namespace: "d".into(),
        name: name.into(),
        uid: uid.into(),
        revision: 1,
        json: serde_json::to_vec(&json).unwrap().into(),
    }
}

fn message(term: u64, full: bool, set: Vec<v1::Object>) -> v1::Assignments {
    v1::Assignments { term, revision: 1, full, set, ..v1::Assignments::default() }
}

fn uids(all: &Assignments) -> Vec<String> {
    all.pods().filter_map(|p| p.metadata.uid.clone()).collect()
}

#[test]
fn a_full_set_replaces_and_a_change_adds() {
    let mut all = Assignments::default();
    let set = vec![object("Pod", "a", "1"), object("Pod", "b", "2"), object("Node", "n", "9")];
    let change = all.apply(message(1, true, set)).unwrap();
    assert!(change.pods && change.node && !change.services);
    assert_eq!(all.pod_cidr().as_deref(), Some("10.1.0.0/24"));
    all.apply(message(1, false, vec![object("Pod", "c", "3")])).unwrap();
    assert_eq!(uids(&all), ["1", "2", "3"]);
    let change = all.apply(message(2, true, vec![object("Pod", "c", "3")])).unwrap();
    assert!(change.pods);
    assert_eq!(uids(&all), ["3"]);
    let change = all.apply(message(2, true, vec![object("Pod", "c", "3")])).unwrap();
    assert!(!change.pods, "the same again is no change");
}

#[test]
fn an_older_term_is_refused_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("assignments.json");
    let mut all = Assignments::default();
    all.apply(message(5, true, vec![object("Pod", "a", "1")])).unwrap();
    assert_eq!(all.apply(message(4, true, vec![])), Err(Stale { term: 4, newest: 5 }));
    all.save(&file).unwrap();
    let mut again = Assignments::load(&file).unwrap();
    assert_eq!(uids(&again), ["1"]);
    assert!(again.apply(message(4, true, vec![])).is_err());
    assert_eq!(uids(&again), ["1"]);
}

#[test]
fn whoever_hears_what_is_held_is_followed_by_nobody_older() {
    let mut all = Assignments::default();
    let mut pod = object("Pod", "a", "1");
    pod.json = serde_json::to_vec(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "d", "uid": "1", "resourceVersion": "7"},
    }))
    .unwrap()
    .into();
    all.apply(message(3, true, vec![pod])).unwrap();
    let holding = all.hold(5).unwrap();
    let held = v1::Held {
        kind: Some(v1::KindRef { api_version: "v1".into(), kind: "Pod".into() }),
        namespace: "d".into(),
        name: "a".into(),
        uid: "1".into(),
        revision: 7,
    };
    assert_eq!(holding, v1::Holding { term: 5, objects: vec![held] });
    let late = message(4, false, vec![object("Pod", "b", "2")]);
    assert_eq!(all.apply(late), Err(Stale { term: 4, newest: 5 }));
    assert!(all.hold(4).is_err());
    let complete = v1::Assignments { complete: true, ..message(5, false, Vec::new()) };
    all.apply(complete).unwrap();
    assert_eq!(uids(&all), ["1"]);
}

#[test]
fn a_late_removal_spares_the_next_pod_of_the_name() {
    let mut all = Assignments::default();
    all.apply(message(1, true, vec![object("Pod", "a", "1")])).unwrap();
    let mut change = message(1, false, vec![object("Pod", "a", "2")]);
    let key = |uid: &str| v1::ObjectKey {
        kind: Some(v1::KindRef { api_version: "v1".into(), kind: "Pod".into() }),
        namespace: "d".into(),
        name: "a".into(),
        uid: uid.into(),
    };
    all.apply(std::mem::take(&mut change)).unwrap();
    change.term = 1;
    change.removed = vec![key("1")];
    all.apply(change.clone()).unwrap();
    assert_eq!(uids(&all), ["2"]);
    change.removed = vec![key("2")];
    assert!(all.apply(change).unwrap().pods);
    assert!(uids(&all).is_empty());
}

#[test]
fn nothing_kept_is_an_empty_set_and_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("assignments.json");
    assert!(uids(&Assignments::load(&file).unwrap()).is_empty());
    std::fs::write(&file, "{").unwrap();
    assert!(Assignments::load(&file).is_err());
}
