use super::super::violations;
use super::*;
use crate::evidence::StepEnds;

#[test]
fn a_process_that_ended_by_itself_is_a_violation() {
    let step = |ended: &[&str]| StepEnds {
        faults: "transfer the leadership (m1)".into(),
        ended: ended.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut evidence = Evidence { ends: vec![step(&[])], ..Evidence::default() };
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
    evidence.ends.push(step(&["m2"]));
    assert!(violations(&PROMISE, &evidence)[0].starts_with("m2 ended by itself"));
}
