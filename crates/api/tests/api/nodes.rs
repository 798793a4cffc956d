//! Sessions of a fake agent.

use quorate_client::v1::agent_message::Message as ToMaster;
use quorate_client::v1::master_message::Message as FromMaster;
use quorate_client::{Code, NodeSession, v1};
use quorate_objects::kinds;
use quorate_registry::{Consistency, WriteOptions};
use serde_json::json;

use crate::master::{CLUSTER, Master, config_map, pod, soon};

fn register(node: &str, incarnation: u64) -> v1::Register {
    let node_json = json!({
        "metadata": {"labels": {"zone": "a"}},
        "status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}},
    });
    v1::Register {
        node_name: node.into(),
        cluster_id: CLUSTER.into(),
        node_json: node_json.to_string().into(),
        incarnation,
    }
}

async fn session(master: &Master, incarnation: u64) -> NodeSession {
    master.client().node_session(&master.url(), register("n1", incarnation)).await.unwrap()
}

async fn assignments(session: &mut NodeSession) -> v1::Assignments {
    loop {
        if let FromMaster::Assignments(a) = soon("assignments", session.next()).await.unwrap() {
            return a;
        }
    }
}

/// Reads on until `wanted` is among what is set.
async fn set(session: &mut NodeSession, wanted: &str) -> v1::Object {
    loop {
        let assignments = assignments(session).await;
        if let Some(object) = assignments.set.into_iter().find(|object| object.name == wanted) {
            return object;
        }
    }
}

async fn removed(session: &mut NodeSession, wanted: &str) {
    loop {
        let assignments = assignments(session).await;
        if assignments.removed.iter().any(|key| key.name == wanted) {
            return;
        }
    }
}

#[tokio::test]
async fn a_node_registers_and_hears_its_full_set_then_changes() {
    let master = Master::start().await;
    let registry = &master.registry;
    let options = WriteOptions::default();
    registry.create(config_map("used", "1"), &options).await.unwrap();
    registry.create(config_map("unused", "1"), &options).await.unwrap();
    registry.create(pod("other", Some("n2")), &options).await.unwrap();
    let mut own = pod("own", Some("n1"));
    own["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "used"}}]);
    registry.create(own, &options).await.unwrap();

    let mut session = session(&master, 1).await;
    assert_eq!(session.welcome.cluster_id, CLUSTER);
    let full = assignments(&mut session).await;
    assert!(full.full && full.term == 1);
    let names: Vec<_> = full.set.iter().map(|object| object.name.as_str()).collect();
    assert!(["used", "own", "n1"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains(&"unused") && !names.contains(&"other"), "{names:?}");
    let node = registry.get(&kinds::NODE, "", "n1", Consistency::Linearizable).await.unwrap();
    assert_eq!(node.labels()["zone"], "a");
    assert_eq!(node.value()["status"]["capacity"]["cpu"], "2");

    registry.create(pod("later", Some("n1")), &options).await.unwrap();
    set(&mut session, "later").await;
    let mut changed = config_map("used", "2");
    changed["metadata"]["labels"] = json!({});
    registry.update(changed, &options).await.unwrap();
    set(&mut session, "used").await;
    let now = quorate_registry::DeleteOptions { grace_seconds: Some(0), ..Default::default() };
    registry.delete(&kinds::POD, "default", "own", &now).await.unwrap();
    removed(&mut session, "own").await;
    assert!(registry.heartbeats().last("n1").is_some());
}

#[tokio::test]
async fn statuses_are_written_and_acknowledged_and_terminated_pods_go() {
    let master = Master::start().await;
    let registry = &master.registry;
    registry.create(pod("p", Some("n1")), &WriteOptions::default()).await.unwrap();
    let mut session = session(&master, 1).await;
    let uid = set(&mut session, "p").await.uid;
    let report = |uid: &str, terminated| v1::PodStatus {
        namespace: "default".into(),
        name: "p".into(),
        uid: uid.into(),
        status_json: json!({"phase": "Running"}).to_string().into(),
        terminated,
    };
    let pods = vec![report(&uid, false), report("of-an-older-pod", false)];
    assert_eq!(acknowledged(&mut session, 1, pods).await, Vec::<String>::new());
    let pod = registry.get(&kinds::POD, "default", "p", Consistency::Linearizable).await.unwrap();
    assert_eq!(pod.value()["status"]["phase"], "Running");

    // Being deleted it stays until its node says that nothing is left of it.
    let deleted = registry.delete(&kinds::POD, "default", "p", &Default::default()).await.unwrap();
    assert!(!deleted.gone);
    assert_eq!(acknowledged(&mut session, 2, vec![report(&uid, true)]).await, Vec::<String>::new());
    let gone = registry.get(&kinds::POD, "default", "p", Consistency::Linearizable).await;
    assert!(gone.unwrap_err().is_not_found());

    // Without leadership nothing is written.
    master.store.step_down();
    let retry = acknowledged(&mut session, 3, vec![report(&uid, false)]).await;
    assert_eq!(retry, vec![uid]);
}

async fn acknowledged(
    session: &mut NodeSession,
    sequence: u64,
    pods: Vec<v1::PodStatus>,
) -> Vec<String> {
    let batch = v1::StatusBatch { sequence, pods, node_status_json: Default::default() };
    session.send(ToMaster::Status(batch)).await.unwrap();
    loop {
        if let FromMaster::StatusAck(ack) = soon("ack", session.next()).await.unwrap() {
            assert_eq!(ack.sequence, sequence);
            return ack.retry_uids;
        }
    }
}

#[tokio::test]
async fn a_new_term_brings_a_new_full_set() {
    let master = Master::start().await;
    let mut session = session(&master, 1).await;
    assert_eq!(assignments(&mut session).await.term, 1);
    master.store.step_down();
    master.store.set_term(7);
    loop {
        let next = assignments(&mut session).await;
        if next.term == 7 {
            assert!(next.full, "the first of a term is full");
            return;
        }
    }
}

#[tokio::test]
async fn the_newer_agent_wins_and_a_foreign_one_is_refused() {
    let master = Master::start().await;
    let mut old = session(&master, 1).await;
    let _new = session(&master, 2).await;
    let error = loop {
        if let Err(error) = soon("the end", old.next()).await {
            break error;
        }
    };
    assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, "Displaced"), "{error:?}");
    assert!(error.message.contains("newer agent"), "{error}");
    let client = master.client();
    let late = client.node_session(&master.url(), register("n1", 1)).await.err().unwrap();
    assert_eq!(late.reason, "Displaced", "{late:?}");

    let foreign = v1::Register { cluster_id: "another".into(), ..register("n9", 1) };
    let error = client.node_session(&master.url(), foreign).await.err().unwrap();
    assert_eq!(error.code, Code::FailedPrecondition, "{error:?}");
    assert!(error.message.contains("another") && error.message.contains(CLUSTER), "{error}");
}

