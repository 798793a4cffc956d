use super::*;

#[test]
fn a_process_that_two_faults_hit_is_started_once() {
    let name = || "m1".to_owned();
    let mends = [
        Mend::Start("m2".into()),
        Mend::Start(name()),
        Mend::Disk(name()),
        Mend::StartIfEnded(name()),
        Mend::StartAfterCrash(name()),
        Mend::StartIfEnded("m3".into()),
    ];
    assert_eq!(starts(&mends), BTreeMap::from([("m1", true), ("m2", true), ("m3", false)]));
}

#[test]
fn what_was_replaced_meanwhile_is_not_mended() {
    let processes = ["m1", "m2-17", "node-1"].map(str::to_owned);
    let gone = || "m2-16".to_owned();
    for mend in [
        Mend::Disk(gone()),
        Mend::Replace(gone()),
        Mend::Start(gone()),
        Mend::StartAfterCrash(gone()),
        Mend::StartIfEnded(gone()),
        Mend::Clock(gone()),
    ] {
        assert!(!mend.concerns(&processes), "{mend:?}");
    }
    for mend in [
        Mend::StartAfterCrash("m2-17".into()),
        Mend::Plug("node-1".into()),
        // The place's link stays, whoever is in it; and hollow nodes are no processes.
        Mend::Link(gone(), "m1".into()),
        Mend::Uncordon("hollow-3".into()),
    ] {
        assert!(mend.concerns(&processes), "{mend:?}");
    }
}
