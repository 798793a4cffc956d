#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn claim(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
    let mut value = json!({
        "metadata": {"namespace": "d", "name": "data", "uid": "u1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}}},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn class(provisioner: &str) -> StorageClass {
    serde_json::from_value(json!({
        "metadata": {"name": "local"}, "provisioner": provisioner, "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }))
    .unwrap()
}

#[test]
fn a_provisioned_volume_suits_its_claim_and_stays_on_its_node() {
    let claim = claim(|_| {});
    let volume = provision(&claim, &class(PROVISIONER), "n1");
    assert_eq!(volume.metadata.name.as_deref(), Some("pvc-u1"));
    assert!(suits(&volume, &claim) && is_free_for(&volume, &claim) && is_bound_to(&volume, &claim));
    assert_eq!(docker_volume(&volume), Some(DockerVolume { name: "pvc-u1", node: "n1" }));
    let labels = |name: &str| BTreeMap::from([(HOSTNAME.to_owned(), name.to_owned())]);
    assert!(reaches(&volume, "n1", &labels("n1")) && !reaches(&volume, "n2", &labels("n2")));
}

#[test]
fn what_cannot_be_provided_says_what_to_do() {
    let ours = class(PROVISIONER);
    assert_eq!(impossible(&claim(|_| {}), &ours), None);
    let cases: [(&str, Value, &str); 4] = [
        ("/spec/accessModes", json!(["ReadWriteMany"]), "use ReadWriteOnce"),
        ("/spec/volumeMode", json!("Block"), "use Filesystem"),
        ("/spec/selector", json!({"matchLabels": {"a": "b"}}), "selector; remove it"),
        ("/spec/dataSource", json!({"kind": "V", "name": "x"}), "dataSource; remove it"),
    ];
    for (pointer, value, says) in cases {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let claim = claim(|object| object.pointer_mut(parent).unwrap()[field] = value);
        let why = impossible(&claim, &ours).unwrap();
        assert!(why.contains(says), "{why}");
        assert_eq!(impossible(&claim, &class("example.com/disk")), None, "not ours to say");
    }
}

#[test]
fn a_claim_gets_only_what_it_asks_for() {
    let volume = |change: &dyn Fn(&mut PersistentVolumeSpec)| {
        let mut volume = provision(&claim(|_| {}), &class(PROVISIONER), "n1");
        let spec = volume.spec.as_mut().unwrap();
        spec.claim_ref = None;
        change(spec);
        volume
    };
    let wants = claim(|_| {});
    assert!(suits(&volume(&|_| {}), &wants));
    let small = |spec: &mut PersistentVolumeSpec| {
        spec.capacity = Some(BTreeMap::from([("storage".into(), ApiQuantity("1Mi".into()))]));
    };
    assert!(!suits(&volume(&small), &wants));
    assert!(!suits(&volume(&|spec| spec.storage_class_name = None), &wants));
    assert!(!suits(&volume(&|spec| spec.access_modes = Some(vec![])), &wants));
    assert!(!suits(&volume(&|spec| spec.volume_mode = Some("Block".into())), &wants));
    let selecting = claim(|c| c["spec"]["selector"] = json!({"matchLabels": {"disk": "fast"}}));
    assert!(!suits(&volume(&|_| {}), &selecting));
    let mut fast = volume(&|_| {});
    fast.metadata.labels = Some(BTreeMap::from([("disk".into(), "fast".into())]));
    assert!(suits(&fast, &selecting));
    let other = claim(|c| c["metadata"]["uid"] = json!("u2"));
    let taken = provision(&claim(|_| {}), &class(PROVISIONER), "n1");
    assert!(!is_free_for(&taken, &other), "bound to a claim of the same name, but not this one");
}

#[test]
fn data_goes_only_with_a_volume_that_is_deleted_unbound_and_says_so() {
    let mut volume = provision(&claim(|_| {}), &class(PROVISIONER), "n1");
    assert_eq!(data_to_remove(&volume), None, "it is not being deleted");
    volume.metadata.deletion_timestamp = Some(crate::time::now());
    assert_eq!(data_to_remove(&volume), None, "a claim has it");
    volume.metadata.finalizers = Some(vec![DATA_FINALIZER.into()]);
    assert!(data_to_remove(&volume).is_some());
    volume.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some("Retain".into());
    assert_eq!(data_to_remove(&volume), None, "it is to be kept");
}

#[test]
fn the_newest_default_class_counts() {
    let named = |name: &str, created: &str, default: &str| -> StorageClass {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": created,
                "annotations": {(DEFAULT_CLASS): default}},
            "provisioner": "p",
        }))
        .unwrap()
    };
    let classes = [
        named("old", "2026-01-01T00:00:00Z", "true"),
        named("new", "2026-02-01T00:00:00Z", "true"),
        named("newest", "2026-03-01T00:00:00Z", "false"),
    ];
    assert_eq!(default_class(classes.iter()), Some("new"));
    assert_eq!(default_class(classes[2..].iter()), None);
}