#[tokio::test]
async fn logs_come_through_the_session_and_are_cancelled() {
    let master = Master::start().await;
    let registry = &master.registry;
    registry.create(pod("p", Some("n1")), &WriteOptions::default()).await.unwrap();
    registry.create(pod("waiting", None), &WriteOptions::default()).await.unwrap();
    registry.create(pod("far", Some("n2")), &WriteOptions::default()).await.unwrap();
    let mut session = session(&master, 1).await;
    let client = master.client();

    let mut log = client.logs("default", "p", v1::LogOptions::default()).await.unwrap();
    let request = log_request(&mut session).await;
    assert_eq!((request.pod.as_str(), request.options.unwrap().container.as_str()), ("p", "main"));
    let data = |id, text: &'static str, end| {
        ToMaster::LogData(v1::LogData { id, data: text.into(), end, error: String::new() })
    };
    session.send(data(request.id, "one\n", false)).await.unwrap();
    session.send(data(request.id, "two\n", true)).await.unwrap();
    assert_eq!(soon("one", log.next()).await.unwrap().unwrap(), "one\n");
    assert_eq!(soon("two", log.next()).await.unwrap().unwrap(), "two\n");
    assert_eq!(soon("end", log.next()).await.unwrap(), None);

    // The reader goes before the log ends.
    let follow = v1::LogOptions { follow: true, ..Default::default() };
    let log = client.logs("default", "p", follow).await.unwrap();
    let request = log_request(&mut session).await;
    drop(log);
    loop {
        if let FromMaster::LogCancel(cancel) = soon("cancel", session.next()).await.unwrap() {
            assert_eq!(cancel.id, request.id);
            break;
        }
    }
    let refused = |pod: &'static str, container: &str| {
        let client = client.clone();
        let options = v1::LogOptions { container: container.into(), ..Default::default() };
        async move { client.logs("default", pod, options).await.err().unwrap() }
    };
    assert!(refused("none", "").await.is_not_found());
    assert!(refused("p", "sidecar").await.message.contains("main"));
    assert!(refused("waiting", "").await.message.contains("not scheduled"));
    let far = refused("far", "").await;
    assert!(far.message.contains("n2") && far.reason == "NodeNotConnected", "{far:?}");
}

async fn log_request(session: &mut NodeSession) -> v1::LogRequest {
    loop {
        if let FromMaster::LogRequest(request) = soon("log", session.next()).await.unwrap() {
            return request;
        }
    }
}
