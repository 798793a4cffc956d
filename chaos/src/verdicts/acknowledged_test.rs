use super::PROMISE;
use crate::evidence::{Evidence, Write, Writes};
use crate::verdicts::violations;

fn write(key: &str, value: impl Into<Option<u64>>, revision: u64) -> Write {
    Write { key: key.into(), value: value.into(), revision }
}

fn evidence(acknowledged: Vec<Write>, unknown: Vec<Write>, kept: &[(&str, u64, u64)]) -> Evidence {
    let kept = kept.iter().map(|(key, value, revision)| ((*key).into(), (*value, *revision)));
    let writes = Writes { acknowledged, unknown, kept: Some(kept.collect()), ..Writes::default() };
    Evidence { writes, ..Evidence::default() }
}

#[test]
fn what_is_there_or_replaced_is_fine() {
    let good = evidence(
        vec![write("a", 1, 5), write("a", 2, 6), write("b", 3, 7), write("c", 4, 8)],
        vec![write("b", 9, 0), write("c", None, 0)],
        &[("a", 2, 6), ("b", 9, 12)],
    );
    assert!(violations(&PROMISE, &good).is_empty());
    let deleted = evidence(vec![write("a", 1, 5), write("a", None, 6)], vec![], &[]);
    assert!(violations(&PROMISE, &deleted).is_empty());
}

#[test]
fn what_is_gone_or_older_or_elsewhere_is_found() {
    let acknowledged = || vec![write("a", 1, 5), write("a", 2, 6)];
    for kept in [&[][..], &[("a", 1, 5)], &[("a", 2, 7)], &[("a", 7, 9)]] {
        let bad = evidence(acknowledged(), vec![], kept);
        assert_eq!(violations(&PROMISE, &bad).len(), 1, "{kept:?}");
    }
    // A deletion that was acknowledged, and the value is back.
    let bad = evidence(vec![write("a", 1, 5), write("a", None, 6)], vec![], &[("a", 1, 5)]);
    assert_eq!(violations(&PROMISE, &bad).len(), 1);
}
