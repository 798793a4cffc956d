//! Custom kinds over the Kubernetes API, on the master that was told of them and on another.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::master::Master;
use crate::rest::{Http, TABLE};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn definition(group: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {
        "type": "object", "description": "A box of a size.",
        "properties": {
            "spec": {
                "type": "object", "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
                    "lid": {"type": "string", "enum": ["open", "shut"], "default": "open"},
                },
            },
            "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
        },
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("boxes.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box", "shortNames": ["bx"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true, "schema": schema,
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                    }},
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "Lid", "type": "string", "jsonPath": ".spec.lid", "priority": 1},
                    ],
                },
                {"name": "v1beta1", "served": true, "storage": false, "schema": schema},
            ],
        },
    })
}

/// Makes the definition and accepts its names, as the controller does.
async fn define(http: &Http, group: &str) {
    let (code, mut made) = http.call(Method::POST, DEFINITIONS, &definition(group)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    made["status"]["conditions"] =
        json!([{"type": "Established", "status": "True", "lastTransitionTime": null}]);
    made["status"]["acceptedNames"] = made["spec"]["names"].clone();
    let path = format!("{DEFINITIONS}/boxes.{group}/status");
    let (code, accepted) = http.call(Method::PUT, &path, &made).await;
    assert_eq!(code, StatusCode::OK, "{accepted}");
}

fn custom(group: &str, name: &str, size: i64) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"), "kind": "Box", "metadata": {"name": name},
        "spec": {"size": size},
    })
}

#[tokio::test]
async fn custom_kinds_are_served_by_every_master() {
    let group = "served.example.com";
    let (first, second);
    first = Master::start().await;
    second = Master::on(first.store.clone()).await;
    let (here, there) = (Http::new(&first), Http::new(&second));
    let boxes = format!("/apis/{group}/v1/namespaces/default/boxes");
    assert_eq!(there.get(&boxes).await.0, StatusCode::NOT_FOUND);
    define(&here, group).await;
    // The other master is asked at once.
    let (code, made) = there.call(Method::POST, &boxes, &custom(group, "a", 3)).await;
    assert_eq!((code, &made["spec"]["lid"]), (StatusCode::CREATED, &json!("open")), "{made}");
    let (code, wrong) = here.call(Method::POST, &boxes, &custom(group, "b", 0)).await;
    assert_eq!((code, &wrong["reason"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("Invalid")));
    assert_eq!(wrong["details"]["causes"][0]["field"], "spec.size");
    let one = format!("{boxes}/a");
    let (merge, strategic) =
        ("application/merge-patch+json", "application/strategic-merge-patch+json");
    let (code, patched) = here.patch(&one, merge, &json!({"spec": {"size": 5}})).await;
    assert_eq!((code, &patched["spec"]["size"]), (StatusCode::OK, &json!(5)));
    let (code, _) = here.patch(&one, strategic, &json!({"spec": {"size": 6}})).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE, "it has no merge keys");
    let (code, scaled) =
        there.patch(&format!("{one}/scale"), merge, &json!({"spec": {"replicas": 7}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(7)), "{scaled}");
    let status = json!({"status": {"size": 7}});
    let (code, patched) = here.patch(&format!("{one}/status"), merge, &status).await;
    assert_eq!((code, &patched["status"]["size"]), (StatusCode::OK, &json!(7)));
    let mut watch = there.watch(&format!("{boxes}?watch=true")).await;
    assert_eq!(watch.event().await, ("ADDED".to_owned(), "a".to_owned()));
    here.call(Method::POST, &boxes, &custom(group, "b", 1)).await;
    assert_eq!(watch.event().await, ("ADDED".to_owned(), "b".to_owned()));
    let (_, table) = there.get_as(&boxes, TABLE).await;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Size", "Lid"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "7", "open"]));
}

#[tokio::test]
async fn versions_of_custom_kinds_differ_in_their_name() {
    let group = "versions.example.com";
    let master = Master::start().await;
    let http = Http::new(&master);
    define(&http, group).await;
    let beta = format!("/apis/{group}/v1beta1/namespaces/default/boxes");
    let mut value = custom(group, "a", 3);
    value["apiVersion"] = format!("{group}/v1beta1").into();
    let (code, made) = http.call(Method::POST, &beta, &value).await;
    assert_eq!((code, &made["apiVersion"]), (StatusCode::CREATED, &value["apiVersion"]), "{made}");
    let stable = format!("/apis/{group}/v1/namespaces/default/boxes/a");
    assert_eq!(http.get(&stable).await.1["apiVersion"], format!("{group}/v1"));
    let merge = "application/merge-patch+json";
    let change = json!({"apiVersion": format!("{group}/v1beta1"), "spec": {"size": 4}});
    let (code, patched) = http.patch(&format!("{beta}/a"), merge, &change).await;
    assert_eq!((code, &patched["spec"]["size"]), (StatusCode::OK, &json!(4)), "{patched}");
    let (_, list) = http.get(&beta).await;
    assert_eq!(list["items"][0]["apiVersion"], format!("{group}/v1beta1"));
    // Columns are the version's own: this one has only the default ones.
    let (_, table) = http.get_as(&beta, TABLE).await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Age");
    let (_, found) = http.get(&format!("/apis/{group}")).await;
    assert_eq!(found["preferredVersion"]["version"], "v1");
    assert_eq!(found["versions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn custom_kinds_are_described() {
    let group = "described.example.com";
    let master = Master::start().await;
    let http = Http::new(&master);
    define(&http, group).await;
    let (_, list) = http.get(&format!("/apis/{group}/v1")).await;
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["boxes", "boxes/status", "boxes/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["bx"]));
    assert_eq!(list["resources"][0]["categories"], json!(["all"]));
    let (_, index) = http.get("/openapi/v3").await;
    let url = &index["paths"][format!("apis/{group}/v1")]["serverRelativeURL"];
    let (code, document) = http.get(url.as_str().unwrap()).await;
    assert_eq!(code, StatusCode::OK);
    let schema = &document["components"]["schemas"]["com.example.described.v1.Box"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["size"]["description"],
        "How large it is."
    );
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Box");
    assert!(schema["properties"]["metadata"].is_object());
    // Another schema is another document.
    let mut changed = definition(group);
    let place = &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    place["properties"]["spec"]["properties"]["size"]["description"] = "Its size.".into();
    let path = format!("{DEFINITIONS}/boxes.{group}");
    let change = json!({"spec": changed["spec"]});
    let (code, patched) = http.patch(&path, "application/merge-patch+json", &change).await;
    assert_eq!(code, StatusCode::OK, "{patched}");
    let (_, index) = http.get("/openapi/v3").await;
    assert_ne!(&index["paths"][format!("apis/{group}/v1")]["serverRelativeURL"], url);
}

#[tokio::test]
async fn definitions_that_cannot_be_served_say_why() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let mut wrong = definition("wrong.example.com");
    let schema = &mut wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["size"] = json!({"minimum": 1});
    let (code, status) = http.call(Method::POST, DEFINITIONS, &wrong).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    let cause = &status["details"]["causes"][0];
    assert_eq!(
        cause["field"],
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[size].type"
    );
    let mut unknown = definition("wrong.example.com");
    unknown["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["minimun"] = 1.into();
    let strict = format!("{DEFINITIONS}?fieldValidation=Strict");
    let (code, status) = http.call(Method::POST, &strict, &unknown).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{status}");
    assert!(status["message"].as_str().unwrap().contains("unknown field"), "{status}");
}
