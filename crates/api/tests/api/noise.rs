//! Bodies that nobody means: random bytes, and JSON of the right words in the wrong places. Each is
//! answered with a Status, or done; none ends a connection.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::master::{Master, soon};
use crate::rest::Http;

const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "annotations",
    "labels",
    "data",
    "kind",
    "apiVersion",
    "maxReplicas",
    "metrics",
    "behavior",
    "scaleTargetRef",
    "boundObjectRef",
    "audiences",
    "expirationSeconds",
    "replicas",
    "target",
    "containers",
    "resourceVersion",
    "resourceAttributes",
    "managedFields",
    "finalizers",
    "a",
    "",
    "$patch",
    "deleteOptions",
    "preconditions",
    "propagationPolicy",
    "gracePeriodSeconds",
    "rules",
    "roleRef",
    "subjects",
];

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(WORDS).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let within = |field: &'static str| value().prop_map(move |inner| json!({field: inner}));
    let operations = prop::collection::vec((word(), value()), 0..3).prop_map(|all| -> Value {
        let one =
            |(path, value)| json!({"op": "replace", "path": format!("/{path}"), "value": value});
        all.into_iter().map(one).collect()
    });
    let text = |value: Value| value.to_string().into_bytes();
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..60),
        // What a protobuf body begins with.
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|rest| [b"k8s\0", &rest[..]].concat()),
        2 => value().prop_map(text),
        2 => within("spec").prop_map(text),
        2 => within("metadata").prop_map(text),
        2 => operations.prop_map(text),
    ]
}

const TYPES: &[&str] = &[
    "",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
];

/// Methods and paths that read a body.
const TARGETS: &[(Method, &str)] = &[
    (Method::PATCH, "/api/v1/namespaces/default/configmaps/m"),
    (Method::PUT, "/api/v1/namespaces/default/configmaps/m"),
    (Method::POST, "/api/v1/namespaces/default/configmaps"),
    (Method::DELETE, "/api/v1/namespaces/default/configmaps/none"),
    (Method::PATCH, "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h"),
    (Method::PUT, "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h"),
    (Method::POST, "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"),
    (Method::PATCH, "/apis/apps/v1/namespaces/default/deployments/d/scale"),
    (Method::PUT, "/apis/apps/v1/namespaces/default/deployments/d/scale"),
    (Method::PATCH, "/apis/apps/v1/namespaces/default/deployments/d/status"),
    (Method::POST, "/api/v1/namespaces/default/serviceaccounts/default/token"),
    (Method::POST, "/api/v1/namespaces/default/pods/p/binding"),
    (Method::POST, "/api/v1/namespaces/default/pods/p/eviction"),
    (Method::PATCH, "/api/v1/namespaces/default/pods/p/ephemeralcontainers"),
    (Method::PUT, "/api/v1/namespaces/default/finalize"),
    (Method::PUT, "/api/v1/namespaces/other/finalize"),
    (Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    (Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    (Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"),
    (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews"),
    (Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews"),
    (Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    (Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
];

async fn prepare(http: &Http) {
    let make = async |path: &str, value: Value| {
        let (code, answer) = http.call(Method::POST, path, &value).await;
        assert!(code.is_success(), "{answer}");
    };
    let meta = |name: &str| json!({"name": name});
    let template = json!({
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    make("/api/v1/namespaces/default/configmaps", json!({"metadata": meta("m")})).await;
    make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": meta("default")})).await;
    make(
        "/api/v1/namespaces/default/pods",
        json!({"metadata": meta("p"), "spec": template["spec"]}),
    )
    .await;
    make(
        "/apis/apps/v1/namespaces/default/deployments",
        json!({"metadata": meta("d"), "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": template,
        }}),
    )
    .await;
    make(
        "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
        json!({"metadata": meta("h"), "spec": {
            "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        }}),
    )
    .await;
}

#[test]
fn noise_is_answered() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let master = runtime.block_on(Master::start());
    let http = Http::new(&master);
    runtime.block_on(prepare(&http));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) };
    let types = prop::sample::select(TYPES);
    let case = (prop::sample::select(TARGETS), types, any::<bool>(), body());
    TestRunner::new(config)
        .run(&case, |((method, path), media_type, strict, body)| {
            let query =
                if strict { "?fieldValidation=Strict" } else { "?fieldManager=m&force=true" };
            let mut request = Request::builder()
                .method(method.clone())
                .uri(format!("{}{path}{query}", http.base));
            if !media_type.is_empty() {
                request = request.header("content-type", media_type);
            }
            let request = request.body(Body::from(body)).unwrap();
            // `send` fails when the connection is closed, as by a panic.
            let (code, answer) = runtime.block_on(soon("an answer", http.send(request)));
            prop_assert!(code != StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
            if !code.is_success() {
                prop_assert_eq!(&answer["kind"], "Status", "{}", answer);
            }
            Ok(())
        })
        .unwrap();
}
