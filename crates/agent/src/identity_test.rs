#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn a_directory_serves_one_agent_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = DataDir::open(folder.path()).unwrap();
    let error = DataDir::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("another agent is using it"), "{error}");
    drop(first);
    DataDir::open(folder.path()).unwrap();
}

#[test]
fn a_directory_belongs_to_one_node_of_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let directory = DataDir::open(folder.path()).unwrap();
    assert_eq!(directory.cluster("n1", None).unwrap(), None);
    directory.claim("n1", "c1").unwrap();
    assert_eq!(directory.cluster("n1", Some("c1")).unwrap().as_deref(), Some("c1"));
    let error = directory.cluster("n2", None).err().unwrap().to_string();
    assert!(error.contains("belongs to node \"n1\""), "{error}");
    let error = directory.cluster("n1", Some("c2")).err().unwrap().to_string();
    assert!(error.contains("belongs to cluster c1"), "{error}");
}

#[test]
fn a_later_start_has_the_greater_number_whatever_the_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    assert_eq!(data.incarnation(1_000).unwrap(), 1_000);
    assert_eq!(data.incarnation(2_000).unwrap(), 2_000);
    assert_eq!(data.incarnation(500).unwrap(), 2_001, "the clock was turned back");
    assert_eq!(data.incarnation(500).unwrap(), 2_002);
}

#[test]
fn nobody_else_gets_at_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made").join("before");
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let data = DataDir::open(&path).unwrap();
    assert_eq!(mode(&data.path().join("pods")), 0o700);
    assert_eq!(mode(data.path()), 0o755, "it may be there for others too");
    let file = path.join("assignments.json");
    for leftover in [path.join("assignments.new"), file.clone()] {
        fs::write(&leftover, "old").unwrap();
        fs::set_permissions(&leftover, Permissions::from_mode(0o644)).unwrap();
    }
    crate::assignments::Assignments::default().save(&file).unwrap();
    assert_eq!(mode(&file), 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("objects"));
}
