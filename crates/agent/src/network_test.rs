use super::overlap;

#[test]
fn ranges_overlap_when_one_holds_the_other() {
    assert!(overlap("10.144.0.0/16", "10.144.3.0/24"));
    assert!(overlap("10.144.3.0/24", "10.144.0.0/16"));
    assert!(!overlap("10.144.3.0/24", "10.144.4.0/24"));
    assert!(overlap("0.0.0.0/0", "10.144.4.0/24"));
    assert!(!overlap("fd00::/8", "10.144.4.0/24"));
}
