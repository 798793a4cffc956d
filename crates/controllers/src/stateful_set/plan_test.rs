#![allow(clippy::unwrap_used)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::super::identity;
use super::*;

fn set(change: impl FnOnce(&mut Value)) -> StatefulSet {
    let mut value = json!({
        "metadata": {"name": "db", "namespace": "default", "uid": "u"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "db"}}, "template": {},
            "updateStrategy": {"type": "RollingUpdate"}},
    });
    change(&mut value["spec"]);
    serde_json::from_value(value).unwrap()
}

/// `(ordinal, revision, state)`: state is `ready`, `unready`, `going` or `failed`.
fn pods(list: &[(i32, &str, &str)]) -> BTreeMap<i32, Arc<Pod>> {
    let one = |(ordinal, revision, state): &(i32, &str, &str)| {
        let ready = if *state == "ready" { "True" } else { "False" };
        let mut value = json!({
            "metadata": {"name": format!("db-{ordinal}"),
                "labels": {"controller-revision-hash": revision}},
            "status": {"phase": if *state == "failed" { "Failed" } else { "Running" },
                "conditions": [{"type": "Ready", "status": ready}]},
        });
        if *state == "going" {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        (*ordinal, Arc::new(serde_json::from_value(value).unwrap()))
    };
    list.iter().map(one).collect()
}

/// What is made and what is taken away.
fn planned(set: &StatefulSet, list: &[(i32, &str, &str)]) -> (Vec<i32>, Vec<String>) {
    let now = quorate_objects::time::timestamp();
    let state = State { set, pods: pods(list), current: "old", update: "new", now };
    let plan = plan(&state);
    let deleted = plan.delete.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    (plan.create.iter().map(|(ordinal, _)| *ordinal).collect(), deleted)
}

#[test]
fn in_order_one_after_the_other() {
    let set = set(|_| {});
    let ready = |n| (n, "new", "ready");
    assert_eq!(planned(&set, &[]), (vec![0], vec![]));
    assert_eq!(planned(&set, &[(0, "new", "unready")]), (vec![], vec![]), "it waits");
    assert_eq!(planned(&set, &[ready(0)]), (vec![1], vec![]));
    assert_eq!(planned(&set, &[ready(0), ready(2)]), (vec![1], vec![]), "a gap is filled");
    // The last goes first, and alone.
    let five = [ready(0), ready(1), ready(2), ready(3), ready(4)];
    assert_eq!(planned(&set, &five), (vec![], vec!["db-4".to_owned()]));
    let four = [ready(0), ready(1), ready(2), ready(3), (4, "new", "going")];
    assert_eq!(planned(&set, &four), (vec![], vec![]));
}

#[test]
fn a_pod_that_goes_or_has_ended_holds_its_name() {
    let set = set(|_| {});
    assert_eq!(planned(&set, &[(0, "new", "going")]), (vec![], vec![]), "never two db-0");
    assert_eq!(planned(&set, &[(0, "new", "failed")]), (vec![], vec!["db-0".to_owned()]));
    let parallel = self::set(|spec| spec["podManagementPolicy"] = json!("Parallel"));
    assert_eq!(planned(&parallel, &[(1, "new", "going")]).0, [0, 2]);
}

#[test]
fn in_parallel_all_at_once() {
    let set = set(|spec| spec["podManagementPolicy"] = json!("Parallel"));
    assert_eq!(planned(&set, &[]), (vec![0, 1, 2], vec![]));
    let five = [(3, "new", "ready"), (4, "new", "unready")];
    assert_eq!(planned(&set, &five), (vec![0, 1, 2], vec!["db-4".into(), "db-3".into()]));
}

#[test]
fn ordinals_may_start_anywhere() {
    let set = set(|spec| spec["ordinals"] = json!({"start": 5}));
    assert_eq!(planned(&set, &[]), (vec![5], vec![]));
    let state =
        [(5, "new", "ready"), (6, "new", "ready"), (7, "new", "ready"), (0, "new", "ready")];
    assert_eq!(planned(&set, &state), (vec![], vec!["db-0".to_owned()]));
}

#[test]
fn updates_go_from_the_highest_down_to_the_partition() {
    let old = |n| (n, "old", "ready");
    let all = set(|_| {});
    assert_eq!(planned(&all, &[old(0), old(1), old(2)]).1, ["db-2"]);
    assert_eq!(planned(&all, &[old(0), old(1), (2, "new", "ready")]).1, ["db-1"]);
    let half = set(|spec| spec["updateStrategy"]["rollingUpdate"] = json!({"partition": 2}));
    assert_eq!(planned(&half, &[old(0), old(1), old(2)]).1, ["db-2"]);
    assert!(planned(&half, &[old(0), old(1), (2, "new", "ready")]).1.is_empty());
    let state = State {
        set: &half,
        pods: pods(&[(1, "old", "ready")]),
        current: "old",
        update: "new",
        now: quorate_objects::time::timestamp(),
    };
    assert_eq!(plan(&state).create, [(0, true)], "below the partition: the old template");
    let manual = set(|spec| spec["updateStrategy"] = json!({"type": "OnDelete"}));
    assert!(planned(&manual, &[old(0), old(1), old(2)]).1.is_empty());
    let two = set(|spec| spec["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 2}));
    assert_eq!(planned(&two, &[old(0), old(1), old(2)]).1, ["db-2", "db-1"]);
    let far = set(|spec| spec["updateStrategy"]["rollingUpdate"] = json!({"partition": 9}));
    assert!(planned(&far, &[old(0), old(1), old(2)]).1.is_empty());
}

#[test]
fn the_status_moves_on_when_the_update_is_complete() {
    let set = set(|_| {});
    let status = |list: &[(i32, &str, &str)]| {
        let now = quorate_objects::time::timestamp();
        let state = State { set: &set, pods: pods(list), current: "old", update: "new", now };
        status(&state).0
    };
    let half = status(&[(0, "old", "ready"), (1, "old", "unready"), (2, "new", "ready")]);
    assert_eq!((half.replicas, half.ready_replicas), (3, Some(2)));
    assert_eq!((half.current_replicas, half.updated_replicas), (Some(2), Some(1)));
    assert_eq!(half.current_revision.as_deref(), Some("old"));
    let done = status(&[(0, "new", "ready"), (1, "new", "ready"), (2, "new", "ready")]);
    assert_eq!(done.current_revision.as_deref(), Some("new"));
}

#[test]
fn names_and_claims() {
    let set = set(|spec| {
        spec["serviceName"] = json!("db");
        spec["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete"});
    });
    let ordinal = |name: &str| identity::ordinal(&set, name);
    assert_eq!(ordinal("db-12"), Some(12));
    for foreign in ["db", "db-", "db-01", "db-x", "dbx-1", "db-1-2", "web-1"] {
        assert_eq!(ordinal(foreign), None, "{foreign}");
    }
    let template = set.spec.template.clone();
    let pod = identity::new_pod(&set, &template, "new", 1);
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
    let volume = spec.volumes.unwrap().remove(0);
    assert_eq!(volume.persistent_volume_claim.unwrap().claim_name, "data-db-1");
    let claim = identity::claims(&set, 1).remove(0);
    assert_eq!(claim.metadata.name.as_deref(), Some("data-db-1"));
    assert_eq!(claim.metadata.labels.unwrap()["app"], "db");
    assert_eq!(claim.metadata.owner_references.unwrap()[0].uid, "u");
}

/// A set of one pod, `db-0`, with these policies for claims.
fn keeping(deleted: &str, scaled: &str) -> StatefulSet {
    set(|spec| {
        spec["replicas"] = json!(1);
        spec["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        spec["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": deleted, "whenScaled": scaled});
    })
}

#[test]
fn claims_refer_to_what_they_go_with() {
    // The uids of the owners of the claim of an ordinal, before and after; `pod`: it exists.
    let owners = |set: &StatefulSet, ordinal: i32, pod: bool, before: &[&str]| {
        let reference =
            |uid: &&str| json!({"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid});
        let references: Vec<_> = before.iter().map(reference).collect();
        let claim = json!({"metadata": {"name": format!("data-db-{ordinal}"),
            "ownerReferences": references}});
        let claim = serde_json::from_value(claim).unwrap();
        let meta = json!({"metadata": {"name": format!("db-{ordinal}"), "uid": "p"}});
        let object: Pod = serde_json::from_value(meta).unwrap();
        assert_eq!(identity::ordinal_of_claim(set, &claim), Some(ordinal));
        let changed = identity::claim_owners(set, ordinal, pod.then_some(&object), &claim);
        let uids = |all: Vec<OwnerReference>| {
            all.into_iter().map(|owner| owner.uid).collect::<Vec<_>>().join(" ")
        };
        changed.map_or_else(|| "as before".to_owned(), uids)
    };
    let (kept, scaled) = (keeping("Retain", "Retain"), keeping("Retain", "Delete"));
    let (deleted, both) = (keeping("Delete", "Retain"), keeping("Delete", "Delete"));
    for set in [&kept, &scaled, &deleted, &both] {
        assert_eq!(owners(set, 1, false, &["x"]), "as before", "its pod is not there");
        assert_eq!(owners(set, 1, false, &["old"]), "as before", "its pod is gone, and it goes");
    }
    assert_eq!(owners(&kept, 0, true, &["x", "u", "p"]), "x");
    assert_eq!(owners(&scaled, 1, true, &["x"]), "x p");
    assert_eq!(owners(&scaled, 0, true, &["p"]), "", "wanted again");
    assert_eq!(owners(&deleted, 0, true, &[]), "u");
    assert_eq!(owners(&deleted, 1, true, &[]), "u");
    assert_eq!(owners(&deleted, 1, false, &["u"]), "as before", "it has been the set's");
    assert_eq!(owners(&both, 1, true, &["u"]), "p", "a living set would keep it");
    assert_eq!(owners(&both, 0, true, &["p"]), "u");
}
