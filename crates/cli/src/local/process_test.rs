use super::*;

fn args(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn only_a_daemon_with_the_data_directory_is_ours() {
    let dir = Path::new("/c/m1");
    assert!(owns(&args("quorate master --name m1 --data-dir /c/m1 --insecure"), dir));
    assert!(owns(&args("quorate agent --data-dir /c/m1"), dir));
    assert!(!owns(&args("quorate master --name m1 --data-dir /c/m11"), dir));
    assert!(!owns(&args("tail -f /c/m1"), dir));
    assert!(!owns(&args("quorate up --data-dir /c/m1"), dir));
}

#[test]
fn an_unrelated_process_is_not_ours() {
    assert!(!is_ours(std::process::id(), Path::new("/nowhere")));
    assert!(!is_ours(0, Path::new("/nowhere")));
}

#[tokio::test]
async fn a_foreign_process_gets_no_signal() {
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    let target = Target { name: "x", pid: sleeper.id(), data_dir: Path::new("/nowhere") };
    let killed = stop(&[target], Duration::from_secs(5)).await.unwrap();
    assert!(killed.is_empty());
    assert!(sleeper.try_wait().unwrap().is_none(), "it still runs");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn the_tail_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "a\nb\nc\n").unwrap();
    assert_eq!(log_tail(&log, 2), "b\nc");
    assert_eq!(log_tail(&log, 9), "a\nb\nc");
    assert_eq!(log_tail(&dir.path().join("none"), 2), "");
}
