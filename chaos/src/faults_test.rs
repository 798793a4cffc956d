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
