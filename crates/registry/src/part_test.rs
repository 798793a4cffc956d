#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use quorate_objects::pod;

use super::*;
use crate::registry_test::fixture;
use crate::{DeleteOptions, Write, WriteOptions};

fn object(value: Value) -> Object {
    Object::from_value(&kinds::POD, value, 7).unwrap()
}

fn part(status: &Value, node: Option<&str>) -> Part {
    Part { status: status.to_string().into(), node: node.map(str::to_owned) }
}

/// What the text is after the change, as an object.
fn changed(value: &Value, status: &Value, node: Option<&str>) -> Value {
    let text = object(value.clone()).with_part(&part(status, node)).unwrap().unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_part_takes_the_place_of_what_was_there() {
    let meta = json!({"name": "p", "annotations": {"a": "\"status\":{}", "b": "\"spec\":{"}});
    let kind = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta});
    for spec in [json!({}), json!({"containers": [{"name": "status"}], "priority": 0})] {
        for status in [Value::Null, json!({}), json!({"phase": "Pending", "conditions": []})] {
            let mut value = kind.clone();
            value["spec"] = spec.clone();
            if !status.is_null() {
                value["status"] = status;
            }
            let next = json!({"phase": "Running", "message": "}\",\\"});
            let mut wanted = value.clone();
            wanted["status"] = next.clone();
            assert_eq!(changed(&value, &next, None), wanted);
            wanted["spec"]["nodeName"] = json!("n\"1");
            assert_eq!(changed(&value, &next, Some("n\"1")), wanted);
            let again = object(wanted);
            assert!(again.with_part(&part(&next, None)).unwrap().is_none(), "nothing changes");
            assert!(again.with_part(&part(&next, Some("n2"))).is_none(), "it has a node");
        }
    }
}

#[test]
fn what_is_not_as_usual_goes_the_long_way() {
    let status = json!({"phase": "Running"});
    let going = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {}, "status": {}});
    assert!(object(going).with_part(&part(&status, None)).is_none());
    assert!(object(json!({"metadata": {"name": "p"}})).with_part(&part(&status, None)).is_none());
    let known = |text: &[u8]| {
        let object = Object::decode(&kinds::POD, text, 7).unwrap();
        object.with_part(&part(&status, None)).is_some()
    };
    assert!(known(br#"{"metadata":{"name":"p"},"spec":{},"status":{}}"#));
    for text in [
        &br#"{"metadata":{"name":"p"},"spec":{},"status" : {}}"#[..],
        br#"{"metadata":{"name":"p"},"spec":{},"st\u0061tus":{}}"#,
        br#"{"spec":{},"status":{},"metadata":{"name":"p"}}"#,
        br#"{"metadata":{"name":"p"},"status":{},"spec":{}}"#,
    ] {
        assert!(!known(text), "{}", String::from_utf8_lossy(text));
    }
}

/// The conditions of a pod.
fn shown(object: &Object) -> String {
    let pod = object.typed::<Pod>().unwrap();
    let conditions = pod.status.as_ref().unwrap().conditions.clone().unwrap();
    let shown: Vec<_> =
        conditions.iter().map(|one| format!("{}={}", one.type_, one.status)).collect();
    shown.join(" ")
}

/// What readiness gates and disruptions have said of a pod is not the agent's to take back.
#[tokio::test]
async fn an_agents_status_leaves_the_conditions_of_others() {
    let f = fixture().await;
    let options = WriteOptions::default();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i:1"}]}});
    let made = f.registry.create(pod, &options).await.unwrap();
    f.registry
        .modify_status::<Pod>(&kinds::POD, "default", "p", &options, |pod| {
            pod::set_condition(pod, "PodScheduled", "True", None, None);
            pod::set_condition(pod, "example.com/gate", "True", None, None)
        })
        .await
        .unwrap();
    let report = async |conditions: Value| {
        let status = json!({"phase": "Running", "conditions": conditions});
        let write = Write::PodStatus {
            namespace: "default".into(),
            name: "p".into(),
            uid: made.uid().into(),
            status: status.to_string().into(),
        };
        f.registry.write_batch(vec![write], None).await.remove(0).unwrap()
    };
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let first = report(ready("True")).await;
    assert_eq!(shown(&first), "Ready=True example.com/gate=True");
    assert_eq!(report(ready("True")).await.revision, first.revision, "nothing is written");
    let second = report(ready("False")).await;
    assert_eq!(shown(&second), "Ready=False example.com/gate=True");
    // An agent that has seen the pod before the gate was opened repeats what it has seen.
    let seen = json!([{"type": "Ready", "status": "False"},
        {"type": "example.com/gate", "status": "False"},
        {"type": "example.com/other", "status": "True"}]);
    assert_eq!(report(seen).await.revision, second.revision, "nothing is written");
    // Of a pod that is being deleted the whole is written.
    let deletion = DeleteOptions::default();
    let marked = f.registry.delete(&kinds::POD, "default", "p", &deletion).await.unwrap();
    assert!(!marked.gone);
    let last = report(ready("False")).await;
    assert!(last.is_deleting());
    assert_eq!(shown(&last), "Ready=False example.com/gate=True");
}

proptest! {
    /// As if the object had been decoded, changed, and encoded.
    #[test]
    fn the_text_is_that_of_the_changed_object(
        name in "[a-z]{1,5}", key in ".{0,8}", message in ".{0,20}", phase in "(Pending|Running)",
        bound in any::<bool>(),
    ) {
        let value = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "annotations": {key: message}},
            "spec": {"containers": [], "hostname": message}, "status": {"message": message}});
        let status = PodStatus { phase: Some(phase), message: Some(message), ..Default::default() };
        let part = Part::new(&status, bound.then(|| "n1".to_owned())).unwrap();
        let old = object(value);
        let text = old.with_part(&part).unwrap().unwrap();
        let mut wanted = Pod::clone(&old.typed::<Pod>().unwrap());
        wanted.status = Some(status);
        wanted.metadata.resource_version = None;
        if bound {
            wanted.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
        }
        let found: Pod = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(found, wanted);
        let next = Object::decode(&kinds::POD, &text, 8).unwrap();
        let part = Part { node: None, ..part };
        prop_assert!(next.with_part(&part).unwrap().is_none());
    }
}
