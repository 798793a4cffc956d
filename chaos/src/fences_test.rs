use super::*;

#[test]
fn lines_of_a_log_are_read_and_others_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("m1");
    std::fs::create_dir(&home).expect("a folder");
    let log = "2026-11-24T06:00:00.000000Z  INFO quorate: master started\n\
               2026-11-24T06:00:01.000000Z DEBUG quorate_raftstore::fence: leader work \
               decided_in=3 committed_in=4 index=17 effective=false\n\
               2026-11-24T06:00:01.000000Z DEBUG quorate_raftstore::fence: leader work decided_in=3\n";
    std::fs::write(home.join("log"), log).expect("written");
    let writes = read(folder.path());
    let expected = FencedWrite {
        master: "m1".into(),
        decided_in: 3,
        committed_in: 4,
        index: 17,
        effective: false,
    };
    assert_eq!(writes, [expected]);
}
