use super::*;

#[test]
fn options_are_read_from_a_body() {
    let options = parse_options(&json!({
        "gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "dryRun": ["All"],
        "preconditions": {"uid": "u", "resourceVersion": "7"},
    }));
    let options = options.unwrap();
    assert_eq!((options.grace_seconds, options.revision), (Some(0), Some(7)));
    assert_eq!((options.uid.as_deref(), options.dry_run), (Some("u"), true));
    assert_eq!(options.propagation, Propagation::Foreground);
    let none = parse_options(&json!({})).unwrap();
    assert_eq!((none.grace_seconds, none.propagation), (None, Propagation::Background));
}

#[test]
fn wrong_options_are_refused() {
    for wrong in [
        json!({"gracePeriodSeconds": -1}),
        json!({"gracePeriodSeconds": "soon"}),
        json!({"propagationPolicy": "Sometimes"}),
        json!({"dryRun": ["Some"]}),
        json!({"preconditions": {"resourceVersion": "x"}}),
    ] {
        assert!(parse_options(&wrong).is_err(), "{wrong}");
    }
}
