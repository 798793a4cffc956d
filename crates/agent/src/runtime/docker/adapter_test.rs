#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn references_split_into_repository_and_tag() {
    assert_eq!(split_reference("busybox"), ("busybox", "latest"));
    assert_eq!(split_reference("a/b:1.2"), ("a/b", "1.2"));
    assert_eq!(split_reference("localhost:5000/b"), ("localhost:5000/b", "latest"));
    assert_eq!(split_reference("localhost:5000/b:x"), ("localhost:5000/b", "x"));
    assert_eq!(split_reference("a@sha256:00"), ("a", "sha256:00"));
}

#[tokio::test]
async fn a_missing_engine_is_named_with_advice() {
    let error = Adapter::connect("unix:///nowhere/docker.sock").await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/docker.sock"), "{error}");
    assert!(error.contains("start Docker"), "{error}");
}
