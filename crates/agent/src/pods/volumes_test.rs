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
    let tokens = [(("v".to_owned(), "t".to_owned()), Ok("secret".to_owned()))].into();
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

#[test]
fn what_one_volume_lacks_keeps_no_other_from_being_refreshed() {
    let folder = tempfile::tempdir().unwrap();
    let lookup = crate::assignments::SharedLookup(std::sync::Arc::default());
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [], "volumes": [
            {"name": "config", "configMap": {"name": "none"}},
            {"name": "early", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "access", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ]},
    }))
    .unwrap();
    let node = NodeValues::default();
    let file = |volume: &str| (volume.to_owned(), "t".to_owned());
    let place = pod_dir(folder.path(), "u").join("volumes").join("access").join("t");
    for token in ["first", "renewed"] {
        let tokens = [
            (file("early"), Err("no token within 5s".to_owned())),
            (file("access"), Ok(token.to_owned())),
        ]
        .into();
        let errors = refresh(folder.path(), &pod, &lookup, &node, &tokens);
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("configmap \"none\" not found"), "{errors:?}");
        assert!(errors[1].contains("no token within"), "{errors:?}");
        assert_eq!(fs::read_to_string(&place).unwrap(), token);
        // A container does not start without what it mounts.
        let error = prepare(folder.path(), &pod, &lookup, &node, &tokens).unwrap_err();
        assert_eq!(error, errors[0]);
    }
}
