#![allow(clippy::unwrap_used, clippy::expect_used)]

use quorate_objects::storage::{PROVISIONER, SELECTED_NODE};
use quorate_proto::v1;
use serde_json::{Value, json};

use super::*;
use crate::assignments::{Assignments, Shared};

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]},
    }))
    .unwrap()
}

fn shared(objects: &[Value]) -> Shared {
    let mut all = Assignments::default();
    let set = objects.iter().map(|object| v1::Object {
        json: object.to_string().into_bytes().into(),
        ..Default::default()
    });
    let message = v1::Assignments { term: 1, set: set.collect(), ..Default::default() };
    all.apply(message).unwrap();
    Arc::new(parking_lot::RwLock::new(all))
}

fn claim(volume: Option<&str>) -> Value {
    json!({"kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "default", "uid": "cu",
            "annotations": {(SELECTED_NODE): "n1"}},
        "spec": {"volumeName": volume}})
}

fn volume(source: &Value) -> Value {
    let mut value = json!({"kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"claimRef": {"namespace": "default", "name": "c", "uid": "cu"}}});
    value["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    value
}

fn look(objects: &[Value]) -> Result<Source, (&'static str, String)> {
    let lookup = SharedLookup(shared(objects));
    source(&pod(), "c", &lookup, "n1").map_err(|error| match error {
        StepError::Failed { reason, message } => (reason, message),
        StepError::Runtime(error) => panic!("{error}"),
    })
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let cases: [(Vec<Value>, &str); 4] = [
        (vec![], "\"c\" not found"),
        (vec![claim(None)], "is not bound yet"),
        (vec![claim(Some("v"))], "\"v\" not found"),
        (
            vec![claim(Some("v")), {
                let mut free = volume(&json!({}));
                free["spec"].as_object_mut().unwrap().remove("claimRef");
                free
            }],
            "is not bound to claim",
        ),
    ];
    for (objects, says) in cases {
        let (reason, message) = look(&objects).unwrap_err();
        assert_eq!(reason, WAITING);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_claim_leads_to_its_data() {
    let docker = |node: &str| {
        volume(&json!({"csi": {"driver": PROVISIONER, "volumeHandle": "pvc-cu",
            "volumeAttributes": {"node": node}}}))
    };
    let spec = VolumeSpec { name: "pvc-cu".into(), claim: "default/c".into() };
    assert_eq!(look(&[claim(Some("v")), docker("n1")]).unwrap(), Source::Engine(spec));
    let (reason, message) = look(&[claim(Some("v")), docker("n2")]).unwrap_err();
    assert!(reason == CONFIG_ERROR && message.contains("on node n2"), "{message}");
    let host = volume(&json!({"hostPath": {"path": "/x", "type": "DirectoryOrCreate"}}));
    let directory = Source::Directory { path: "/x".into(), kind: "DirectoryOrCreate".into() };
    assert_eq!(look(&[claim(Some("v")), host]).unwrap(), directory);
    let other = volume(&json!({"nfs": {"path": "/x", "server": "s"}}));
    let (_, message) = look(&[claim(Some("v")), other]).unwrap_err();
    assert!(message.contains("use hostPath"), "{message}");
}
