use super::PROMISE;
use crate::evidence::{Evidence, MasterSighting};
use crate::verdicts::violations;

fn sighting(master: &str, term: u64, leads: bool) -> MasterSighting {
    MasterSighting { at: 0, master: master.into(), pid: 1, term, leads, revision: 1 }
}

#[test]
fn two_leaders_of_one_term_are_found() {
    let mut masters = vec![
        sighting("m1", 1, true),
        sighting("m2", 1, false),
        sighting("m2", 2, true),
        // Deposed, and does not know it yet: another term.
        sighting("m1", 1, true),
    ];
    let evidence = Evidence { masters: masters.clone(), ..Evidence::default() };
    assert!(violations(&PROMISE, &evidence).is_empty());
    masters.push(sighting("m3", 2, true));
    let evidence = Evidence { masters, ..Evidence::default() };
    assert_eq!(violations(&PROMISE, &evidence).len(), 1);
}
