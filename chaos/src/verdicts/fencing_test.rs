use super::PROMISE;
use crate::evidence::{Evidence, FencedWrite};
use crate::verdicts::violations;

fn write(decided_in: u64, committed_in: u64, effective: bool) -> FencedWrite {
    FencedWrite { master: "m1".into(), decided_in, committed_in, index: 9, effective }
}

#[test]
fn an_effect_of_an_older_term_is_found() {
    let good = vec![write(3, 3, true), write(2, 3, false)];
    let findings = (PROMISE.judge)(&Evidence { fenced: good, ..Evidence::default() });
    assert_eq!(
        (findings.checked, findings.violations.len()),
        (1, 0),
        "what came in time proves nothing"
    );
    let bad = vec![write(3, 3, true), write(2, 3, true)];
    assert_eq!(violations(&PROMISE, &Evidence { fenced: bad, ..Evidence::default() }).len(), 1);
}
