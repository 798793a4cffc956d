#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::{SignedDuration, ToSpan as _};
use serde_json::json;

use super::*;
use crate::pods::fake::{pod, record};
use crate::pods::prober::Probed;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn step(pod: &Pod, records: &[Record]) -> Step {
    plan(pod, records, &Memory::default(), now()).step
}

fn sandbox() -> Record {
    record("p", Role::Sandbox, "", 0)
}

fn ended(name: &str, attempt: u32, code: i32) -> Record {
    let mut made = record("p", Role::App, name, attempt);
    made.state = RunState::Exited;
    made.exit_code = code;
    made.started_at = Some(now() - 5.seconds());
    made.finished_at = Some(now());
    made
}

#[test]
fn a_new_pod_gets_its_sandbox_then_each_container() {
    let pod = pod("p", "Always", &["a", "b"]);
    assert_eq!(step(&pod, &[]), Step::StartSandbox { attempt: 0 });
    let Step::Start { name, attempt: 0, .. } = step(&pod, &[sandbox()]) else { panic!() };
    assert_eq!(name, "a");
    let records = [sandbox(), record("p", Role::App, "a", 0)];
    let Step::Start { name, sandbox: joined, .. } = step(&pod, &records) else { panic!() };
    assert_eq!((name.as_str(), joined), ("b", records[0].id.clone()));
}

#[test]
fn what_runs_is_left_alone() {
    let pod = pod("p", "Always", &["a"]);
    let records = [sandbox(), record("p", Role::App, "a", 3)];
    let plan = plan(&pod, &records, &Memory::default(), now());
    assert_eq!(plan, Plan { step: Step::Idle, wake: None });
}

#[test]
fn a_failed_container_waits_and_starts_again_with_its_count() {
    let pod = pod("p", "Always", &["a"]);
    let mut failed = ended("a", 2, 1);
    failed.failures = 2;
    let records = [sandbox(), failed];
    let waiting = plan(&pod, &records, &Memory::default(), now());
    assert_eq!(waiting, Plan { step: Step::Idle, wake: Some(now() + 4.seconds()) });
    let due = plan(&pod, &records, &Memory::default(), now() + 4.seconds());
    assert!(matches!(due.step, Step::Start { attempt: 3, failures: 3, .. }), "{due:?}");
}

#[test]
fn a_long_run_begins_the_count_anew() {
    let mut good = ended("a", 9, 1);
    good.failures = 9;
    good.started_at = Some(now() - 11.minutes());
    assert_eq!(restart_delay(&good), (SignedDuration::from_secs(1), 1));
}

#[test]
fn a_clock_that_was_turned_back_keeps_nothing_waiting() {
    let pod = pod("p", "Always", &["a"]);
    let records = [sandbox(), ended("a", 2, 1)];
    let before = plan(&pod, &records, &Memory::default(), now() - 1.hours());
    assert!(matches!(before.step, Step::Start { attempt: 3, .. }), "{before:?}");
    let failure = Failure { reason: "ErrImagePull", message: String::new(), at: now(), before: 0 };
    assert_eq!(failure.retry_at(now()), now() + 2.seconds());
    assert_eq!(failure.retry_at(now() - 1.hours()), now() - 1.hours());
}

#[test]
fn restart_policies() {
    for (policy, code, restart) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 1, false),
    ] {
        let pod = pod("p", policy, &["a"]);
        let record = ended("a", 0, code);
        assert_eq!(restarts(&pod, Role::App, &record), restart, "{policy} {code}");
        let outcome = outcome(&pod, &[sandbox(), record]);
        assert_eq!(outcome, (!restart).then_some(code == 0), "{policy} {code}");
    }
}

