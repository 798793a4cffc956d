use super::super::violations;
use super::*;
use crate::evidence::QuietStep;

#[test]
fn a_new_term_without_a_cause_is_a_violation() {
    let step = |before, after| QuietStep { faults: "kill a follower (m2)".into(), before, after };
    let mut evidence = Evidence { quiet: vec![step(4, 4)], ..Evidence::default() };
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
    evidence.quiet.push(step(4, 5));
    assert!(violations(&PROMISE, &evidence)[0].starts_with("the term went from 4 to 5"));
}
