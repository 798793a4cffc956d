use quorate_objects::kinds;

use super::*;

fn object(name: &str) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": "u", "labels": {"a": "b"},
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "data": {"k": "v"},
    });
    Object::from_value(&kinds::CONFIG_MAP, value, 7).unwrap()
}

fn renderer(form: Form) -> Renderer {
    Renderer {
        kind: &kinds::CONFIG_MAP,
        version: None,
        accept: Accept { form, yaml: false },
        include: IncludeObject::Metadata,
        now: "2026-01-01T00:01:00Z".parse().unwrap(),
    }
}

fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn lists_carry_what_their_metadata_says() {
    let meta = ListMeta { revision: 9, continue_token: Some("x".into()), remaining: Some(3) };
    let objects = [object("a"), object("b")];
    let list = parse(&renderer(Form::Object).list(&meta, objects.iter()).unwrap());
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(
        list["metadata"],
        json!({"resourceVersion": "9", "continue": "x", "remainingItemCount": 3})
    );
    assert_eq!(list["items"][1]["metadata"]["name"], "b");
    let empty = parse(&renderer(Form::Object).list(&meta, [].iter()).unwrap());
    assert_eq!(empty["items"], json!([]));
}

#[test]
fn tables_have_a_cell_per_column_and_the_metadata() {
    let objects = [object("a")];
    let meta = ListMeta { revision: 9, ..ListMeta::default() };
    let table = parse(&renderer(Form::Table).list(&meta, objects.iter()).unwrap());
    assert_eq!(table["kind"], "Table");
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len());
    assert_eq!(columns[0]["name"], "Name");
    assert_eq!((&cells[0], cells.last().unwrap()), (&json!("a"), &json!("60s")));
    let object = &table["rows"][0]["object"];
    assert_eq!(object["kind"], "PartialObjectMetadata");
    assert_eq!(object["metadata"]["namespace"], "default");
    assert!(object.get("data").is_none());
}

#[test]
fn metadata_alone_is_an_object_of_its_own() {
    let partial = parse(&renderer(Form::Partial).object(&object("a")).unwrap());
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert_eq!(partial["metadata"]["labels"]["a"], "b");
    assert!(partial.get("data").is_none());
}

#[test]
fn events_are_lines() {
    let event = ObjectEvent {
        kind: EventKind::Modified,
        object: Some(std::sync::Arc::new(object("a"))),
        revision: 7,
    };
    let line = renderer(Form::Object).event(&event, true).unwrap();
    assert!(line.ends_with(b"}\n"));
    let event = parse(&line);
    assert_eq!((&event["type"], &event["object"]["data"]["k"]), (&json!("MODIFIED"), &json!("v")));
    let end = parse(&renderer(Form::Object).bookmark(12, true));
    assert_eq!(end["metadata"]["resourceVersion"], "12");
    assert_eq!(end["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[test]
fn headings_become_names() {
    assert_eq!(title("UP-TO-DATE"), "Up-To-Date");
    assert_eq!(title("NOMINATED NODE"), "Nominated Node");
}
