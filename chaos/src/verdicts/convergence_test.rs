use super::PROMISE;
use crate::evidence::{Convergence, Evidence};
use crate::verdicts::violations;

#[test]
fn too_late_and_never_are_found() {
    let goal = |took_ms| Convergence {
        what: "3 ready pods".into(),
        took_ms,
        limit_ms: 100,
        missing: "2 of 3".into(),
    };
    for (took, expected) in [(Some(100), 0), (Some(101), 1), (None, 1)] {
        let evidence = Evidence { convergence: vec![goal(took)], ..Evidence::default() };
        assert_eq!(violations(&PROMISE, &evidence).len(), expected, "{took:?}");
    }
}
