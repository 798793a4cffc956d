use quorate_objects::kinds;

use super::*;

#[test]
fn not_found_names_the_object() {
    let error = RegistryError::NotFound { resource: "deployments.apps".into(), name: "web".into() };
    let status = Failure::from(error).status();
    assert_eq!(status["code"], 404);
    assert_eq!(status["message"], "deployments.apps \"web\" not found");
    assert_eq!(status["details"], json!({"name": "web", "group": "apps", "kind": "deployments"}));
}

#[test]
fn wrong_fields_are_causes() {
    let errors = vec![
        FieldError::required("spec.a", "really"),
        FieldError::not_supported("spec.b", "x", &["y", "z"]),
    ];
    let invalid = Invalid::new(&kinds::DEPLOYMENT, "web", errors);
    let failure = Failure::from(RegistryError::from(invalid));
    assert_eq!(failure.code, StatusCode::UNPROCESSABLE_ENTITY);
    let status = failure.status();
    let message = "Deployment.apps \"web\" is invalid: [spec.a: Required value: really, spec.b: \
                   Unsupported value: \"x\": supported values: \"y\", \"z\"]";
    assert_eq!(status["message"], message);
    let details = &status["details"];
    assert_eq!((&details["kind"], &details["group"]), (&json!("Deployment"), &json!("apps")));
    assert_eq!(
        details["causes"][1],
        json!({
            "reason": "FieldValueNotSupported", "field": "spec.b",
            "message": "Unsupported value: \"x\": supported values: \"y\", \"z\"",
        })
    );
}

#[test]
fn what_cannot_be_decoded_is_a_bad_request() {
    let value = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dta": {},
    });
    let invalid = quorate_objects::decode(value, &kinds::CONFIG_MAP).unwrap_err();
    let failure = Failure::from(RegistryError::from(invalid));
    assert_eq!(failure.code, StatusCode::BAD_REQUEST);
    let head = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: ";
    assert!(failure.message.starts_with(head), "{failure:?}");
    assert!(
        failure.message.ends_with("strict decoding error: unknown field \"dta\""),
        "{failure:?}"
    );
}

#[test]
fn who_finds_no_leader_is_told_when_to_come_again() {
    let error = RegistryError::Unavailable { reason: "no leader".into(), leader: None };
    let response = Failure::from(error).into_response();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    // Here it would be harmful: the first attempt may have been carried out.
    let error = RegistryError::OutcomeUnknown("lost".into());
    assert!(!Failure::from(error).into_response().headers().contains_key(RETRY_AFTER));
}
