#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn log_options_become_a_query() {
    let options = v1::LogOptions {
        follow: true,
        tail_lines: 5,
        since_time: "2026-01-01T00:00:01Z".into(),
        stream: "Stderr".into(),
        ..Default::default()
    };
    let query = log_query(&options).ok().unwrap();
    assert_eq!((query.follow, query.tail, query.since), (true, Some(5), Some(1_767_225_601)));
    assert_eq!(query.without, Some(Output::Stdout));
    let all = v1::LogOptions { tail_lines: -1, previous: true, follow: true, ..Default::default() };
    let all = log_query(&all).ok().unwrap();
    assert_eq!((all.follow, all.tail, all.since, all.without), (false, None, None, None));
}

#[test]
fn wrong_log_options_are_named() {
    let time = v1::LogOptions { since_time: "yesterday".into(), ..Default::default() };
    assert!(log_query(&time).err().unwrap().message.contains("yesterday"));
    let stream = v1::LogOptions { stream: "stdin".into(), ..Default::default() };
    assert!(log_query(&stream).err().unwrap().message.contains("stdin"));
}

#[test]
fn only_a_running_container_of_the_pod_is_joined() {
    let pod = crate::pods::fake::pod("p", "Always", &["a", "b"]);
    let mut ended = crate::pods::fake::record("p", Role::App, "b", 0);
    ended.state = RunState::Exited;
    let records = [crate::pods::fake::record("p", Role::App, "a", 0), ended];
    assert_eq!(running(&pod, &records, "a").ok().unwrap().container, "a");
    assert_eq!(running(&pod, &records, "b").err().unwrap().reason, "BadRequest");
    assert_eq!(running(&pod, &records, "c").err().unwrap().reason, "NotFound");
}
