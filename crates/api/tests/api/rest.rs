//! The Kubernetes API, as its clients speak it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use quorate_registry::{DeleteOptions, WriteOptions};
use quorate_store::Store as _;
use serde_json::{Value, json};

use crate::master::{Master, config_map, pod, soon};

pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A client without any knowledge of its own.
pub struct Http {
    client: Client<HttpConnector, Body>,
    pub base: String,
}

impl Http {
    pub fn new(master: &Master) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, base: master.url() }
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = soon("an answer", self.client.request(request)).await.unwrap();
        let code = response.status();
        let bytes = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (code, value)
    }

    pub fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body.to_owned())).unwrap()
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::GET, path, &[], "")).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::GET, path, &[("accept", accept)], "")).await
    }

    pub async fn call(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(self.request(method, path, &[], &body.to_string())).await
    }

    pub async fn patch(&self, path: &str, media_type: &str, body: &Value) -> (StatusCode, Value) {
        let headers = [("content-type", media_type)];
        self.send(self.request(Method::PATCH, path, &headers, &body.to_string())).await
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let request = self.request(Method::GET, path, &[], "");
        let response = soon("an answer", self.client.request(request)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Watch { body: Body::new(response.into_body()), rest: Vec::new() }
    }
}

pub struct Watch {
    body: Body,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; none when the server has ended the watch.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = soon("an event", self.body.frame()).await?;
            self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    pub async fn event(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch has ended");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_lives_through_all_verbs() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let (code, created) = http.call(Method::POST, MAPS, &config_map("a", "1")).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    let one = format!("{MAPS}/a");
    assert_eq!(http.get(&one).await, (StatusCode::OK, created.clone()));

    let mut changed = created.clone();
    changed["data"]["key"] = "2".into();
    let (code, updated) = http.call(Method::PUT, &one, &changed).await;
    assert_eq!((code, &updated["data"]["key"]), (StatusCode::OK, &json!("2")));
    let (code, conflict) = http.call(Method::PUT, &one, &changed).await;
    assert_eq!((code, &conflict["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));

    let merge = "application/merge-patch+json";
    let (code, patched) = http.patch(&one, merge, &json!({"data": {"more": "3"}})).await;
    assert_eq!((code, &patched["data"]["more"]), (StatusCode::OK, &json!("3")));
    let operations = json!([{"op": "remove", "path": "/data/more"}]);
    let (code, patched) = http.patch(&one, "application/json-patch+json", &operations).await;
    assert_eq!((code, patched["data"].get("more")), (StatusCode::OK, None));
    let impossible = json!([{"op": "test", "path": "/data/key", "value": "9"}]);
    let (code, status) = http.patch(&one, "application/json-patch+json", &impossible).await;
    assert_eq!((code, &status["reason"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("Invalid")));
    let (code, _) = http.patch(&one, "text/plain", &json!({})).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let wrong = json!({"preconditions": {"uid": "another"}});
    assert_eq!(http.call(Method::DELETE, &one, &wrong).await.0, StatusCode::CONFLICT);
    let (code, status) = http.send(http.request(Method::DELETE, &one, &[], "")).await;
    assert_eq!((code, &status["status"]), (StatusCode::OK, &json!("Success")));
    let (code, status) = http.get(&one).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(status["message"], "configmaps \"a\" not found");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn lists_are_chunked_at_one_revision() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let options = WriteOptions::default();
    for name in ["a", "b", "c", "d"] {
        master.registry.create(config_map(name, "1"), &options).await.unwrap();
    }
    let (_, first) = http.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    // Neither what comes nor what goes meanwhile is seen.
    master.registry.create(config_map("bb", "1"), &options).await.unwrap();
    let kind = &quorate_objects::kinds::CONFIG_MAP;
    master.registry.delete(kind, "default", "d", &DeleteOptions::default()).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, second) = http.get(&format!("{MAPS}?limit=5&continue={token}")).await;
    assert_eq!(code, StatusCode::OK, "{second}");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let names: Vec<_> =
        second["items"].as_array().unwrap().iter().map(|o| &o["metadata"]["name"]).collect();
    assert_eq!(names, ["c", "d"]);

    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(http.get(&exact).await.1["items"].as_array().unwrap().len(), 4);
    let newer = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
    let (_, newer) = http.get(&newer).await;
    assert_eq!(newer["items"][2]["metadata"]["name"], "bb");
    let (code, status) = http.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT, "{status}");
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    // A master that has just started knows what the store knows, and no more.
    let knowing = Master::on(master.store.clone()).await;
    let young = Http::new(&knowing);
    let again = format!("{MAPS}?limit=5&continue={token}");
    assert_eq!(young.get(&again).await.1["items"], second["items"]);
    master.store.compact(master.registry.cache().revision(), false).await.unwrap();
    let forgetful = Master::on(master.store.clone()).await;
    let young = Http::new(&forgetful);
    let (code, status) = young.get(&format!("{MAPS}?limit=5&continue=1:default/a")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::GONE, &json!("Expired")));
}

#[tokio::test]
async fn tables_metadata_and_yaml_are_made_on_request() {
    let master = Master::start().await;
    let http = Http::new(&master);
    master.registry.create(config_map("a", "1"), &WriteOptions::default()).await.unwrap();
    let (_, table) = http.get_as(MAPS, TABLE).await;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, list) = http.get_as(MAPS, partial).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["labels"]["app"], "a");
    let (_, yaml) = http.get_as(&format!("{MAPS}/a"), "application/yaml").await;
    assert!(yaml.as_str().unwrap().contains("kind: ConfigMap"), "{yaml}");
    assert_eq!(http.get_as(MAPS, "image/png").await.0, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn watches_show_what_selectors_see() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let options = WriteOptions::default();
    let created = master.registry.create(config_map("a", "1"), &options).await.unwrap();
    let mut all = http.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(all.event().await, ("ADDED".into(), "a".into()));
    let path = format!("{MAPS}?watch=1&labelSelector=app%3Da&resourceVersion={}", created.revision);
    let mut selected = http.watch(&path).await;
    let mut other = config_map("a", "2");
    other["metadata"]["labels"]["app"] = "b".into();
    master.registry.update(other, &options).await.unwrap();
    assert_eq!(all.event().await, ("MODIFIED".into(), "a".into()));
    let event = selected.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    // As it was, at the revision at which it left.
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "a");
    let left = event["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    assert!(left.parse::<u64>().unwrap() > created.revision);
    master.registry.update(config_map("a", "3"), &options).await.unwrap();
    assert_eq!(selected.event().await, ("ADDED".into(), "a".into()));
}

#[tokio::test]
async fn watch_lists_end_with_a_bookmark_and_bookmarks_keep_watches_alive() {
    let master = Master::start().await;
    let http = Http::new(&master);
    master.registry.create(config_map("a", "1"), &WriteOptions::default()).await.unwrap();
    let path = format!(
        "{MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&\
         resourceVersionMatch=NotOlderThan"
    );
    let mut watch = http.watch(&path).await;
    assert_eq!(watch.event().await, ("ADDED".into(), "a".into()));
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let later = watch.next().await.unwrap();
    assert_eq!(later["type"], "BOOKMARK");
    assert!(later["object"]["metadata"].get("annotations").is_none());
    let (code, _) = http.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_watch_from_too_long_ago_is_told_so_and_a_short_one_ends() {
    let first = Master::start().await;
    first.registry.create(config_map("a", "1"), &WriteOptions::default()).await.unwrap();
    first.store.compact(first.store.status().revision, false).await.unwrap();
    let master = Master::on(first.store.clone()).await;
    let http = Http::new(&master);
    let mut old = http.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let event = old.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(old.next().await.is_none());
    let mut short = http
        .watch(&format!(
            "{MAPS}?watch=true&timeoutSeconds=1&resourceVersion={}",
            first.registry.cache().revision()
        ))
        .await;
    assert!(short.next().await.is_none());
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_dropped() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let mut wrong = config_map("a", "1");
    wrong["dta"] = json!({});
    let path = |validation: &str| format!("{MAPS}?dryRun=All&fieldValidation={validation}");
    let (code, status) = http.call(Method::POST, &path("Strict"), &wrong).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let text = status["message"].as_str().unwrap();
    assert!(text.contains("strict decoding error: unknown field \"dta\""), "{text}");
    let request = http.request(Method::POST, &path("Warn"), &[], &wrong.to_string());
    let response = http.client.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"dta\\\"\"");
    let (code, created) = http.call(Method::POST, &path("Ignore"), &wrong).await;
    assert_eq!((code, created.get("dta")), (StatusCode::CREATED, None));
    // None of it was written.
    assert_eq!(http.get(&format!("{MAPS}/a")).await.0, StatusCode::NOT_FOUND);
    let twice = r#"{"metadata": {"name": "a"}, "data": {}, "data": {}}"#;
    let request = http.request(Method::POST, &path("Strict"), &[], twice);
    assert_eq!(http.send(request).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn replicas_are_scaled_through_their_own_resource() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "web:1"}]},
            },
        },
    });
    let all = "/apis/apps/v1/namespaces/default/deployments";
    let (code, created) = http.call(Method::POST, all, &deployment).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    let path = format!("{all}/web/scale");
    let merge = "application/merge-patch+json";
    let (code, scale) = http.patch(&path, merge, &json!({"spec": {"replicas": 4}})).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (StatusCode::OK, &json!(4)));
    assert_eq!(scale["status"]["selector"], "app=web");
    assert_eq!(http.get(&format!("{all}/web")).await.1["spec"]["replicas"], 4);
    let (code, _) = http.patch(&path, merge, &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    // As it was before: its revision is a precondition that does not hold any more.
    let (code, _) = http.call(Method::PUT, &path, &scale).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(http.call(Method::PUT, &path, &scale).await.0, StatusCode::OK);
    let (_, mut old) = http.get(&path).await;
    old["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(http.call(Method::PUT, &path, &old).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn pods_are_bound_and_collections_deleted() {
    let master = Master::start().await;
    let http = Http::new(&master);
    for name in ["a", "b"] {
        master.registry.create(pod(name, None), &WriteOptions::default()).await.unwrap();
    }
    let pods = "/api/v1/namespaces/default/pods";
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    let (code, status) = http.call(Method::POST, &format!("{pods}/a/binding"), &binding).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    let (_, list) = http.get(&format!("{pods}?fieldSelector=spec.nodeName%3Dn1")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let other = json!({"target": {"name": "n2"}});
    let (code, _) = http.call(Method::POST, &format!("{pods}/a/binding"), &other).await;
    assert_eq!(code, StatusCode::CONFLICT);
    let path = format!("{pods}?gracePeriodSeconds=0");
    let (code, deleted) = http.send(http.request(Method::DELETE, &path, &[], "")).await;
    assert_eq!((code, &deleted["kind"]), (StatusCode::OK, &json!("PodList")));
    assert_eq!(http.get(pods).await.1["items"], json!([]));
}

#[tokio::test]
async fn nothing_is_deleted_over_all_namespaces_nor_are_all_of_them() {
    let master = Master::start().await;
    let http = Http::new(&master);
    master.registry.create(pod("p", None), &WriteOptions::default()).await.unwrap();
    for path in ["/api/v1/namespaces", "/api/v1/pods", "/apis/apps/v1/deployments"] {
        let (code, status) = http.send(http.request(Method::DELETE, path, &[], "")).await;
        assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED, "{path}: {status}");
    }
    for path in ["/api/v1/namespaces/default", "/api/v1/namespaces/default/pods/p"] {
        let (code, object) = http.get(path).await;
        assert_eq!((code, object["metadata"].get("deletionTimestamp")), (StatusCode::OK, None));
    }
}

#[tokio::test]
async fn containers_for_debugging_are_only_added() {
    let master = Master::start().await;
    let http = Http::new(&master);
    master.registry.create(pod("p", None), &WriteOptions::default()).await.unwrap();
    let path = "/api/v1/namespaces/default/pods/p/ephemeralcontainers";
    let add = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "tools:1"}]}});
    let strategic = "application/strategic-merge-patch+json";
    let (code, patched) = http.patch(path, strategic, &add).await;
    assert_eq!(code, StatusCode::OK, "{patched}");
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["name"], "debug");
    let other = json!({"spec": {"nodeName": "n1"}});
    assert_eq!(http.patch(path, strategic, &other).await.1["spec"].get("nodeName"), None);
    let none = json!({"spec": {"ephemeralContainers": null}});
    let (code, _) = http.patch(path, "application/merge-patch+json", &none).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn autoscalers_are_served_in_two_versions() {
    let master = Master::start().await;
    let http = Http::new(&master);
    let all = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let autoscaler = json!({
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80},
    });
    let (code, created) = http.call(Method::POST, &all("v1"), &autoscaler).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    assert_eq!(created["apiVersion"], "autoscaling/v1");
    let (_, stored) = http.get(&format!("{}/web", all("v2"))).await;
    assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70}});
    let one = format!("{}/web", all("v1"));
    let (code, patched) = http.patch(&one, "application/merge-patch+json", &patch).await;
    assert_eq!(code, StatusCode::OK, "{patched}");
    let (_, list) = http.get(&all("v1")).await;
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 70);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_kubernetes_words() {
    let master = Master::start().await;
    let http = Http::new(&master);
    for path in ["/api/v1/unicorns", "/apis/none/v1", "/apis/apps/v9/deployments", "/nowhere"] {
        let (code, status) = http.get(path).await;
        assert_eq!((code, &status["kind"]), (StatusCode::NOT_FOUND, &json!("Status")), "{path}");
        assert_eq!(status["message"], "the server could not find the requested resource");
    }
    let (code, status) = http.get(&format!("{MAPS}?fieldSelector=data.x%3D1")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::BAD_REQUEST, &json!("BadRequest")));
    let (code, _) = http.send(http.request(Method::POST, MAPS, &[], "{\"metadata\":")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let protobuf = [("content-type", "application/x-unknown")];
    let (code, _) = http.send(http.request(Method::POST, MAPS, &protobuf, "x")).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let large = "x".repeat(quorate_api::MAX_REQUEST_BYTES + 1);
    let (code, status) = http.send(http.request(Method::POST, MAPS, &[], &large)).await;
    assert_eq!((code, &status["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(413)));
    let (code, _) = http.call(Method::PUT, &format!("{MAPS}/b"), &config_map("a", "1")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let (code, status) = http
        .call(
            Method::POST,
            "/api/v1/namespaces/none/configmaps",
            &json!({"metadata": {"name": "a"}}),
        )
        .await;
    assert_eq!(
        (code, &status["message"]),
        (StatusCode::NOT_FOUND, &json!("namespaces \"none\" not found"))
    );
}

#[tokio::test]
async fn health_and_discovery_answer() {
    let master = Master::start().await;
    let http = Http::new(&master);
    for path in ["/healthz", "/livez", "/readyz", "/readyz/leader"] {
        assert_eq!(http.get(path).await, (StatusCode::OK, json!("ok")), "{path}");
    }
    let (_, verbose) = http.get("/readyz?verbose&exclude=ping").await;
    let text = verbose.as_str().unwrap();
    assert!(text.contains("[+]caches ok\n") && text.contains("readyz check passed"), "{text}");
    assert_eq!(http.get("/readyz/nothing").await.0, StatusCode::NOT_FOUND);
    let (_, groups) = http.get("/apis").await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "apps"));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, list) = http.get_as("/api", aggregated).await;
    assert_eq!(list["items"][0]["versions"][0]["version"], "v1");
    assert_eq!(http.get("/version").await.1["major"], "1");
}

#[tokio::test]
async fn http1_and_http2_share_the_port() {
    let master = Master::start().await;
    let client: Client<_, Body> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("{}/livez", master.url());
    let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
    let response = soon("an answer", client.request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.version(), axum::http::Version::HTTP_2);
    assert_eq!(Http::new(&master).get("/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_ends_ends_its_watches() {
    let mut master = Master::start().await;
    let http = Http::new(&master);
    let mut watch = http.watch(&format!("{MAPS}?watch=true")).await;
    tokio::time::timeout(Duration::from_secs(15), master.stop_server()).await.unwrap();
    assert!(watch.next().await.is_none());
}
