#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn identity(cluster: &str, name: &str) -> Identity {
    Identity { cluster_id: cluster.into(), member_id: 2, name: name.into(), instance: 5 }
}

#[test]
fn a_directory_belongs_to_one_member_of_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    assert!(identity("c1", "m2").claim(dir.path()).unwrap().1, "new");
    let again = Identity { member_id: 3, ..identity("c1", "m2") };
    let (found, new) = again.claim(dir.path()).unwrap();
    assert_eq!((found.member_id, new), (2, false), "the id on disk wins");

    let error = identity("c2", "m2").claim(dir.path()).unwrap_err();
    assert!(matches!(error, RaftStoreError::OtherCluster { .. }), "{error}");
    assert!(error.to_string().contains("\"c1\""), "{error}");
    let error = identity("c1", "m3").claim(dir.path()).unwrap_err();
    assert!(matches!(error, RaftStoreError::OtherMember { .. }), "{error}");
}

#[test]
fn a_log_without_identity_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    let error = identity("c1", "m2").claim(dir.path()).unwrap_err();
    assert!(matches!(error, RaftStoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_directory_is_used_by_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::acquire(dir.path()).unwrap();
    let error = DirectoryLock::acquire(dir.path()).unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(lock);
    DirectoryLock::acquire(dir.path()).unwrap();
}
