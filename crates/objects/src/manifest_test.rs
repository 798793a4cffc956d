#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const GOOD: &str = "\
# first a comment
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: one
data: {a: \"1\"}
--- # and another
apiVersion: v1
kind: Namespace
metadata: {name: two}
---
{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [
  {\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"three\"}}]}
---
";

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn several_documents() {
    let documents = parse(GOOD).unwrap();
    let found: Vec<_> = documents.iter().map(|d| (d.index, d.line, d.name())).collect();
    assert_eq!(found, [(1, 3, "one"), (2, 9, "two"), (3, 13, "three")]);
}

#[test]
fn errors_name_document_and_line() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\napiVersion: v1\n\
                kind: Pod\nmetadata: {name: p}\nspec: {container: []}\n---\nkind: Pod\n---\n\
                apiVersion: v2\nkind: Pod\n";
    assert_eq!(
        problems(text),
        [
            "document 2 (line 6): Pod \"p\" is invalid: unknown field \"spec.container\"",
            "document 3 (line 11): apiVersion: Required value",
            "document 4 (line 13): no matches for kind \"Pod\" in version \"v2\"",
        ]
    );
}

#[test]
fn duplicate_keys() {
    let yaml = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  name: b\n";
    let text = &problems(yaml)[0];
    assert!(text.contains("\"name\" already set"), "{text}");
    let json = "{\"apiVersion\": \"v1\",\n\"kind\": \"Namespace\", \"kind\": \"Namespace\"}";
    let text = &problems(json)[0];
    assert!(text.starts_with("document 1 (line 2)") && text.contains("\"kind\""), "{text}");
}

#[test]
fn broken_text() {
    let text = &problems("apiVersion: v1\nkind: Pod\nspec:\n  - a\n b: [\n")[0];
    assert!(text.starts_with("document 1 (line"), "{text}");
    assert!(problems("just words")[0].contains("apiVersion: Required value"));
    assert!(parse("").unwrap().is_empty());
}
