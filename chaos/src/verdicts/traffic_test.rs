use super::super::{STALL_MS, violations};
use super::*;
use crate::evidence::TrafficWindow;

#[test]
fn a_request_that_failed_while_masters_suffered_and_the_machine_ran_is_a_violation() {
    let window = |failed, late_ms| TrafficWindow {
        faults: "kill the leader (m1)".into(),
        sent: 90,
        failed,
        messages: vec!["connection refused".into()],
        late_ms,
    };
    let traffic = vec![window(0, 0), window(2, STALL_MS)];
    let mut evidence = Evidence { traffic, ..Evidence::default() };
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
    evidence.traffic.push(window(2, 0));
    assert!(violations(&PROMISE, &evidence)[0].contains("2 of 90 requests failed"));
}
