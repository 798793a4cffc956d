use super::super::violations;
use super::*;
use crate::evidence::Guarded;

const SECOND: u64 = 1_000_000_000;

fn held(token: u64, renewed_at: u64, taken_at: u64, given_up: bool) -> Held {
    Held { lock: "l".into(), token, renewed_at, taken_at, ttl_ms: 2_000, given_up }
}

fn guarded(token: u64, revision: u64) -> Guarded {
    Guarded { lock: "l".into(), token, revision }
}

#[test]
fn a_write_of_a_former_holder_is_a_violation() {
    let mut evidence = Evidence {
        held: vec![held(20, 0, 0, false), held(10, 0, 0, true)],
        guarded: vec![guarded(10, 12), guarded(10, 19), guarded(20, 21)],
        ..Evidence::default()
    };
    assert_eq!(violations(&FENCED, &evidence), Vec::<String>::new());
    evidence.guarded.push(guarded(10, 22));
    assert!(violations(&FENCED, &evidence)[0].contains("token 10 wrote at revision 22"));
}

#[test]
fn a_lease_that_ends_early_is_a_violation_unless_it_was_given_up() {
    let judge = |renewed, taken, given_up| {
        let evidence = Evidence {
            held: vec![held(10, renewed, renewed, given_up), held(20, taken, taken, false)],
            ..Evidence::default()
        };
        violations(&LEASES, &evidence).len()
    };
    assert_eq!(judge(SECOND, 3 * SECOND, false), 0);
    assert_eq!(judge(SECOND, 3 * SECOND - 1, false), 1);
    assert_eq!(judge(SECOND, SECOND + 1, true), 0);
}
