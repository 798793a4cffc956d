#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

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

/// An alias is a copy, and copies of copies are more than any memory holds.
#[test]
fn aliases_do_not_make_much_of_little() {
    let long = "x".repeat(20_000);
    let wide = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 20_000].join(","));
    let keys = format!("a: &a {long}\nb: [{}]\n", vec!["{*a : 1}"; 20_000].join(","));
    let mut deep = format!("a0: &a0 {}\n", "x".repeat(1000));
    for level in 1..10 {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        deep += &format!("a{level}: &a{level} {{k: [{below}]}}\n");
    }
    for text in [wide, keys, deep] {
        let error = parse_yaml(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("aliases expand to more than 1048576 bytes"), "{error}");
        assert!(problems(&text)[0].contains("aliases expand"), "also in a manifest");
    }
    let ordinary = "a: &a {image: web, ports: [80]}\nb: *a\nc: [*a, *a]\n";
    let a = json!({"image": "web", "ports": [80]});
    let found = parse_yaml(ordinary.as_bytes()).unwrap();
    assert_eq!(found, json!({"a": a, "b": a, "c": [a, a]}));
}

/// The texts of which the most is made without aliases.
#[test]
fn what_is_written_out_is_never_too_much() {
    let letters: Vec<String> = ('a'..='z').map(|letter| letter.to_string()).collect();
    let maps = vec![format!("{{{}}}", letters.join(",")); 10_000];
    let yaml = format!("[{}]", maps.join(","));
    assert_eq!(parse_yaml(yaml.as_bytes()).unwrap().as_array().unwrap().len(), 10_000);
    let json = format!("[{}]", vec!["1"; 500_000].join(","));
    assert_eq!(parse_json(json.as_bytes()).unwrap().as_array().unwrap().len(), 500_000);
}
