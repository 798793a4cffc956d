use serde_json::json;

use super::*;

fn master(name: &str, answer: Result<StatusResponse, String>) -> Asked {
    let url = format!("http://{name}");
    let entry = MasterEntry { name: name.into(), url, ..MasterEntry::default() };
    Asked { entry, pid: None, answer }
}

fn answer(name: &str, role: &str, term: u64) -> StatusResponse {
    StatusResponse {
        cluster_id: "id".into(),
        name: name.into(),
        role: role.into(),
        term,
        leader_work_running: role == "leader",
        last_index: 10,
        ..StatusResponse::default()
    }
}

fn alive(name: &str, role: &str) -> Asked {
    master(name, Ok(answer(name, role, 5)))
}

fn dead(name: &str) -> Asked {
    master(name, Err("connection refused".into()))
}

fn report(masters: Vec<Asked>) -> Report {
    build(Path::new("/c"), masters, &[], &[], &[])
}

#[test]
fn all_well() {
    let r = report(vec![alive("m1", "follower"), alive("m2", "leader"), alive("m3", "follower")]);
    assert!(r.quorum && r.problems.is_empty(), "{:?}", r.problems);
    assert_eq!((r.health, r.leader.as_str(), r.tolerance), ("healthy", "m2", 1));
}

#[test]
fn one_dead_is_degraded() {
    let r = report(vec![dead("m1"), alive("m2", "leader"), alive("m3", "follower")]);
    assert_eq!((r.health, r.quorum, r.tolerance), ("degraded", true, 0));
    assert!(r.problems[0].contains("m1 does not answer (connection refused)"));
    assert!(r.problems[0].contains("quorate up --dir /c"));
}

#[test]
fn two_dead_is_no_majority() {
    let r = report(vec![dead("m1"), dead("m2"), alive("m3", "follower")]);
    assert_eq!((r.health, r.quorum, r.tolerance), ("unavailable", false, 0));
    assert!(r.problems.iter().any(|p| p.contains("no majority: 1 of 3") && p.contains("--stale")));
}

#[test]
fn all_dead() {
    let r = report(vec![dead("m1"), dead("m2"), dead("m3")]);
    assert_eq!(r.health, "unavailable");
    assert!(r.problems.iter().any(|p| p.contains("no master answers")));
}

#[test]
fn a_majority_without_leader_has_no_quorum() {
    let r = report(vec![alive("m1", "candidate"), alive("m2", "follower"), dead("m3")]);
    assert!(!r.quorum);
    assert!(r.problems.iter().any(|p| p.contains("no leader")));
}

#[test]
fn of_two_leaders_the_newest_term_counts() {
    let old = master("m1", Ok(answer("m1", "leader", 4)));
    let r = report(vec![old, alive("m2", "leader"), alive("m3", "follower")]);
    assert_eq!((r.leader.as_str(), r.term), ("m2", 5));
}

#[test]
fn nodes_and_their_pods() {
    let object = |name: &str, value| Object {
        api_version: "v1".into(),
        kind: "X".into(),
        namespace: String::new(),
        name: name.into(),
        uid: String::new(),
        revision: 1,
        value,
    };
    let node = |name: &str, ready: &str| {
        let conditions = json!([{"type": "Ready", "status": ready, "message": "lost"}]);
        object(name, json!({"status": {"conditions": conditions}}))
    };
    let pod = |phase: &str, ready: &str| {
        let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
        object("p", json!({"spec": {"nodeName": "n1"}, "status": status}))
    };
    let agents = [(NodeEntry { name: "n3".into(), ..NodeEntry::default() }, None)];
    let pods = [pod("Running", "True"), pod("Pending", "False"), pod("Succeeded", "False")];
    let nodes = [node("n2", "Unknown"), node("n1", "True")];
    let masters = vec![alive("m1", "leader")];
    let r = build(Path::new("/c"), masters, &agents, &nodes, &pods);
    let names: Vec<_> = r.nodes.iter().map(|n| (n.name.as_str(), n.status.as_str())).collect();
    assert_eq!(names, [("n1", "Ready"), ("n2", "NotReady"), ("n3", "Unknown")]);
    assert_eq!((r.nodes[0].pods, r.nodes[0].pods_ready), (2, 1));
    assert_eq!((r.nodes_ready, r.nodes_total, r.health), (1, 3, "degraded"));
    assert!(r.problems[0].contains("node n2 is NotReady (lost)"), "{:?}", r.problems);
}
