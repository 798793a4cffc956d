use super::*;

fn attempts(reached: usize, total: usize) -> Vec<Attempt> {
    (0..total)
        .map(|i| Attempt {
            endpoint: format!("http://127.0.0.1:700{i}"),
            reached: i < reached,
            problem: if i < reached { "no leader".into() } else { "connection refused".into() },
        })
        .collect()
}

#[test]
fn nobody_reachable_names_every_endpoint_and_what_to_do() {
    let error = nobody("list pods", attempts(0, 3), None);
    assert!(error.message.starts_with("list pods: none of 3 masters answered"), "{error}");
    assert!(error.message.contains("http://127.0.0.1:7002: connection refused"), "{error}");
    assert!(error.message.contains("quorate status"), "{error}");
    assert!(error.retryable());
}

#[test]
fn a_minority_reachable_says_that_the_majority_is_missing() {
    let error = nobody("create", attempts(1, 3), None);
    assert!(error.message.contains("only 1 of 3 masters is reachable"), "{error}");
    assert!(error.message.contains("--stale"), "{error}");
    assert_eq!(error.reason, "Unavailable");
}

#[test]
fn details_of_a_status_become_fields_reason_and_leader() {
    let mut details = tonic_types::ErrorDetails::new();
    let leader = std::collections::HashMap::from([("leader".to_owned(), "http://l".to_owned())]);
    details.set_error_info("Invalid", "quorate.dev", leader);
    details.add_bad_request_violation("spec.replicas", "must not be negative");
    let status = Status::with_error_details(Code::InvalidArgument, "wrong", details);
    let error = ClientError::from(status);
    assert!(error.is_invalid());
    assert_eq!(error.leader.as_deref(), Some("http://l"));
    assert_eq!(error.fields[0].path, "spec.replicas");
}

#[test]
fn only_answers_of_a_master_are_final() {
    let broken = Status::unavailable("transport");
    assert!(matches!(classify(broken), Outcome::Broken(_)));
    let details = tonic_types::ErrorDetails::with_error_info(
        "Unavailable",
        "quorate.dev",
        std::collections::HashMap::new(),
    );
    let later = Status::with_error_details(Code::Unavailable, "no leader", details);
    assert!(matches!(classify(later), Outcome::Later(_)));
    assert!(matches!(classify(Status::not_found("x")), Outcome::Final(_)));
}
