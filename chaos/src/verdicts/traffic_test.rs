use super::super::violations;
use super::*;
use crate::evidence::TrafficWindow;

#[test]
fn a_request_that_failed_while_masters_suffered_is_a_violation() {
    let window = |failed| TrafficWindow {
        faults: "kill the leader (m1)".into(),
        sent: 90,
        failed,
        messages: vec!["connection refused".into()],
    };
    let mut evidence = Evidence { traffic: vec![window(0)], ..Evidence::default() };
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
    evidence.traffic.push(window(2));
    assert!(violations(&PROMISE, &evidence)[0].contains("2 of 90 requests failed"));
}
