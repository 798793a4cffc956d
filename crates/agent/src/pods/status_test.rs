#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::pods::fake::{pod, record};

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

#[test]
fn a_probe_can_make_a_running_container_unready() {
    let object = pod("p", "Always", &["a"]);
    let mut memory = Memory::default();
    memory.unready.insert("a".into());
    let running = [record("p", Role::Sandbox, "", 0), record("p", Role::App, "a", 0)];
    let status = status(&object, &running, &memory, now());
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let ready = condition(&status, "Ready");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("False", Some("ContainersNotReady"))
    );
}
