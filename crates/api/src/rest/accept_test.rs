use axum::http::HeaderValue;

use super::*;

fn accept(text: &'static str) -> Result<Accept> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(text));
    Accept::of(&headers)
}

#[test]
fn the_first_known_form_is_taken() {
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;\
                 g=meta.k8s.io,application/json";
    assert_eq!(accept(table).unwrap().form, Form::Table);
    let protobuf = "application/vnd.kubernetes.protobuf, application/json";
    assert_eq!(accept(protobuf).unwrap(), Accept::default());
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    assert_eq!(accept(partial).unwrap().form, Form::Partial);
    assert!(accept("application/yaml").unwrap().yaml);
    assert_eq!(Accept::of(&HeaderMap::new()).unwrap(), Accept::default());
    assert_eq!(accept("text/html, */*").unwrap(), Accept::default());
}

#[test]
fn what_we_do_not_have_is_refused() {
    assert_eq!(accept("text/html").unwrap_err().code, StatusCode::NOT_ACCEPTABLE);
    let old = "application/json;as=Table;v=v1alpha1;g=meta.k8s.io";
    assert_eq!(accept(old).unwrap_err().code, StatusCode::NOT_ACCEPTABLE);
}
