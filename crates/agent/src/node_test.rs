#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn taints_are_read_as_kubectl_writes_them() {
    let taint = parse_taint("a=b:NoSchedule").unwrap();
    assert_eq!((taint.key.as_str(), taint.value.as_deref()), ("a", Some("b")));
    assert_eq!(parse_taint("a:NoExecute").unwrap().value, None);
    for wrong in ["a", "a=b", "a=b:Never", ":NoSchedule"] {
        assert!(parse_taint(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
    }
}

#[test]
fn a_trouble_turns_its_condition_and_keeps_the_others_times() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let later: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let first = conditions(&Troubles::default(), &[], now);
    let troubles = Troubles { runtime: Some("gone".into()), ..Default::default() };
    let second = conditions(&troubles, &first, later);
    let find = |kind: &str| second.iter().find(|c| c.type_ == kind).unwrap();
    assert_eq!(find("RuntimeReady").status, "False");
    assert_eq!(find("RuntimeReady").message.as_deref(), Some("gone"));
    assert_eq!(find("RuntimeReady").last_transition_time, Some(Time(later)));
    assert_eq!(find("NetworkUnavailable").last_transition_time, Some(Time(now)));
}

#[test]
fn the_node_has_what_was_said_or_what_is_there() {
    let address = "127.0.1.1".parse().unwrap();
    let mut options = AgentOptions::new("n", vec![], "/tmp".into(), address);
    options.cpu_millis = Some(1500);
    let node = object(&options, &RuntimeInfo::default());
    let capacity = node.status.unwrap().capacity.unwrap();
    assert_eq!(quantity::cpu_millis(&capacity["cpu"]), 1500);
    assert!(quantity::bytes(&capacity["memory"]) > 1 << 26);
    assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/hostname"], "n");
}
