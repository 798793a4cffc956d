#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    list.iter()
        .map(|(name, text)| ((*name).to_owned(), (text.as_bytes().to_vec(), 0o644)))
        .collect()
}

#[test]
fn files_change_in_one_step_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("v");
    write_files(&place, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
    assert_eq!(fs::read_to_string(place.join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(place.join("sub/b")).unwrap(), "2");
    let version = fs::read_link(place.join("..data")).unwrap();
    write_files(&place, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
    assert_eq!(fs::read_link(place.join("..data")).unwrap(), version, "nothing changed");
    write_files(&place, &files(&[("a", "3")]), None).unwrap();
    assert_eq!(fs::read_to_string(place.join("a")).unwrap(), "3");
    assert!(!place.join("sub").exists());
    assert!(!place.join(version).exists());
}

#[test]
fn a_file_cannot_leave_its_volume() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["../x", "/x", "a/../../x"] {
        assert!(
            write_files(&folder.path().join("v"), &files(&[(name, "")]), None).is_err(),
            "{name}"
        );
    }
}

#[test]
fn a_projected_volume_has_the_files_of_all_its_sources() {
    let lookup = crate::assignments::SharedLookup(std::sync::Arc::default());
    let object: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "x"}}}))
    .unwrap();
    let volume = |sources: serde_json::Value| -> Volume {
        let value = serde_json::json!({"name": "v", "projected": {"sources": sources}});
        serde_json::from_value(value).unwrap()
    };
    let node = NodeValues::default();
    let good = volume(serde_json::json!([
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"configMap": {"name": "none", "optional": true}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]));
    let tokens = [(("v".to_owned(), "t".to_owned()), "secret".to_owned())].into();
    let sources = Sources { pod: &object, lookup: &lookup, node: &node, tokens: &tokens };
    let files = super::files(&good, &sources).unwrap().unwrap();
    assert_eq!(files["name"].0, b"p");
    assert_eq!(files["labels"].0, b"app=\"x\"");
    let missing = volume(serde_json::json!([{"secret": {"name": "none"}}]));
    let error = super::files(&missing, &sources).unwrap_err();
    assert!(error.contains("none"), "{error}");
    let token = |path: &str| volume(serde_json::json!([{"serviceAccountToken": {"path": path}}]));
    assert_eq!(super::files(&token("t"), &sources).unwrap().unwrap()["t"].0, b"secret");
    assert!(super::files(&token("other"), &sources).unwrap_err().contains("no token"));
}
