use super::*;

#[test]
fn a_file_turns_the_clock_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clock");
    let turned = Turned::by(path.clone());
    for (text, seconds) in
        [("", 0), ("3600\n", 3_600), ("not a number", 3_600), ("-90", -90), ("0\n", 0)]
    {
        std::fs::write(&path, text).unwrap();
        turned.look();
        assert_eq!(turned.seconds.load(Ordering::Relaxed), seconds, "{text:?}");
    }
}

#[test]
fn it_looks_now_and_then_and_not_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clock");
    std::fs::write(&path, "60").unwrap();
    let turned = Turned::by(path.clone());
    assert_eq!(turned.seconds(), 60);
    std::fs::write(&path, "120").unwrap();
    turned.look_at.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(turned.seconds(), 60, "it is not time to look");
    turned.look_at.store(0, Ordering::Relaxed);
    assert_eq!(turned.seconds(), 120);
}

#[test]
fn without_a_file_it_is_the_system_clock() {
    assert!(since_epoch() > Duration::from_secs(1_600_000_000));
}
