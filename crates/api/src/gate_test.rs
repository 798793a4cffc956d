use quorate_registry::{Registry, RegistryOptions};
use quorate_store::MemoryStore;
use tokio_util::sync::CancellationToken;

use super::*;

/// By somebody who is known and has no role.
fn request(path: &str, content_type: &str) -> Request<Body> {
    let jane = User { name: "jane".into(), ..User::default() };
    let peer = Arc::new(Peer { user: Some(Arc::new(jane)) });
    let request = Request::builder().uri(path).header(CONTENT_TYPE, content_type).extension(peer);
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_header_opens_no_path() {
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let registry = Registry::start(MemoryStore::new(), RegistryOptions::default(), cancel);
    let auth = Auth::new(registry);
    let admitted = |path: &str, content_type: &str| {
        let request = request(path, content_type);
        admit(&auth, &Shape::of(&request), &request).is_ok()
    };
    for path in ["/metrics", "/openapi/v3", "/nowhere"] {
        for content_type in ["application/json", "application/grpc", "application/grpc+proto"] {
            assert!(!admitted(path, content_type), "{path} as {content_type}");
        }
    }
    // These ask for themselves.
    assert!(admitted("/quorate.v1.Objects/Get", "application/grpc"));
    assert!(admitted("/etcdserverpb.KV/Range", "application/grpc+proto"));
    assert!(admitted("/api/v1/pods", "application/json"));
}
