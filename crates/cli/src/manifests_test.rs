use super::*;

#[test]
fn documents_have_numbers_and_lines() {
    let text = "# head\n---\na: 1\n---\n\n# only a comment\n---\nb: 2\n";
    let parts: Vec<_> = split(text).into_iter().map(|(n, line, _)| (n, line)).collect();
    assert_eq!(parts, [(1, 3), (2, 8)]);
    assert_eq!(split("a: 1\n")[0], (1, 1, "a: 1\n".into()));
    assert_eq!(split("--- # x\na: 1\n")[0].1, 1);
    assert!(split("").is_empty());
}

#[test]
fn a_wrong_document_does_not_hide_the_others() {
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let text = format!("{good}---\napiVersion: v1\nkind: Nonsense\n---\n{good}");
    let mut found = Items::default();
    parse("x.yaml", &text, None, &mut found);
    assert_eq!(found.items.len(), 2);
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].contains("x.yaml: document 2 (line 5)"), "{}", found.problems[0]);
    assert_eq!(found.items[0].value["metadata"]["namespace"], "default");
}

#[test]
fn namespaces() {
    let kind = Kind::by_resource("pods").unwrap();
    let pod = |ns: Value| json!({"metadata": {"name": "a", "namespace": ns}});
    let ns = |value: Value, flag| {
        placed(kind, value, flag).map(|v| v["metadata"]["namespace"].as_str().unwrap().to_owned())
    };
    assert_eq!(ns(pod(Value::Null), None), Ok("default".into()));
    assert_eq!(ns(pod(Value::Null), Some("x")), Ok("x".into()));
    assert_eq!(ns(pod(json!("y")), None), Ok("y".into()));
    assert!(ns(pod(json!("y")), Some("x")).unwrap_err().contains("does not match"));
}

#[test]
fn missing_files_and_empty_folders() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| read(&[path.to_owned()], false, None).unwrap_err().to_string();
    assert!(message(&dir.path().join("none")).contains("does not exist"));
    assert!(message(dir.path()).contains("no files with the endings"));
    fs::write(dir.path().join("a.yaml"), "# nothing\n").unwrap();
    assert_eq!(message(dir.path()), "error: no objects passed");
}
