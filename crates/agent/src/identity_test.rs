#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::DataDir;

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
