use super::*;

#[test]
fn saved_is_what_is_loaded_by_folder_and_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ClusterFile {
        cluster_id: "c".into(),
        masters: vec![MasterEntry { name: "m1".into(), pid: Some(7), ..MasterEntry::default() }],
        ..ClusterFile::default()
    };
    let path = file.save(folder.path()).unwrap();
    file.folder = folder.path().to_owned();
    assert_eq!(ClusterFile::load(&path).unwrap(), file);
    assert_eq!(ClusterFile::load(folder.path()).unwrap(), file);
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), "{").unwrap();
    let error = ClusterFile::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("cluster.json is not a cluster file"), "{error}");
    let error = ClusterFile::load(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn certificates_are_asked_for_only_with_https() {
    let mut file = ClusterFile::default();
    file.masters.push(MasterEntry { url: "http://127.0.0.1:1".into(), ..MasterEntry::default() });
    assert!(file.tls().unwrap().is_none());
    file.masters[0].url = "https://127.0.0.1:1".into();
    file.folder = "/nonexistent".into();
    assert!(file.tls().unwrap_err().to_string().contains("ca.crt"));
}
