use super::super::{Outcome, STALL_MS, verdict, violations};
use super::*;
use crate::evidence::QuietStep;

#[test]
fn a_new_term_without_a_cause_is_a_violation() {
    let faults = || "kill a follower (m2)".to_owned();
    let step = |before, after| QuietStep { faults: faults(), before, after, late_ms: 0 };
    let mut evidence = Evidence { quiet: vec![step(4, 4)], ..Evidence::default() };
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
    evidence.quiet.push(step(4, 5));
    assert!(violations(&PROMISE, &evidence)[0].starts_with("the term went from 4 to 5"));
}

#[test]
fn a_step_in_which_the_machine_stood_still_is_not_judged() {
    let step = |after, late_ms| QuietStep { faults: String::new(), before: 4, after, late_ms };
    let evidence = Evidence { quiet: vec![step(5, STALL_MS)], ..Evidence::default() };
    let stalled = verdict(&PROMISE, judge(&evidence));
    assert_eq!((stalled.outcome, stalled.checked), (Outcome::NotChecked, 0));
    let quiet = vec![step(4, 0), step(5, STALL_MS), step(5, STALL_MS - 1)];
    let mixed = verdict(&PROMISE, judge(&Evidence { quiet, ..Evidence::default() }));
    assert!(matches!(&mixed.outcome, Outcome::Violated(texts) if texts.len() == 1));
    let said = "2 checked in 2 steps; 1 not judged: the machine stood still";
    assert_eq!(mixed.extent(), said);
}
