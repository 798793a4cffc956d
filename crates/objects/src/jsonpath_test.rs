use serde_json::json;

use super::*;

fn value() -> Value {
    json!({
        "items": [
            {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1,
             "conditions": [{"type": "Ready", "status": "True"}, {"type": "B", "status": "False"}]},
            {"metadata": {"name": "b"}, "n": 2},
        ]
    })
}

fn render(template: &str) -> String {
    template.parse::<JsonPath>().unwrap().render(&value())
}

#[test]
fn paths() {
    assert_eq!(render("{.items[*].metadata.name}"), "a b");
    assert_eq!(render("{.items[-1].metadata.name}"), "b");
    assert_eq!(render("{$.items[0].n}"), "1");
    assert_eq!(render("{.items[0].metadata.labels['x.y/z']}"), "1");
    assert_eq!(render("{.items[0].metadata.labels.x\\.y/z}"), "1");
    assert_eq!(render("{.nothing.here}"), "");
    assert_eq!(render("{.items[1].metadata}"), r#"{"name":"b"}"#);
}

#[test]
fn filters() {
    assert_eq!(render(r#"{.items[0].conditions[?(@.type=="Ready")].status}"#), "True");
    assert_eq!(render(r#"{.items[0].conditions[?(@.type!="Ready")].status}"#), "False");
    assert_eq!(render("{.items[?(@.conditions)].metadata.name}"), "a");
}

#[test]
fn ranges_and_text() {
    let text = render(r#"{range .items[*]}{.metadata.name}={.n}{"\n"}{end}done"#);
    assert_eq!(text, "a=1\nb=2\ndone");
}

#[test]
fn mistakes() {
    for wrong in ["{.a", "{range .a}x", "{end}", "{.a[}", "{.a[x]}", "{..a}"] {
        assert!(wrong.parse::<JsonPath>().is_err(), "{wrong}");
    }
}