#[test]
fn a_pod_that_came_to_its_end_keeps_its_containers_and_stays() {
    let mut pod = pod("p", "Never", &["a"]);
    let records = [sandbox(), ended("a", 0, 0)];
    assert_eq!(step(&pod, &records), Step::Stop(vec![records[0].id.clone()]));
    assert_eq!(step(&pod, &records[1..]), Step::Idle);
    // Even when somebody removed them.
    pod.status = serde_json::from_value(serde_json::json!({"phase": "Succeeded"})).unwrap();
    assert_eq!(step(&pod, &[]), Step::Idle);
}

#[test]
fn a_dead_sandbox_takes_its_containers_along_and_all_begin_again() {
    let pod = pod("p", "Always", &["a"]);
    let mut dead = sandbox();
    dead.state = RunState::Exited;
    let running = record("p", Role::App, "a", 0);
    assert_eq!(step(&pod, &[dead.clone(), running.clone()]), Step::Stop(vec![running.id]));
    let stopped = ended("a", 0, 137);
    assert_eq!(step(&pod, &[dead.clone(), stopped.clone()]), Step::Remove(vec![dead.id]));
    assert_eq!(step(&pod, std::slice::from_ref(&stopped)), Step::StartSandbox { attempt: 1 });
    let mut fresh = sandbox();
    fresh.id = "new".into();
    // No back-off: the container did nothing wrong.
    let next = step(&pod, &[fresh, stopped]);
    assert!(matches!(next, Step::Start { attempt: 1, failures: 0, .. }), "{next:?}");
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let mut pod = pod("p", "Always", &["a"]);
    let inits = ["i", "j"].map(|name| Container {
        name: name.into(),
        image: Some("img:1".into()),
        ..Default::default()
    });
    pod.spec.as_mut().unwrap().init_containers = Some(inits.to_vec());
    let next = step(&pod, &[sandbox()]);
    assert!(matches!(&next, Step::Start { role: Role::Init, name, .. } if name == "i"));
    let mut first = record("p", Role::Init, "i", 0);
    assert_eq!(step(&pod, &[sandbox(), first.clone()]), Step::Idle);
    first.state = RunState::Exited;
    first.finished_at = Some(now());
    let next = step(&pod, &[sandbox(), first.clone()]);
    assert!(matches!(&next, Step::Start { role: Role::Init, name, .. } if name == "j"));
    let mut second = first.clone();
    second.container = "j".into();
    let next = step(&pod, &[sandbox(), first, second]);
    assert!(matches!(&next, Step::Start { role: Role::App, name, .. } if name == "a"));
}

#[test]
fn a_changed_image_replaces_the_container() {
    let mut pod = pod("p", "Always", &["a"]);
    pod.spec.as_mut().unwrap().containers[0].image = Some("img:2".into());
    let old = record("p", Role::App, "a", 0);
    assert_eq!(step(&pod, &[sandbox(), old.clone()]), Step::Stop(vec![old.id]));
    let next = step(&pod, &[sandbox(), ended("a", 0, 143)]);
    assert!(matches!(next, Step::Start { attempt: 1, .. }), "{next:?}");
}

#[test]
fn failures_wait_and_the_reason_changes_after_a_second() {
    let pod = pod("p", "Always", &["a"]);
    let mut memory = Memory::default();
    let failure = Failure { reason: "ErrImagePull", message: "no".into(), at: now(), before: 0 };
    memory.containers.insert("a".into(), failure);
    let first = plan(&pod, &[sandbox()], &memory, now());
    assert_eq!(first, Plan { step: Step::Idle, wake: Some(now() + 1.seconds()) });
    let second = plan(&pod, &[sandbox()], &memory, now() + 1.seconds());
    assert_eq!(second, Plan { step: Step::Idle, wake: Some(now() + 2.seconds()) });
    let third = plan(&pod, &[sandbox()], &memory, now() + 2.seconds());
    assert!(matches!(third.step, Step::Start { .. }));
}

#[test]
fn only_the_last_two_containers_of_a_name_are_kept() {
    let pod = pod("p", "Always", &["a"]);
    let records = [sandbox(), ended("a", 0, 1), ended("a", 1, 1), record("p", Role::App, "a", 2)];
    assert_eq!(step(&pod, &records), Step::Remove(vec![records[1].id.clone()]));
    assert_eq!(previous(&records, Role::App, "a").unwrap().attempt, 1);
}

