use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::fixtures::{as_pod, pod};

fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_term_means_its_own_namespace_unless_it_says_others() {
    let needs = |extra: serde_json::Value| {
        let mut p = pod("p", "0", "0");
        p["metadata"]["labels"] = json!({"app": "web", "version": "2"});
        let mut term = json!({
            "topologyKey": "zone",
            "labelSelector": {"matchLabels": {"app": "web"}},
        });
        for (key, value) in extra.as_object().expect("an object") {
            term[key] = value.clone();
        }
        p["spec"]["affinity"]["podAntiAffinity"] =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        Needs::of(&as_pod(&p))
    };
    let web = labels(&[("app", "web"), ("version", "1")]);
    let team = labels(&[("team", "a")]);
    for (extra, own, named, selected) in [
        (json!({}), true, false, false),
        (json!({"namespaces": ["named"]}), false, true, false),
        (json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), false, false, true),
        (json!({"namespaceSelector": {}}), true, true, true),
        (json!({"matchLabelKeys": ["version"]}), false, false, false),
        (json!({"mismatchLabelKeys": ["version"]}), true, false, false),
        (json!({"labelSelector": null}), false, false, false),
    ] {
        let term = Arc::clone(&needs(extra.clone()).anti_affinity[0]);
        assert_eq!(term.matches("default", None, &web), own, "{extra}");
        assert_eq!(term.matches("named", None, &web), named, "{extra}");
        assert_eq!(term.matches("selected", Some(&team), &web), selected, "{extra}");
    }
}

#[test]
fn pods_of_one_owner_have_the_same_needs_and_others_do_not() {
    let owned = |name: &str, owner: &str| {
        let mut p = pod(name, "1", "1Gi");
        p["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": owner,
            "controller": true,
        }]);
        Needs::of(&as_pod(&p))
    };
    assert_eq!(owned("a", "r1"), owned("b", "r1"));
    assert_ne!(owned("a", "r1"), owned("b", "r2"));
}

#[test]
fn claims_and_images() {
    let mut p = pod("db-0", "0", "0");
    p["spec"]["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "none", "emptyDir": {}},
    ]);
    p["spec"]["containers"][0]["image"] = json!("localhost:5000/db");
    let needs = Needs::of(&as_pod(&p));
    assert_eq!(needs.claims, ["data-db-0", "db-0-scratch"]);
    assert_eq!(needs.images, ["localhost:5000/db:latest"]);
    assert_eq!(tagged("db:1"), "db:1");
    assert_eq!(tagged("db@sha256:00"), "db@sha256:00");
}

#[test]
fn nodes_named_by_every_term() {
    let named = |terms: serde_json::Value| {
        let mut p = pod("p", "0", "0");
        p["spec"]["affinity"]["nodeAffinity"] = json!({
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        });
        let needs = Needs::of(&as_pod(&p));
        needs.named_nodes().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
    assert_eq!(named(json!([name("n1"), name("n2")])), Some(vec!["n1".into(), "n2".into()]));
    let label = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
    assert_eq!(named(json!([name("n1"), label])), None);
}
