#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;
use crate::pods::fake::{pod, record};
use crate::pods::prober::Probed;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn status(pod: &Pod, records: &[Record], memory: &Memory, now: Timestamp) -> PodStatus {
    compute(&Input {
        pod,
        records,
        memory,
        previous: &PodStatus::default(),
        host_ip: "127.0.1.1".parse().unwrap(),
        now,
    })
}

fn reason(state: Option<&ContainerState>) -> String {
    let state = state.unwrap();
    let waiting = state.waiting.as_ref().and_then(|w| w.reason.clone());
    waiting.or(state.terminated.as_ref().and_then(|t| t.reason.clone())).unwrap_or_default()
}

fn condition(status: &PodStatus, kind: &str) -> PodCondition {
    status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().clone()
}

#[test]
fn exits_have_kubernetes_reasons() {
    let object = pod("p", "Never", &["a"]);
    for (code, oom, word, phase) in [
        (0, false, "Completed", "Succeeded"),
        (3, false, "Error", "Failed"),
        (137, true, "OOMKilled", "Failed"),
    ] {
        let mut ended = record("p", Role::App, "a", 0);
        ended.state = RunState::Exited;
        (ended.exit_code, ended.oom_killed, ended.finished_at) = (code, oom, Some(now()));
        let status = status(&object, &[ended], &Memory::default(), now());
        assert_eq!(status.phase.as_deref(), Some(phase));
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!(reason(container.state.as_ref()), word);
        assert!(!container.ready);
    }
}

#[test]
fn a_container_that_cannot_start_says_why() {
    let object = pod("p", "Always", &["a"]);
    let mut failed = record("p", Role::App, "a", 0);
    (failed.state, failed.started_at) = (RunState::Created, None);
    failed.error = "exec: no such file".into();
    let first = status(&object, &[failed.clone()], &Memory::default(), now());
    let container = &first.container_statuses.unwrap()[0];
    assert_eq!(reason(container.state.as_ref()), "RunContainerError");
    failed.failures = 2;
    let later = status(&object, &[failed], &Memory::default(), now());
    let container = &later.container_statuses.unwrap()[0];
    assert_eq!(reason(container.state.as_ref()), "CrashLoopBackOff");
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.exit_code, 128);
}

#[test]
fn a_failed_pull_becomes_a_back_off() {
    let object = pod("p", "Always", &["a"]);
    let mut memory = Memory::default();
    let failure = Failure { reason: "ErrImagePull", message: "no".into(), at: now(), before: 0 };
    memory.containers.insert("a".into(), failure);
    for (after, word) in [(0, "ErrImagePull"), (1, "ImagePullBackOff")] {
        let status = status(&object, &[], &memory, now() + SignedDuration::from_secs(after));
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        assert_eq!(reason(status.container_statuses.unwrap()[0].state.as_ref()), word);
    }
}

#[test]
fn conditions_keep_their_time_until_they_change() {
    let object = pod("p", "Always", &["a"]);
    let running = [record("p", Role::Sandbox, "", 0), record("p", Role::App, "a", 0)];
    let first = status(&object, &running, &Memory::default(), now());
    assert_eq!(condition(&first, "Ready").status, "True");
    let later = now() + SignedDuration::from_secs(60);
    let again = compute(&Input {
        pod: &object,
        records: &running,
        memory: &Memory::default(),
        previous: &first,
        host_ip: "127.0.1.1".parse().unwrap(),
        now: later,
    });
    assert_eq!(again, first, "nothing changed, so nothing is told");
    let json = serde_json::to_value(&first).unwrap();
    assert_eq!(serde_json::from_value::<PodStatus>(json).unwrap(), first, "as it comes back");
}

fn probed(started: bool, ready: bool) -> Memory {
    let mut memory = Memory::default();
    let id = record("p", Role::App, "a", 0).id;
    memory.probes.insert(id, Probed { started, ready, failed: None });
    memory
}

fn with(object: &Pod, path: &str, value: serde_json::Value) -> Pod {
    let mut json = serde_json::to_value(object).unwrap();
    *json.pointer_mut(path).unwrap() = value;
    serde_json::from_value(json).unwrap()
}

#[test]
fn probes_decide_what_is_started_and_ready() {
    let container = json!({"name": "a", "image": "img:1",
        "startupProbe": {"exec": {"command": ["x"]}},
        "readinessProbe": {"exec": {"command": ["x"]}}});
    let object = with(&pod("p", "Always", &["a"]), "/spec/containers/0", container);
    let running = [record("p", Role::Sandbox, "", 0), record("p", Role::App, "a", 0)];
    for (started, ready, says) in
        [(false, false, (false, false)), (true, false, (true, false)), (true, true, (true, true))]
    {
        let status = status(&object, &running, &probed(started, ready), now());
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!((container.started, container.ready), (Some(says.0), says.1));
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let condition = condition(&status, "Ready");
        assert_eq!(condition.status, if says.1 { "True" } else { "False" });
        let reason = (!says.1).then_some("ContainersNotReady");
        assert_eq!(condition.reason.as_deref(), reason);
    }
    let unknown = status(&object, &running, &Memory::default(), now());
    assert!(!unknown.container_statuses.unwrap()[0].ready, "not probed yet");
}

#[test]
fn a_readiness_gate_keeps_a_pod_from_being_ready() {
    let mut object = pod("p", "Always", &["a"]);
    object.spec.as_mut().unwrap().readiness_gates =
        serde_json::from_value(json!([{"conditionType": "example.org/open"}])).unwrap();
    let running = [record("p", Role::Sandbox, "", 0), record("p", Role::App, "a", 0)];
    let closed = status(&object, &running, &Memory::default(), now());
    let ready = condition(&closed, "Ready");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("False", Some("ReadinessGatesNotReady"))
    );
    assert_eq!(condition(&closed, "ContainersReady").status, "True");
    object.status = serde_json::from_value(json!({"conditions": [
        {"type": "example.org/open", "status": "True"}]}))
    .unwrap();
    let open = status(&object, &running, &Memory::default(), now());
    assert_eq!(condition(&open, "Ready").status, "True");
    // An agent that was started anew begins with what it is told, and does not repeat it.
    let assigned = object.status.clone().unwrap();
    let told = |object: &Pod| {
        compute(&Input {
            pod: object,
            records: &running,
            memory: &Memory::default(),
            previous: &assigned,
            host_ip: "127.0.1.1".parse().unwrap(),
            now: now(),
        })
    };
    let conditions = told(&object).conditions.unwrap();
    assert!(conditions.iter().all(|one| one.type_ != "example.org/open"), "{conditions:?}");
    object.status = None;
    assert_eq!(condition(&told(&object), "Ready").status, "False", "it was closed since");
}

#[test]
fn a_pod_that_runs_for_too_long_has_failed() {
    let mut object = pod("p", "Always", &["a"]);
    object.spec.as_mut().unwrap().active_deadline_seconds = Some(5);
    let running = [record("p", Role::Sandbox, "", 0), record("p", Role::App, "a", 0)];
    let memory = Memory { started_at: Some(now()), ..Memory::default() };
    let early = status(&object, &running, &memory, now() + SignedDuration::from_secs(4));
    assert_eq!((early.phase.as_deref(), early.reason), (Some("Running"), None));
    let late = status(&object, &running, &memory, now() + SignedDuration::from_secs(5));
    assert_eq!(late.phase.as_deref(), Some("Failed"));
    assert_eq!(late.reason.as_deref(), Some("DeadlineExceeded"));
}