#[test]
fn the_end_goes_from_the_containers_to_the_network() {
    let (network, running) = (sandbox(), record("p", Role::App, "a", 0));
    assert_eq!(plan_end(&[network.clone(), running.clone()]), Step::Stop(vec![running.id]));
    let done = ended("a", 0, 143);
    assert_eq!(plan_end(&[network.clone(), done.clone()]), Step::Remove(vec![done.id]));
    assert_eq!(plan_end(std::slice::from_ref(&network)), Step::Remove(vec![network.id.clone()]));
    assert_eq!(plan_end(&[]), Step::Gone);
}

fn with_inits(inits: serde_json::Value) -> Pod {
    let mut pod = pod("p", "Never", &["a"]);
    pod.spec.as_mut().unwrap().init_containers = serde_json::from_value(inits).unwrap();
    pod
}

/// The sandbox that follows after the first one.
fn next_sandbox() -> Record {
    let mut made = record("p", Role::Sandbox, "", 1);
    made.id = "next".into();
    made
}

#[test]
fn work_that_is_done_is_not_done_again_in_a_new_sandbox() {
    for (policy, code) in [("OnFailure", 0), ("Never", 0), ("Never", 1)] {
        let pod = pod("p", policy, &["a", "b"]);
        let next = step(&pod, &[next_sandbox(), ended("a", 0, code)]);
        assert!(matches!(&next, Step::Start { name, .. } if name == "b"), "{policy}: {next:?}");
        let mut other = record("p", Role::App, "b", 0);
        other.sandbox = next_sandbox().id;
        assert_eq!(step(&pod, &[next_sandbox(), ended("a", 0, code), other]), Step::Idle);
        // When all is done, there is not even a new sandbox.
        let done = [ended("a", 0, code), ended("b", 0, 0)];
        assert_eq!(step(&pod, &done), Step::Idle, "{policy}");
    }
    let pod = pod("p", "OnFailure", &["a", "b"]);
    let next = step(&pod, &[next_sandbox(), ended("a", 0, 0), ended("b", 0, 137)]);
    assert!(matches!(&next, Step::Start { name, attempt: 1, .. } if name == "b"), "{next:?}");
}

#[test]
fn a_new_sandbox_is_prepared_again_before_the_work() {
    let mut pod = with_inits(json!([{"name": "i", "image": "img:1"},
        {"name": "s", "image": "img:1", "restartPolicy": "Always"}]));
    pod.spec.as_mut().unwrap().restart_policy = Some("Always".into());
    let over = |role, name: &str| Record { role, container: name.into(), ..ended("", 0, 0) };
    let lost = [over(Role::Init, "i"), over(Role::Init, "s"), ended("a", 0, 137)];
    let with = |more: &[Record]| [&[next_sandbox()][..], &lost, more].concat();
    let starts = |records: &[Record], expected: &str| {
        let next = step(&pod, records);
        assert!(
            matches!(&next, Step::Start { name, attempt: 1, .. } if name == expected),
            "{expected}: {next:?}"
        );
    };
    starts(&with(&[]), "i");
    let fresh = |role, name: &str, state| Record {
        state,
        sandbox: next_sandbox().id,
        ..record("p", role, name, 1)
    };
    assert_eq!(step(&pod, &with(&[fresh(Role::Init, "i", RunState::Running)])), Step::Idle);
    let prepared = fresh(Role::Init, "i", RunState::Exited);
    starts(&with(std::slice::from_ref(&prepared)), "s");
    let beside = fresh(Role::Init, "s", RunState::Running);
    starts(&with(&[prepared, beside]), "a");
}

