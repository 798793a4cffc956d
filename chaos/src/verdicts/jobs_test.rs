use super::super::violations;
use super::*;
use crate::evidence::JobCount;

#[test]
fn a_job_that_counts_other_than_asked_or_ran_too_often_is_a_violation() {
    let judge = |counted, succeeded| {
        let job = JobCount { name: "j".into(), wanted: 3, counted, succeeded };
        violations(&PROMISE, &Evidence { jobs: vec![job], ..Evidence::default() }).len()
    };
    assert_eq!((judge(3, 3), judge(3, 2)), (0, 0), "pods may be gone already");
    assert_eq!((judge(2, 2), judge(4, 4), judge(3, 4)), (1, 1, 1));
}
