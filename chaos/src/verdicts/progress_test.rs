use super::PROMISE;
use crate::evidence::{Evidence, MasterSighting};
use crate::verdicts::violations;

fn masters(sightings: &[(u32, u64, u64)]) -> Evidence {
    let sighting = |&(pid, term, revision): &(u32, u64, u64)| MasterSighting {
        at: 0,
        master: "m1".into(),
        pid,
        term,
        leads: false,
        revision,
    };
    Evidence { masters: sightings.iter().map(sighting).collect(), ..Evidence::default() }
}

#[test]
fn going_back_is_found() {
    assert!(
        violations(&PROMISE, &masters(&[(1, 1, 5), (1, 1, 6), (2, 1, 2), (2, 3, 9)])).is_empty()
    );
    assert_eq!(violations(&PROMISE, &masters(&[(1, 2, 5), (2, 1, 6)])).len(), 1, "term");
    assert_eq!(violations(&PROMISE, &masters(&[(1, 2, 5), (1, 2, 4)])).len(), 1, "revision");
}