#[test]
fn a_sidecar_runs_beside_the_work_and_ends_after_it() {
    let pod = with_inits(json!([{"name": "s", "image": "img:1", "restartPolicy": "Always"}]));
    assert!(matches!(step(&pod, &[sandbox()]), Step::Start { role: Role::Init, .. }));
    let side = record("p", Role::Init, "s", 0);
    let next = step(&pod, &[sandbox(), side.clone()]);
    assert!(matches!(next, Step::Start { role: Role::App, .. }), "{next:?}");
    // It crashes: the work goes on, and it comes back, whatever the pod's policy.
    let mut crashed = side.clone();
    (crashed.state, crashed.exit_code, crashed.finished_at) = (RunState::Exited, 1, Some(now()));
    let working = record("p", Role::App, "a", 0);
    let records = [sandbox(), crashed, working];
    assert_eq!(outcome(&pod, &records), None);
    let later = plan(&pod, &records, &Memory::default(), now() + 1.seconds());
    assert!(matches!(later.step, Step::Start { role: Role::Init, attempt: 1, .. }), "{later:?}");
    // The work is done: the sidecar is stopped, then the network.
    let done = ended("a", 0, 0);
    assert_eq!(outcome(&pod, &[sandbox(), side.clone(), done.clone()]), Some(true));
    let records = [sandbox(), side.clone(), done.clone()];
    assert_eq!(step(&pod, &records), Step::Stop(vec![side.id.clone()]));
    let mut over = side;
    over.state = RunState::Exited;
    assert_eq!(step(&pod, &[sandbox(), over, done]), Step::Stop(vec![sandbox().id]));
}

#[test]
fn a_sidecar_with_a_startup_probe_holds_the_work_until_that_succeeds() {
    let pod = with_inits(json!([{"name": "s", "image": "img:1", "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["x"]}}}]));
    let side = record("p", Role::Init, "s", 0);
    let records = [sandbox(), side.clone()];
    assert_eq!(step(&pod, &records), Step::Idle);
    let mut memory = Memory::default();
    memory.probes.insert(side.id, Probed { started: true, ..Probed::default() });
    let next = plan(&pod, &records, &memory, now()).step;
    assert!(matches!(next, Step::Start { role: Role::App, .. }), "{next:?}");
}

#[test]
fn an_ephemeral_container_starts_once() {
    let mut pod = pod("p", "Always", &["a"]);
    pod.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "debug", "image": "img:1"}])).unwrap();
    let working = record("p", Role::App, "a", 0);
    let next = step(&pod, &[sandbox(), working.clone()]);
    assert!(matches!(&next, Step::Start { role: Role::Ephemeral, name, .. } if name == "debug"));
    let mut debug = record("p", Role::Ephemeral, "debug", 0);
    assert_eq!(step(&pod, &[sandbox(), working.clone(), debug.clone()]), Step::Idle);
    (debug.state, debug.exit_code) = (RunState::Exited, 1);
    assert_eq!(step(&pod, &[sandbox(), working, debug]), Step::Idle);
}

#[test]
fn what_a_probe_condemned_is_stopped() {
    let pod = pod("p", "Always", &["a"]);
    let running = record("p", Role::App, "a", 0);
    let mut memory = Memory::default();
    let failed = Probed { failed: Some("no".into()), ..Probed::default() };
    memory.probes.insert(running.id.clone(), failed);
    let next = plan(&pod, &[sandbox(), running.clone()], &memory, now()).step;
    assert_eq!(next, Step::Stop(vec![running.id]));
}

#[test]
fn a_deadline_is_waited_for_and_ends_everything() {
    let mut pod = pod("p", "Always", &["a"]);
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(5);
    let memory = Memory { started_at: Some(now()), ..Memory::default() };
    let records = [sandbox(), record("p", Role::App, "a", 0)];
    let early = plan(&pod, &records, &memory, now());
    assert_eq!(early, Plan { step: Step::Idle, wake: Some(now() + 5.seconds()) });
    let late = plan(&pod, &records, &memory, now() + 5.seconds());
    assert_eq!(late.step, Step::Stop(vec![records[1].id.clone()]));
}
